"""``srgan-dist plan``: which micro-batch fits into some memory, and what it costs, before anything is paid for."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Group
from rich.table import Table

from srgan_dist.config.root import Config
from srgan_dist.data.loading.loader import per_rank_batch_size
from srgan_dist.errors import Failure
from srgan_dist.training.memory_estimate import (
    RECOMPUTE,
    Device,
    Recompute,
    largest_micro_batch,
    operations,
    predict_bytes,
)


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
        unconstrained: bytes of a rank that takes all its patches at once and keeps everything.
        per_rank_batch: patches of a rank in a global batch.
    """

    choices: list[Choice]
    unconstrained: int
    per_rank_batch: int

    @property
    def best(self) -> Choice | None:
        """The cheapest choice that fits."""
        return next((choice for choice in self.choices if choice.micro_batch), None)


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
    import srgan_dist.training.run  # noqa: F401 - what a training has loaded before it takes memory of its own

    per_rank_batch = per_rank_batch_size(batch_size=config.data.batch_size, world_size=ranks)
    arithmetic = {recompute: operations(config, recompute=recompute) for recompute in RECOMPUTE}

    def choose(recompute: Recompute) -> Choice:
        size, need = largest_micro_batch(
            config, per_rank_batch=per_rank_batch, recompute=recompute, memory=memory, device=device
        )
        return Choice(recompute, size, per_rank_batch // max(size, 1), need, arithmetic[recompute] / arithmetic["none"])

    choices = [choose(recompute) for recompute in sorted(RECOMPUTE, key=arithmetic.__getitem__)]
    whole = predict_bytes(
        config, micro_batch=per_rank_batch, per_rank_batch=per_rank_batch, recompute="none", device=device
    )
    return Plan(choices, whole, per_rank_batch)


def to_table(plan: Plan, *, memory: int) -> Group:
    """What fits, and the options of the best.

    Raises:
        Failure: nothing does.
    """
    table = Table(
        title=f"{plan.per_rank_batch} crops of a rank in one window, within {_gib(memory)}", title_justify="left"
    )
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
            f"not even one patch at a time fits into {_gib(memory)}: {_gib(least)} are needed; lower data.patch_size "
            "or the networks' channels"
        )
    return Group(
        table,
        f"all of them at once, with nothing computed twice: {_gib(plan.unconstrained)}",
        f"best: --data.micro_batch={best.micro_batch} --train.recompute={best.recompute}",
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
