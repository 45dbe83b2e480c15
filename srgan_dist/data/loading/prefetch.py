"""Fetches remote shards before they are read, in the order in which they will be."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress

from srgan_dist.data.loading.order import Order
from srgan_dist.data.shards.shard_set import ShardSet
from srgan_dist.errors import Failure, UserError

_FETCHERS = 2  # threads in each rank; ranks skip what another rank is fetching


class Prefetcher:
    """Fetches the shards of the current and the next shuffle window in threads of this process.

    The threads start with the first position, so that workers forked before that have none.

    Args:
        shards: The opened shards.
        order: Order of their patches.
    """

    def __init__(self, shards: ShardSet, order: Order) -> None:
        self._shards, self._order = shards, order
        self._until = 0
        self._todo: deque[int] = deque()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def reached(self, position: int) -> None:
        """Report that the stream is read from a position on; costs nothing within a shuffle window.

        Args:
            position: Position in the stream, >= 0.
        """
        if position < self._until or self._closed:
            return
        shards, self._until = self._order.upcoming_shards(position)
        # Mark all of them first, so that none is evicted for another.
        self._shards.keep(shards)
        with self._changed:
            self._todo = deque(shards)
            self._changed.notify_all()
        while len(self._threads) < _FETCHERS:
            self._threads.append(threading.Thread(target=self._run, name="srgan-dist prefetch", daemon=True))
            self._threads[-1].start()

    def close(self) -> None:
        """Start no further downloads."""
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
            # The reader that needs the shard gets the same error, and raises it.
            with suppress(UserError, Failure):
                self._shards.fetch(shard, wait=False)
