"""How Sphinx builds these pages into site/: `make docs`."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.ext.graphviz import GraphvizError, graphviz, render_dot
from sphinx.writers.html5 import HTML5Translator

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the docstrings of this checkout

project = "srgan-dist"
author = "the srgan-dist authors"
version = release = version_of("srgan-dist")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.graphviz"]
exclude_patterns = ["Thumbs.db", ".DS_Store"]

myst_heading_anchors = 3  # [text](page.md#heading) is checked, too

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
highlight_language = "text"  # of blocks without a language: commands, trees of files
default_role = "literal"  # docstrings write names in single backticks
python_maximum_signature_line_length = 80
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Source", "notes")]

graphviz_output_format = "svg"

html_theme = "furo"
html_title = f"srgan-dist {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False


def inline_svg(translator: HTML5Translator, node: graphviz) -> None:
    """Write a diagram into the page itself: only there can the theme's colours, light and dark, reach it.

    The Graphviz extension refers to a file of its own instead, which no style sheet of the page reaches.

    Raises:
        SkipNode: Always: the node is done.
    """
    try:
        _, path = render_dot(translator, node["code"], node["options"], "svg")
    except GraphvizError as error:
        raise SystemExit(f"docs: {error}") from None
    if path is None:
        raise SystemExit("docs: Graphviz's dot did not run: apt-get install graphviz")
    svg = Path(path).read_text(encoding="utf-8")
    svg = re.sub(r"\A.*?(?=<svg)", "", svg, count=1, flags=re.DOTALL)  # the XML and DOCTYPE declarations
    svg = re.sub(r"<!--.*?-->|<title>.*?</title>", "", svg, flags=re.DOTALL)  # a tooltip "a->b" helps nobody
    label = translator.attval(node.get("alt", ""))
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    translator.body.append(f'<div class="diagram">{svg}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register the diagrams' visitor in place of the extension's."""
    app.add_node(graphviz, override=True, html=(inline_svg, None))
