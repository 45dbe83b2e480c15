"""Worker processes that do not outlive what they work for."""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """In a worker: end it as soon as its parent is gone, however that ended and whatever the worker waits for.

    A worker has both ends of its own queues open, so that none of them tells it of a parent that was killed.
    """
    threading.Thread(target=_wait, name="end with parent", daemon=True).start()


def _wait() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
