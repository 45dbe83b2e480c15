"""The page is one file that asks for nothing, and what people name their runs stays text."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

from srgan_dist.reports.page import render

EMPTY: dict[str, Any] = {
    "title": "Comparison of 0 runs",
    "made": "2026-11-27T00:00:00Z",
    "version": "0.1",
    "baseline": None,
    **{key: [] for key in ("metrics", "runs", "groups", "differing", "curves", "images", "assets", "notes")},
}
EVIL = "</script><script>alert('run')</script><!-- @DATA@ & \u2028"


def test_a_name_cannot_leave_its_text() -> None:
    page = render(EMPTY | {"title": EVIL, "notes": [EVIL]})
    assert page.count("<script") == render(EMPTY).count("<script")
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data
    assert json.loads(data[1])["notes"] == [EVIL]
    assert "<title>&lt;/script&gt;" in page


def test_nothing_in_it_is_somewhere_else() -> None:
    page = render(EMPTY)
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert not re.search(r"@import|url\((?!data:)|sourceMappingURL|fetch\(|XMLHttpRequest", page)
    assert "default-src 'none'" in page
    assert "@" not in re.findall(r"@[A-Z]+@", page)


def test_what_others_wrote_comes_with_its_licence() -> None:
    vendor = files("srgan_dist.reports").joinpath("page", "vendor")
    for name in ("img-comparison-slider-8.0.7", "uPlot-1.6.32"):
        licence = vendor.joinpath(f"{name}.LICENSE").read_text()
        assert "Permission is hereby granted" in licence
        assert licence.strip() in render(EMPTY)
