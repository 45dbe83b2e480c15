"""What the ranks do together: add up, gather, agree, and report that one of them is out of memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor
from torch._C._distributed_c10d import HashStore, PrefixStore

from srgan_dist.distributed.memory import OutOfMemory

T = TypeVar("T")


class Collectives:
    """The calls that every rank must make together.

    Args:
        accelerator: Knows the ranks.
        timeout: Seconds after which a collective that not all ranks have come to is an error.
        shares_memory_errors: Ranks report to each other when one runs out of memory, at the price of a vote an update.

    Attributes:
        device: Where this rank computes.
        rank: 0 to world_size - 1.
        world_size: Number of ranks.
        is_main: Whether this is rank 0.
    """

    def __init__(self, accelerator: Accelerator, *, timeout: float, shares_memory_errors: bool) -> None:
        self.accelerator = accelerator
        self.device = accelerator.device
        self.rank = accelerator.process_index
        self.world_size = accelerator.num_processes
        self.is_main = accelerator.is_main_process
        self.shares_memory_errors = shares_memory_errors
        hosts = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout)) if self.world_size > 1 else None
        self._hosts = cast("dist.ProcessGroup | None", hosts)
        # Of one rank alone, a store in its own memory.
        shared = dist.distributed_c10d._get_default_store() if self.world_size > 1 else HashStore()
        self._store = PrefixStore("srgan_dist", shared)

    def reduce_mean(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Average scalars over the ranks, in one collective, and read them: a host synchronisation."""
        if not values:
            return {}
        packed = torch.stack([value.detach().to(self.device, torch.float64) for value in values.values()])
        packed = cast("Tensor", self.accelerator.reduce(packed, reduction="mean"))
        return dict(zip(values, packed.tolist(), strict=True))

    def mean_over_ranks(self, value: Tensor) -> Tensor:
        """Average a tensor over the ranks, on the device; gradients flow back to every rank's."""
        if self.world_size == 1:
            return value
        self.check_room()
        mean: Tensor = SumOverRanks.apply(value) / self.world_size
        return mean

    def reduce_sum(self, value: Tensor) -> Tensor:
        """Add a tensor over the ranks (int64 wraps around)."""
        value = value.to(self.device)
        if self.world_size > 1:
            dist.all_reduce(value)
        return value

    def broadcast_tensor(self, value: Tensor) -> None:
        """Overwrite a tensor by rank 0's, in place."""
        if self.world_size > 1:
            dist.broadcast(value, src=0)

    def gather(self, value: Tensor) -> list[list[float]]:
        """Every rank's vector, by rank: a host synchronisation."""
        gathered = cast("Tensor", self.accelerator.gather(value.to(self.device)[None]))
        return cast("list[list[float]]", gathered.tolist())

    def all_gather_object(self, value: T) -> list[T]:
        """Every rank's object, by rank."""
        if self._hosts is None:
            return [value]
        values = cast("list[T]", [None] * self.world_size)
        dist.all_gather_object(values, value, group=self._hosts)
        return values

    def broadcast(self, value: T) -> T:
        """Give every rank the object of rank 0."""
        return cast("T", broadcast_object_list([value])[0])

    def all_agree(self, ok: bool) -> bool:
        """True where every rank says so: the only ground for a decision that changes control flow."""
        return not self.any_rank(not ok)

    def any_rank(self, wish: bool) -> bool:
        """True on every rank where it is true on one."""
        return bool(self.max_over_ranks(int(wish)))

    def max_over_ranks(self, value: int) -> int:
        """The highest of the ranks' numbers. Asked over the CPU: the device need not catch up."""
        if self._hosts is None:
            return value
        votes = torch.tensor(value)
        dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=self._hosts)
        return int(votes.item())

    @contextlib.contextmanager
    def memory_shared(self) -> Iterator[None]:
        """Around an update: a rank that runs out of memory reports it to the others, which then do not wait for it.

        Raises:
            OutOfMemory: Here, or on another rank.
        """
        try:
            yield
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            if self.shares_memory_errors:
                self.any_rank(True)
            raise OutOfMemory(str(error).splitlines()[0]) from error

    def check_room(self) -> None:
        """Before a collective within an update: whether another rank ran out of memory and will not come to it.

        Raises:
            OutOfMemory: It did.
        """
        if self.shares_memory_errors and self.any_rank(False):
            raise OutOfMemory("another rank ran out of memory")

    def publish(self, name: str, value: str) -> None:
        """Leave a text for the other ranks, without waiting for them; from any thread."""
        self._store.set(f"{name}/{self.rank}", value)

    def published(self, name: str) -> list[str | None]:
        """What each rank last published, by rank; None where it did not. From any thread."""
        keys = [f"{name}/{rank}" for rank in range(self.world_size)]
        return [self._store.get(key).decode() if self._store.check([key]) else None for key in keys]

    def barrier(self) -> None:
        """Wait for every rank."""
        self.accelerator.wait_for_everyone()

    def leave(self) -> None:
        """Leave the process groups, whose threads must not outlive the interpreter."""
        self._hosts, self._store = None, PrefixStore("srgan_dist", HashStore())


class SumOverRanks(torch.autograd.Function):
    """The sum on every rank; since each rank's loss depends on it, its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # noqa: ARG004 - the signature is torch's
        total = value.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        total = gradient.clone()
        dist.all_reduce(total)
        return total
