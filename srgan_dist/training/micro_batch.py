"""How many crops go through the networks at once, and fewer of them when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from srgan_dist.distributed.memory import OutOfMemory
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.errors import Failure

T = TypeVar("T")
R = TypeVar("R")
log = logging.getLogger("srgan_dist")


class MicroBatch:
    """The size of a rank's micro-batches. The window stays what it is, whatever they are.

    Args:
        size: Crops in one forward.
        per_rank_batch: Patches of this rank in a window, a multiple of ``size``.
        runtime: The ranks; where it shares memory errors, the size is halved instead of ending the run.

    Attributes:
        size: Crops in one forward.
        per_rank_batch: Patches of this rank in a window.
    """

    def __init__(self, size: int, *, per_rank_batch: int, runtime: Runtime) -> None:
        self.size, self.per_rank_batch, self.runtime = size, per_rank_batch, runtime

    def __str__(self) -> str:
        """A window in words."""
        ranks, k = self.runtime.world_size, self.per_rank_batch // self.size
        return f"window of {self.per_rank_batch * ranks} = {self.size} x {k} micro-batches x {ranks} ranks"

    def within_memory(self, update: Callable[[T], R], data: T) -> R:
        """Run an update; where a rank runs out of memory, all run it again in smaller micro-batches.

        Args:
            update: Cuts the data into micro-batches of ``size``.
            data: What it works on.

        Raises:
            Failure: Not even one crop fits, or the size was given and not to be changed.
        """
        while True:
            try:
                with self.runtime.memory_shared():
                    return update(data)
            except OutOfMemory as error:
                problem = str(error)
            # Only here is the exception gone, and with it the broken-off update's tensors.
            self._shrink(problem)

    def _shrink(self, problem: str) -> None:
        if self.size == 1:
            raise Failure(f"out of memory with one crop at a time: lower data.patch_size or the networks ({problem})")
        if not self.runtime.shares_memory_errors:
            raise Failure(
                f"out of memory with {self.size} crops at a time: set data.micro_batch below {self.size}, "
                f"or to auto ({problem})"
            )
        self.size = max(size for size in range(1, self.size // 2 + 1) if self.per_rank_batch % size == 0)
        self.runtime.recover()
        log.warning("out of memory (%s): goes on with a %s", problem, self)
