"""Training time, and the speed between two log lines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Lap:
    """Speed since the last lap."""

    steps_per_second: float
    data_wait: float


class Clock:
    """Training time, and the speed between two log lines."""

    def __init__(self, step: int, seconds: float) -> None:
        self.before, self.start = seconds, time.monotonic()
        self.lap_step, self.lap_start, self.waited = step, self.start, 0.0

    @property
    def seconds(self) -> float:
        """Time of this run so far, over all its sessions."""
        return self.before + time.monotonic() - self.start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Around what is not training: it does not count as slow steps."""
        begin = time.monotonic()
        yield
        self.lap_start += time.monotonic() - begin

    def lap(self, step: int) -> Lap:
        """The speed since the last call."""
        now = time.monotonic()
        elapsed = max(now - self.lap_start, 1e-9)
        lap = Lap((step - self.lap_step) / elapsed, self.waited / elapsed)
        self.lap_step, self.lap_start, self.waited = step, now, 0.0
        return lap
