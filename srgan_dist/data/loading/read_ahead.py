"""Taking things off an iterator in a thread, while whoever uses them is at work."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import TypeVar

_Item = TypeVar("_Item")
_PATIENCE = 1.0  # seconds: more than reading one item takes, unless a server is silent


class ReadAhead(Iterator[_Item]):
    """Yields what an iterator yields, and has its thread take one item more than was asked for.

    What the iterator raises is raised where its item would have come, and again by every call after that.

    Args:
        source: used by the thread only, from now on.
    """

    def __init__(self, source: Iterator[_Item]) -> None:
        self._source = source
        self._taken: SimpleQueue[tuple[_Item, None] | tuple[None, BaseException]] = SimpleQueue()
        self._wanted = threading.Semaphore()
        self._closed = False
        # A daemon: a program that ends must not wait for a server.
        self._thread = threading.Thread(target=self._run, name="srgan-dist reader", daemon=True)
        self._thread.start()

    def __next__(self) -> _Item:
        taken = self._taken.get()
        if taken[1] is not None:
            self._taken.put(taken)
            raise taken[1]
        self._wanted.release()
        return taken[0]

    def close(self) -> None:
        """End the thread, which finishes the item it is at; a long wait for one is not waited for."""
        self._closed = True
        self._wanted.release()
        self._thread.join(_PATIENCE)

    def _run(self) -> None:
        while True:
            self._wanted.acquire()
            if self._closed:
                return
            try:
                self._taken.put((next(self._source), None))
            except BaseException as error:  # noqa: BLE001 - raised in the thread that asks
                self._taken.put((None, error))
                return
