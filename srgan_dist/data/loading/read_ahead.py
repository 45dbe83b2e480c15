"""Reads an iterator one item ahead, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import TypeVar

_Item = TypeVar("_Item")
_WAIT = 1.0  # seconds
_JOIN_TIMEOUT = 1.0  # seconds: more than reading one item takes, unless a server is silent


class ReadAhead(Iterator[_Item]):
    """Yields the items of an iterator; a thread takes the next one before it is asked for.

    What the iterator raises is raised where its item would have come, and again by every call after that.

    Args:
        source: The iterator; from now on only the thread may use it.
        while_waiting: Called every second in which an item is waited for; may raise that it will never come.
    """

    def __init__(self, source: Iterator[_Item], *, while_waiting: Callable[[], None] = lambda: None) -> None:
        self._source, self._while_waiting = source, while_waiting
        self._taken: SimpleQueue[tuple[_Item, None] | tuple[None, BaseException]] = SimpleQueue()
        self._requests = threading.Semaphore()
        self._closed = False
        # A daemon: a program that ends must not wait for a server.
        self._thread = threading.Thread(target=self._run, name="srgan-dist reader", daemon=True)
        self._thread.start()

    def __next__(self) -> _Item:
        while True:
            try:
                taken = self._taken.get(timeout=_WAIT)
                break
            except Empty:
                self._while_waiting()
        if taken[1] is not None:
            self._taken.put(taken)
            raise taken[1]
        self._requests.release()
        return taken[0]

    def close(self) -> None:
        """End the thread after the item it is reading; does not wait for an item that takes longer than a second."""
        self._closed = True
        self._requests.release()
        self._thread.join(_JOIN_TIMEOUT)

    def _run(self) -> None:
        while True:
            self._requests.acquire()
            if self._closed:
                return
            try:
                self._taken.put((next(self._source), None))
            except BaseException as error:  # noqa: BLE001 - raised in the thread that calls next
                self._taken.put((None, error))
                return
