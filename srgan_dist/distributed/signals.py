"""Signals as a wish: the run stops at the next step boundary, on all ranks together, with everything saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopSignals:
    """What this process has been asked.

    Args:
        stop: Set by another thread to ask for the same as a signal; None: nobody does.
    """

    def __init__(self, stop: threading.Event | None = None) -> None:
        self._stop = stop
        self._first: signal.Signals | None = None

    @property
    def received(self) -> str | None:
        """The name of the first signal, ``stop`` where another thread asked, or None."""
        if self._first is None:
            return "stop" if self._stop and self._stop.is_set() else None
        return self._first.name

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Remember a signal; a second Ctrl-C stops at once."""
        if self._first == number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        self._first = self._first or signal.Signals(number)


@contextmanager
def stop_signals(stop: threading.Event | None = None) -> Iterator[StopSignals]:
    """Catch SIGTERM, SIGINT and SIGUSR1 instead of dying of them, also where they were inherited as ignored.

    Python handles signals in the main thread alone: in any other one nothing is caught, and only ``stop`` asks.
    """
    signals = StopSignals(stop)
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {number: signal.signal(number, signals.handle) for number in _STOPPING}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_stop_signals() -> None:
    """For a process whose run has ended: a repeated signal must not kill it when it is saved and on its way out."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
