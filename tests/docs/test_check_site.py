"""docs/check_site.py, which `make docs` ends with: it finds what it is there for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent.parent / "docs" / "check_site.py"


def check(site: Path, **files: str) -> subprocess.CompletedProcess[str]:
    """Write a site of the given pages and styles, and check it."""
    for name, text in files.items():
        (site / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return subprocess.run([sys.executable, SCRIPT, site], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ('<script src="https://cdn.example/x.js"></script>', "fetches https://cdn.example/x.js"),
        ('<script src="//cdn.example/x.js"></script>', "fetches //cdn.example/x.js"),
        ('<link rel="stylesheet" href="https://cdn.example/x.css">', "fetches https://cdn.example/x.css"),
        ('<p style="background: url(https://cdn.example/x.png)">', "fetches https://cdn.example/x.png"),
        ('<img src="gone.png">', "gone.png is not there"),
        ('<a href="gone.html">', "gone.html leads nowhere"),
        ('<a href="#gone">', "that page has no gone"),
        ('<a href="b.html#gone">', "that page has no gone"),
        ('<a href="http://example.org/">', "not a well-formed https address"),
        ('<a href="https://exa mple/">', "not a well-formed https address"),
    ],
)
def test_a_fault_is_found(tmp_path: Path, page: str, said: str) -> None:
    done = check(tmp_path, a_html=page, b_html="<p id='here'>")
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_font_from_elsewhere_is_found_in_a_style(tmp_path: Path) -> None:
    done = check(tmp_path, a_html="<p>", b_css="@font-face { src: url('https://fonts.example/a.woff2') }")
    assert done.returncode == 1
    assert "b.css: fetches https://fonts.example/a.woff2" in done.stderr


def test_a_sound_site_passes(tmp_path: Path) -> None:
    page = '<a href="b.html#here"></a><a href="https://example.org/x"></a><img src="data:image/png;base64,AA">'
    done = check(tmp_path, a_html=page, b_html='<p id="here">', c_css="p { background: url(data:image/png;base64,AA) }")
    assert (done.returncode, done.stderr) == (0, "")


def test_an_empty_site_is_a_fault(tmp_path: Path) -> None:
    assert "holds no pages" in check(tmp_path).stderr
