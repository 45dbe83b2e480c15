"""``srgan-dist plan``: which micro-batch fits into some memory, and what it costs, before anything is paid for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import psutil
from rich.console import Group
from rich.table import Table

from srgan_dist.config import Config
from srgan_dist.data.loader import rank_share
from srgan_dist.errors import Failure
from srgan_dist.footprint import RECOMPUTE, Footprint, Recompute, footprint, operations

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Choice:
    """The largest micro-batch that fits, with some activations computed twice.

    Attributes:
        recompute: as ``train.recompute``.
        micro_batch: crops in one forward on one rank; 0 where not even one fits.
        num_micro_batches: that are accumulated for one update.
        bytes: memory of a rank at its peak; of one crop at a time where none fits.
        cost: arithmetic of an update, of that without computing anything twice.
    """

    recompute: Recompute
    micro_batch: int
    num_micro_batches: int
    bytes: int
    cost: float


@dataclass(frozen=True)
class Plan:
    """What fits.

    Attributes:
        choices: one for each way to compute activations twice, the cheapest first.
        unconstrained: bytes of a rank that takes its share of the window at once and keeps everything.
        share: crops of a rank in a window.
    """

    choices: list[Choice]
    unconstrained: int
    share: int

    @property
    def best(self) -> Choice | None:
        """The cheapest choice that fits."""
        return next((choice for choice in self.choices if choice.micro_batch), None)


def process_bytes() -> int:
    """Resident bytes of this process: what a training process has before its networks are built."""
    import srgan_dist.run  # noqa: F401 - it has the same libraries then

    return int(psutil.Process().memory_info().rss)


def predict_peak_bytes(
    config: Config, *, micro_batch: int, share: int, recompute: Recompute, device: Device, base: int
) -> int:
    """Predict the most memory that a rank of a training takes.

    Args:
        config: the configuration; its own micro-batch and ``train.recompute`` do not count.
        micro_batch: crops in one forward on one rank.
        share: crops of a rank in a window.
        recompute: as ``train.recompute``.
        device: where the networks are.
        base: resident bytes of the process before its networks are built; counts on a CPU only.

    Returns:
        Resident bytes on a CPU, bytes of the GPU on a GPU.
    """
    found = footprint(config, micro_batch=micro_batch, num_micro_batches=share // micro_batch, recompute=recompute)
    return _on(found, device, base)


def largest_micro_batch(
    config: Config, *, share: int, recompute: Recompute, memory: int, device: Device, base: int
) -> int:
    """Find the largest micro-batch that fits.

    Args:
        config: the configuration; its own micro-batch and ``train.recompute`` do not count.
        share: crops of a rank in a window; a micro-batch divides it.
        recompute: as ``train.recompute``.
        memory: bytes of a rank.
        device: where the networks are.
        base: resident bytes of the process before its networks are built; counts on a CPU only.

    Returns:
        Crops in one forward; 0 where not even one fits.
    """

    def fits(size: int) -> bool:
        need = predict_peak_bytes(config, micro_batch=size, share=share, recompute=recompute, device=device, base=base)
        return need <= memory

    return _largest(share, fits)


def make_plan(config: Config, *, memory: int, ranks: int, device: Device) -> Plan:
    """Find what fits, for each way to compute activations twice.

    Args:
        config: the configuration.
        memory: bytes of a rank.
        ranks: processes.
        device: where the networks are.

    Returns:
        The plan. Nothing of its size is allocated.

    Raises:
        UserError: the window cannot be divided among the ranks.
    """
    share, base = rank_share(batch_size=config.data.batch_size, world_size=ranks), process_bytes()

    @cache
    def need(size: int, recompute: Recompute) -> int:
        return predict_peak_bytes(config, micro_batch=size, share=share, recompute=recompute, device=device, base=base)

    def choose(recompute: Recompute) -> Choice:
        size = _largest(share, lambda size: need(size, recompute) <= memory)
        cost = operations(config, recompute=recompute) / everything
        return Choice(recompute, size, share // max(size, 1), need(max(size, 1), recompute), cost)

    everything = operations(config, recompute="none")
    choices = sorted(map(choose, RECOMPUTE), key=lambda choice: choice.cost)
    return Plan(choices, need(share, "none"), share)


def _largest(share: int, fits: Callable[[int], bool]) -> int:
    """The largest divisor that fits, or 0; where one fits, all smaller ones do."""
    sizes = [size for size in range(1, share + 1) if share % size == 0]
    fitting, too_large = 0, len(sizes) + 1
    while too_large - fitting > 1:
        middle = (fitting + too_large) // 2
        fitting, too_large = (middle, too_large) if fits(sizes[middle - 1]) else (fitting, middle)
    return sizes[fitting - 1] if fitting else 0


def _on(found: Footprint, device: Device, base: int) -> int:
    return found.in_ram(base) if device == "cpu" else found.on_gpu()


def to_table(plan: Plan, *, memory: int) -> Group:
    """What fits, and the options of the best.

    Raises:
        Failure: nothing does.
    """
    table = Table(title=f"{plan.share} crops of a rank in one window, within {_gib(memory)}", title_justify="left")
    table.add_column("train.recompute")
    for column in ("data.micro_batch", "accumulated", "memory", "arithmetic"):
        table.add_column(column, justify="right")
    for choice in plan.choices:
        fits = choice.micro_batch > 0
        size, count = (str(choice.micro_batch), str(choice.num_micro_batches)) if fits else ("none fits", "")
        table.add_row(choice.recompute, size, count, _gib(choice.bytes), f"{choice.cost:.2f}")
    best = plan.best
    if best is None:
        least = min(choice.bytes for choice in plan.choices)
        raise Failure(
            f"not even one crop at a time fits into {_gib(memory)}: {_gib(least)} are needed; lower data.patch_size "
            "or the networks' channels"
        )
    return Group(
        table,
        f"the whole share at once, with nothing computed twice: {_gib(plan.unconstrained)}",
        f"best: --data.micro_batch={best.micro_batch} --train.recompute={best.recompute}",
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
