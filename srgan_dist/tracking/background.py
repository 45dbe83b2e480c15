"""A thread of its own for what must not make the training wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue


class Background:
    """Does one thing after the other, in the order given, in a thread that no exit of the process waits for."""

    def __init__(self) -> None:
        self._actions: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def do(self, action: Callable[[], object]) -> None:
        """Do something later.

        Args:
            action: It handles its errors itself.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
            self._thread.start()
        self._actions.put(action)

    def wait(self, seconds: float) -> bool:
        """Wait until all is done that was given so far, and return whether it is.

        Args:
            seconds: How long at most.
        """
        done = threading.Event()
        self.do(done.set)
        return done.wait(seconds)

    def _work(self) -> None:
        while True:
            self._actions.get()()
