"""The loader's worker processes: how they start, and how they end, also where one of them was killed."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch.utils.data.dataloader import _BaseDataLoaderIter

from srgan_dist.distributed.signals import STOP_SIGNALS
from srgan_dist.errors import Failure
from srgan_dist.utils.processes import end_with_parent


@contextmanager
def keeping_sigchld() -> Iterator[None]:
    """Around the start of workers: torch would raise a worker's death anywhere in the main thread, within an update.

    Without its handler it is raised where the worker's batch is asked for.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # torch installs none, either
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before if before is not None else signal.SIG_DFL)


@contextmanager
def all_or_none() -> Iterator[None]:
    """Around the start of workers: where one cannot be started, for want of descriptors or of /dev/shm, end the others.

    They ignore SIGTERM, so that the interpreter would wait for them at its exit, for ever.
    """
    before = multiprocessing.active_children()
    try:
        yield
    except OSError as error:
        for worker in multiprocessing.active_children():
            if worker not in before:
                worker.kill()
        for frame, _ in traceback.walk_tb(error.__traceback__):
            half_made = frame.f_locals.get("self")
            if isinstance(half_made, _BaseDataLoaderIter):
                half_made._shutdown = True  # type: ignore[attr-defined]  # its __del__ would print that it lacks workers
        raise


def start_worker(_: int) -> None:
    """Begin in a worker."""
    # Signals meant for the training process reach its workers too; if they died, no checkpoint could be saved.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    end_with_parent()


def check_workers(iterator: Any) -> None:
    """Look whether a worker has died. Torch looks as well, but may then wait for a lock that the dead one holds.

    Args:
        iterator: A loader's, with workers or without.

    Raises:
        Failure: One has; it says of what.
    """
    for worker in _workers(iterator):
        if worker.exitcode:
            raise Failure(_death(worker))


def end_workers(iterator: Any) -> None:
    """End the workers, if there are any.

    Dropping the iterator would end them, but after an error the traceback still holds it.

    Args:
        iterator: A loader's, which is exhausted afterwards.
    """
    workers = _workers(iterator)
    if any(worker.exitcode is not None for worker in workers):
        iterator._shutdown = True  # torch's way would wait for ever for a lock that the dead one holds
        for queue in iterator._index_queues:
            queue.cancel_join_thread()
            queue.close()
    elif workers:
        iterator._shutdown_workers()
    for worker in workers:  # one that waits for a silent server ignores both torch and SIGTERM
        worker.kill()


def _workers(iterator: Any) -> list[BaseProcess]:
    return list(getattr(iterator, "_workers", []))


def _death(worker: BaseProcess) -> str:
    code = worker.exitcode or 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    # What a full /dev/shm, or a shard that became shorter while it was mapped, does to a process.
    lack = "a full /dev/shm or a file cut short" if code == -signal.SIGBUS else "lack of memory"
    return (
        f"a loader worker {how}, perhaps for {lack}: lower data.workers, or run on a machine with more; "
        "started again, the run resumes"
    )
