"""What every test of signals needs."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def hanging_up_arrives() -> Iterator[None]:
    """Programs that a test starts inherit what is ignored, and under ``nohup`` that is SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
