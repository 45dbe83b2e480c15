"""The size of the micro-batches, which is reduced when memory runs out."""

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
    """The size of a rank's micro-batches. It does not affect the global batch.

    Args:
        size: Patches in one forward pass.
        per_rank_batch: Patches of this rank in a global batch, a multiple of ``size``.
        runtime: The ranks; if it shares memory errors, running out of memory halves the size instead of ending the run.
        smallest: Fewest patches that the networks can compute at a time, a divisor of ``size``.

    Attributes:
        size: Patches in one forward pass.
        per_rank_batch: Patches of this rank in a global batch.
    """

    def __init__(self, size: int, *, per_rank_batch: int, runtime: Runtime, smallest: int = 1) -> None:
        self.size, self.per_rank_batch, self.runtime, self.smallest = size, per_rank_batch, runtime, smallest

    def __str__(self) -> str:
        """The composition of a global batch, for the log."""
        ranks, k = self.runtime.world_size, self.per_rank_batch // self.size
        return f"global batch of {self.per_rank_batch * ranks} = {self.size} x {k} micro-batches x {ranks} ranks"

    def within_memory(self, update: Callable[[T], R], data: T) -> R:
        """Run an update; if any rank runs out of memory, all ranks run it again in smaller micro-batches.

        Args:
            update: Splits the data into micro-batches of ``size``.
            data: The argument of ``update``.

        Raises:
            Failure: Not even the fewest patches fit, or the configuration fixes the size.
        """
        while True:
            try:
                with self.runtime.memory_shared():
                    return update(data)
            except OutOfMemory as error:
                problem = str(error)
            # Outside of the handler, since the exception keeps the interrupted update's tensors alive.
            self._shrink(problem)

    def _shrink(self, problem: str) -> None:
        if self.size == 1:
            raise Failure(
                f"out of memory with one patch at a time: lower data.patch_size or the size of the networks ({problem})"
            )
        if not self.runtime.shares_memory_errors:
            raise Failure(
                f"out of memory with {self.size} patches at a time: set data.micro_batch below {self.size}, "
                f"or to auto ({problem})"
            )
        sizes = [size for size in range(self.smallest, self.size // 2 + 1) if self.size % size == 0]
        if not sizes:
            raise Failure(
                f"out of memory with {self.size} patches at a time, and BatchNorm would have a single value for fewer: "
                f"choose another norm for it, or lower the size of the networks ({problem})"
            )
        # A divisor, so that a broken-off update's micro-batches split into equal ones, which have equal weights.
        self.size = max(sizes)
        self.runtime.recover()
        log.warning("out of memory (%s): continues with a %s", problem, self)
