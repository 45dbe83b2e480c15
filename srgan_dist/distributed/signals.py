"""Signals as a wish: the run stops at the next step boundary, on all ranks together, with everything saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopSignals:
    """What this process has been asked.

    Attributes:
        received: The first signal, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Remember a signal; a second Ctrl-C stops at once."""
        if self.received == number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        self.received = self.received or signal.Signals(number)


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Catch SIGTERM, SIGINT and SIGUSR1 instead of dying of them, also where they were inherited as ignored."""
    wish = StopSignals()
    before = {number: signal.signal(number, wish.handle) for number in _STOPPING}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            # A repeated signal must not kill what is saved and on its way out.
            signal.signal(number, signal.SIG_IGN if wish.received and number != signal.SIGINT else handler)
