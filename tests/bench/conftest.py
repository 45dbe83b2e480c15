"""What the tests of benchmarks share."""

from __future__ import annotations

import pytest

from srgan_dist.tracking.console import output


@pytest.fixture
def wide_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name in a table is broken into two lines; a console reads COLUMNS only when it is made."""
    monkeypatch.setattr(output, "_width", 220)
