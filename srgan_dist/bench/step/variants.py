"""The variants of the training step that `bench step` measures, and its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from srgan_dist.bench.common.measure import Spread
from srgan_dist.bench.step.child import BASICSR, NOTEBOOK, OURS
from srgan_dist.config.root import Config
from srgan_dist.errors import UserError
from srgan_dist.training.memory_estimate import recompute_settings

BASICSR_STEP, NOTEBOOK_STEP, CONFIGURED = "BasicSR's step", "the notebook's step", "as configured"

# BasicSR's options/train/SRResNet_SRGAN/train_MSRGAN_x4.yml, with half of its batch.
BASICSR_SHAPE: dict[str, Any] = {
    "data": {"patch_size": 128, "batch_size": 8},
    "generator": {"name": "msrresnet"},
    "discriminator": {"name": "vgg", "layout": "basicsr"},
}


@dataclass(frozen=True)
class Variant:
    """A variant of the training step.

    Attributes:
        name: Its name in tables, in JSON and for ``--only``.
        kind: ``ours``, ``basicsr`` or ``notebook``.
        changes: Changes of the configuration, by dotted keys.
        ranks: Number of processes.
    """

    name: str
    kind: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    ranks: int = 1


class Row(NamedTuple):
    """The result of one variant, for one update of the generator on a whole batch.

    Attributes:
        variant: The variant.
        seconds: Time of a generator update with its fraction of a discriminator update.
        speed_up: Time of BasicSR's step divided by that of this one, measured in turns; None for that step itself.
        images_per_second: Images per second over all ranks.
        num_patches: Patches in a batch or, for a peer, as many of them as fit into memory.
        peak_gib: Peak memory of one process in GiB.
        parts: Fraction of the time by part, empty for peers.
    """

    variant: Variant
    seconds: Spread
    speed_up: Spread | None
    images_per_second: float
    num_patches: int
    peak_gib: float
    parts: dict[str, float]


@dataclass(frozen=True)
class StepBenchOptions:
    """The options of `bench step`.

    Attributes:
        config: The configuration, of which the variants change one setting each.
        rounds: Number of measurements of each variant, in turns with BasicSR's step.
        ranks: Number of processes of an additional variant; 1 omits it.
        only: Names of the variants to measure in addition to BasicSR's; empty for all.
    """

    config: Config
    rounds: int
    ranks: int
    only: Sequence[str] = ()

    @property
    def is_basicsrs(self) -> bool:
        """Whether networks, losses and patch size are those of BasicSR's recipe."""
        config, theirs = self.config, Config(**BASICSR_SHAPE)
        return (config.generator, config.discriminator, config.data.patch_size, config.loss) == (
            theirs.generator,
            theirs.discriminator,
            theirs.data.patch_size,
            theirs.loss,
        )


@dataclass(frozen=True)
class StepReport:
    """The results of `bench step`.

    Attributes:
        options: The options.
        rows: The results of the variants that ran.
        left_out: The variants that did not run, and why.
    """

    options: StepBenchOptions
    rows: list[Row]
    left_out: dict[str, str]

    def row(self, name: str) -> Row | None:
        """The result of a variant, or None if it did not run."""
        return next((row for row in self.rows if row.variant.name == name), None)


def variants(config: Config, *, ranks: int, only: Sequence[str] = ()) -> list[Variant]:
    """List the variants: the steps of BasicSR and of the notebook, the configuration, and it with one change each.

    Args:
        config: The configuration.
        ranks: Number of processes of the last variant; 1 omits it.
        only: Names to select, in addition to BasicSR's step; empty for all.

    Raises:
        UserError: A name is not known.
    """
    reference, *others = _all_variants(config, ranks=ranks)
    names = [variant.name for variant in others]
    for name in only:
        if name not in names:
            raise UserError(f"--only is {name!r}, allowed here are {', '.join(names)}")
    return [reference, *(variant for variant in others if not only or variant.name in only)]


def _all_variants(config: Config, *, ranks: int) -> list[Variant]:
    per_rank_batch, micro_batch = config.data.batch_size, config.data.micro_batch
    sizes = [
        size
        for size in (per_rank_batch, per_rank_batch // 2, per_rank_batch // 4)
        if size and per_rank_batch % size == 0
    ]
    found = [Variant(BASICSR_STEP, BASICSR), Variant(NOTEBOOK_STEP, NOTEBOOK), Variant(CONFIGURED, OURS)]

    def add(name: str, **changes: Any) -> None:
        found.append(Variant(name, OURS, {key.replace("__", "."): value for key, value in changes.items()}))

    for precision in ("fp32", "bf16", *(("fp16",) if torch.cuda.is_available() else ())):
        if precision != config.train.precision:
            add(precision, train__precision=precision)
    add(
        "channels_last" if not config.train.channels_last else "NCHW",
        train__channels_last=not config.train.channels_last,
    )
    for size in dict.fromkeys(sizes):
        if size != (micro_batch or per_rank_batch):
            add(f"micro-batches of {size}", data__micro_batch=size)
    for recompute in recompute_settings(config):
        if recompute != config.train.recompute:
            add(f"recompute {recompute}", train__recompute=recompute)
    add("compiled" if not config.train.compile else "not compiled", train__compile=not config.train.compile)
    if ranks > 1:
        found.append(Variant(ranks_name(ranks), OURS, ranks=ranks))
    return found


def ranks_name(ranks: int) -> str:
    """The name of the variant on several ranks."""
    return f"{ranks} ranks"
