"""``srgan-dist plan``: predicts which micro-batch fits into a given amount of memory, and its cost."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Group
from rich.table import Table

from srgan_dist.config.root import Config
from srgan_dist.data.loading.loader import per_rank_batch_size
from srgan_dist.errors import Failure, UserError
from srgan_dist.training.computable import smallest_micro_batch
from srgan_dist.training.memory_estimate import (
    Device,
    Recompute,
    largest_micro_batch,
    operations,
    predict_bytes,
    recompute_settings,
)


@dataclass(frozen=True)
class Choice:
    """The largest micro-batch that fits with one setting of ``train.recompute``.

    Attributes:
        recompute: The value of ``train.recompute``.
        micro_batch: Patches in one forward pass on one rank; 0 if not even the fewest fit.
        num_micro_batches: Number of micro-batches that are accumulated for one update.
        bytes: Peak memory of a rank; if none fits, that of the fewest patches at a time.
        cost: Arithmetic of an update, relative to that without recomputation.
    """

    recompute: Recompute
    micro_batch: int
    num_micro_batches: int
    bytes: int
    cost: float


@dataclass(frozen=True)
class MemoryPlan:
    """The micro-batches that fit, by the setting of ``train.recompute``.

    Attributes:
        choices: One for each setting of ``train.recompute``, the cheapest first.
        unconstrained: Bytes of a rank that processes all its patches at once without recomputation.
        per_rank_batch: Patches of a rank in a global batch.
        smallest: Fewest patches that the networks can compute at a time.
    """

    choices: list[Choice]
    unconstrained: int
    per_rank_batch: int
    smallest: int

    @property
    def best(self) -> Choice | None:
        """The cheapest choice that fits."""
        return next((choice for choice in self.choices if choice.micro_batch), None)


def make_plan(config: Config, *, memory: int, ranks: int, device: Device) -> MemoryPlan:
    """Find the largest micro-batch that fits for each setting of ``train.recompute``.

    Args:
        config: The configuration.
        memory: Bytes available to a rank.
        ranks: Number of processes.
        device: The kind of device that holds the networks.

    Returns:
        The plan. Making it allocates no memory of the predicted size.

    Raises:
        UserError: The global batch cannot be divided among the ranks, or the networks cannot compute such patches.
    """
    import srgan_dist.training.run  # noqa: F401 - the predicted memory includes these modules

    per_rank_batch = per_rank_batch_size(batch_size=config.data.batch_size, world_size=ranks)
    # The prediction knows one rank alone, and so does BatchNorm in it.
    try:
        smallest = smallest_micro_batch(config, per_rank_batch=per_rank_batch, batchnorm_ranks=1)
    except UserError as error:
        if ranks > 1 and device == "cuda":
            smallest_micro_batch(config, per_rank_batch=per_rank_batch, batchnorm_ranks=ranks)
            raise UserError(f"{ranks} GPUs can train this, but what is predicted is one alone: {error}") from None
        raise
    arithmetic = {recompute: operations(config, recompute=recompute) for recompute in recompute_settings(config)}

    def choose(recompute: Recompute) -> Choice:
        size, need = largest_micro_batch(
            config,
            per_rank_batch=per_rank_batch,
            recompute=recompute,
            memory=memory,
            device=device,
            smallest=smallest,
        )
        return Choice(recompute, size, per_rank_batch // max(size, 1), need, arithmetic[recompute] / arithmetic["none"])

    choices = [choose(recompute) for recompute in sorted(arithmetic, key=arithmetic.__getitem__)]
    whole = predict_bytes(
        config, micro_batch=per_rank_batch, per_rank_batch=per_rank_batch, recompute="none", device=device
    )
    return MemoryPlan(choices, whole, per_rank_batch, smallest)


def to_table(plan: MemoryPlan, *, memory: int) -> Group:
    """Render the plan, with the options of its best choice.

    Raises:
        Failure: Nothing fits.
    """
    table = Table(
        title=f"{plan.per_rank_batch} patches of a rank in one global batch, within {_gib(memory)}",
        title_justify="left",
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
        fewest = "one patch at a time fits" if plan.smallest == 1 else f"{plan.smallest} patches at a time fit"
        raise Failure(
            f"not even {fewest} into {_gib(memory)}: {_gib(least)} are needed; lower data.patch_size "
            "or the networks' channels"
        )
    return Group(
        table,
        f"all of them at once, without recomputation: {_gib(plan.unconstrained)}",
        f"best: --data.micro_batch={best.micro_batch} --train.recompute={best.recompute}",
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
