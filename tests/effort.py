"""What a call costs, counted instead of timed: the same on a slow machine, a fast one and a busy one."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple


class Effort(NamedTuple):
    """What a call cost.

    Attributes:
        lines: Lines of Python that ran, again in every round of a loop. What numpy does with a whole array is one.
        peak_bytes: Most memory that it held at a time beyond what was held before, numpy's arrays included.
    """

    lines: int
    peak_bytes: int


def effort(call: Callable[[], Any]) -> Effort:
    """Run a call three times: once so that what it keeps for later is there, then counting lines, then memory.

    Args:
        call: Does the same every time.
    """
    call()
    lines = 0

    def trace(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    tracemalloc.start()
    try:
        held, _ = tracemalloc.get_traced_memory()
        call()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return Effort(lines, peak - held)
