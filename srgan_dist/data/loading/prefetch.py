"""Fetching remote shards ahead of the reader, along the order."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress

from srgan_dist.data.loading.order import Order
from srgan_dist.data.shards.shard_set import ShardSet
from srgan_dist.errors import Failure, UserError

_FETCHERS = 2  # threads in each rank; ranks skip what another one is fetching


class Prefetcher:
    """Fetches, in threads of this process, the shards of the window that is read and of the next one.

    Threads start with the first position, so that workers forked before have none.

    Args:
        shards: the opened shards.
        order: of their crops.
    """

    def __init__(self, shards: ShardSet, order: Order) -> None:
        self._shards, self._order = shards, order
        self._until = 0
        self._todo: deque[int] = deque()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def reached(self, position: int) -> None:
        """Tell that a position of the stream will be read now; costs nothing within a window."""
        if position < self._until or self._closed:
            return
        shards, self._until = self._order.upcoming_shards(position)
        # First all of them, so that none makes room for another.
        self._shards.keep(shards)
        with self._changed:
            self._todo = deque(shards)
            self._changed.notify_all()
        while len(self._threads) < _FETCHERS:
            self._threads.append(threading.Thread(target=self._run, name="srgan-dist prefetch", daemon=True))
            self._threads[-1].start()

    def close(self) -> None:
        """Begin no further download."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._todo)
                if self._closed:
                    return
                shard = self._todo.popleft()
            # The reader that needs the shard meets the same error, and tells it.
            with suppress(UserError, Failure):
                self._shards.fetch(shard, wait=False)
