"""The page that compares runs: one file of HTML, which asks for nothing else."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from srgan_dist.utils import strict_json

_SLIDER, _PLOTS = "vendor/img-comparison-slider-8.0.7", "vendor/uPlot-1.6.32"
_STYLES = (f"{_SLIDER}.css", f"{_PLOTS}.min.css", "page.css")
_LIBRARIES = (f"{_SLIDER}.js", f"{_PLOTS}.iife.min.js")
_SCRIPTS = ("tools.js", "tables.js", "images.js", "tradeoff.js", "curves.js", "page.js")
_SOURCE_MAP = re.compile(r"^//# sourceMappingURL=.*$", re.MULTILINE)  # a browser's tools would ask for it


def render(payload: Mapping[str, Any]) -> str:
    """Make the page.

    Args:
        payload: What it shows, as `srgan_dist.reports.compare.to_payload` puts it together.

    Returns:
        HTML that holds its styles, scripts, pictures and data; its policy forbids the browser any request.
    """
    licences = "\n".join(f"/*!\n{_text(f'{name}.LICENSE').strip()}\n*/" for name in (_SLIDER, _PLOTS))
    parts = {
        "TITLE": html.escape(str(payload["title"])),
        "STYLES": "\n".join(map(_text, _STYLES)),
        # Within a script nothing but "</" and "<!--" means anything to a browser, and JSON has "<" in texts alone.
        "DATA": strict_json.dumps(payload).replace("<", "\\u003c"),
        "LIBRARIES": "\n".join([licences, *(_SOURCE_MAP.sub("", _text(name)) for name in _LIBRARIES)]),
        "SCRIPT": "\n".join(['(() => {\n"use strict";', *map(_text, _SCRIPTS), "})();"]),
    }
    return re.sub("@([A-Z]+)@", lambda found: parts[found[1]], _text("index.html"))


def _text(name: str) -> str:
    return files("srgan_dist.reports").joinpath("page", name).read_text(encoding="utf-8")
