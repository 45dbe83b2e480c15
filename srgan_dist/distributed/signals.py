"""Signals ask a run to stop: it does so at the next step boundary, on all ranks together, with everything saved."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from srgan_dist.distributed.launch import launcher_pid

log = logging.getLogger("srgan_dist")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


class StopSignals:
    """What this process has been asked.

    Args:
        stop: Set by another thread to ask for the same as a signal; None: nobody does.
        launcher: The process that started this rank and ends it, whose death asks for the same; None: there is none.
    """

    def __init__(self, stop: threading.Event | None = None, *, launcher: int | None = None) -> None:
        self._stop, self._launcher = stop, launcher
        self._first: signal.Signals | None = None

    @property
    def received(self) -> str | None:
        """The name of the first signal, ``stop`` where another thread asked, or None."""
        if self._first is not None:
            return self._first.name
        if self._stop and self._stop.is_set():
            return "stop"
        # A launcher that was killed cannot end its ranks; PDEATHSIG would also come when its starting thread ends.
        return "launcher died" if self._launcher and os.getppid() != self._launcher else None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Remember a signal; a second Ctrl-C stops at once."""
        if self._first == number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        self._first = self._first or signal.Signals(number)


@contextmanager
def stop_signals(stop: threading.Event | None = None) -> Iterator[StopSignals]:
    """Catch SIGTERM, SIGINT, SIGUSR1 and SIGHUP instead of dying of them, also where they were inherited as ignored.

    Only a SIGHUP that is ignored stays so: that is what ``nohup`` is for. Python handles signals in the main thread
    alone: in any other one nothing is caught, and only ``stop`` and the launcher's death ask.
    """
    signals = StopSignals(stop, launcher=launcher_pid())
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    numbers = [number for number in STOP_SIGNALS if number != signal.SIGHUP or not _is_ignored(number)]
    before = {number: signal.signal(number, signals.handle) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_stop_signals() -> None:
    """For a process whose run has ended: a repeated signal must not kill it when it is saved and on its way out."""
    for number in STOP_SIGNALS:
        if number != signal.SIGINT:
            signal.signal(number, signal.SIG_IGN)


def _is_ignored(number: signal.Signals) -> bool:
    return signal.getsignal(number) == signal.SIG_IGN


class StopGracePeriod:
    """Measures how long a run may need to stop, and warns once where that is longer than it would be given.

    Args:
        seconds: From the signal to the kill, or None where nobody knows.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._step = self._save = 0.0
        self._boundary: float | None = None

    def look(self, *, save: float) -> None:
        """At every step boundary.

        Args:
            save: Seconds that the last save took; 0 before there was one.
        """
        now = time.monotonic()
        if self._boundary is not None:
            self._step = max(self._step, now - self._boundary)
        self._boundary, self._save = now, max(self._save, save)
        if self.seconds is not None and self._save and self._step + self._save > self.seconds:
            log.warning(
                "run.stop_lead is %g s, but to stop takes up to %.3g s (a step with what belongs to it %.3g s, a save "
                "%.3g s): let the scheduler give its signal earlier (Slurm: --signal=B:USR1@SECONDS)",
                self.seconds,
                self._step + self._save,
                self._step,
                self._save,
            )
            self.seconds = None  # one warning is enough
