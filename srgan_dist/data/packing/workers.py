"""Spreads work over processes, and yields the results in order with a bounded number in memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import torch

from srgan_dist.errors import Failure
from srgan_dist.utils.processes import end_with_parent

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_IN_FLIGHT_PER_WORKER = 2  # one in progress, and the next one queued


def num_cores() -> int:
    """Count the cores that this process may use: those of its batch job, where the system reports them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """Worker processes, or this process alone; made by `start_workers`.

    Args:
        pool: The processes; None works in this process.
        count: Number of processes.
    """

    def __init__(self, pool: Executor | None, count: int) -> None:
        self._pool = pool
        self._count = count

    def map(self, function: Callable[[_Item], _Result], items: Iterable[_Item], *, chunk: int = 1) -> Iterator[_Result]:
        """Apply a function to items, in their order.

        At most two chunks per worker are in progress or wait to be yielded, so that memory stays bounded.

        Args:
            function: Picklable function; its exceptions are raised here, at their item's turn.
            items: Picklable items.
            chunk: Items sent to a worker at a time: more than one where each takes less than a millisecond.

        Yields:
            The results.

        Raises:
            Failure: A process was killed.
        """
        if self._pool is None:
            yield from map(function, items)
            return
        rest = iter(items)
        waiting: deque[Future[list[_Result]]] = deque()
        try:
            while True:
                while len(waiting) < self._count * _IN_FLIGHT_PER_WORKER and (part := list(islice(rest, chunk))):
                    waiting.append(self._pool.submit(_apply, function, part))
                if not waiting:
                    return
                yield from waiting.popleft().result()
        except BrokenProcessPool as error:
            raise Failure(
                "a worker process was killed, perhaps for lack of memory: run the same command again with fewer "
                "--workers, it resumes where this one stopped"
            ) from error


def _apply(function: Callable[[_Item], _Result], items: list[_Item]) -> list[_Result]:
    return [function(item) for item in items]


@contextmanager
def start_workers(count: int) -> Iterator[Workers]:
    """Start worker processes, and end them after the block.

    They are not forked from this process, since a fork would break its threads. A program that calls this from its
    main file with more than one worker must therefore guard the call by `if __name__ == "__main__":`.

    Args:
        count: Number of processes; 1 or less works in this process.

    Yields:
        The workers.
    """
    if count <= 1:
        yield Workers(None, 1)
        return
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    # Imports torch once instead of once per worker.
    context.set_forkserver_preload(["srgan_dist.data.packing.shard_writer"])
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin)
    try:
        yield Workers(pool, count)
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent handles it
    torch.set_num_threads(1)
    end_with_parent()
