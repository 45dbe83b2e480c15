"""The ways to train that `bench step` measures, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from srgan_dist.bench.common.measure import Spread
from srgan_dist.bench.step.child import BASICSR, NOTEBOOK, OURS
from srgan_dist.config.root import Config
from srgan_dist.errors import UserError

BASICSR_STEP, NOTEBOOK_STEP, CONFIGURED = "BasicSR's step", "the notebook's step", "as configured"

# BasicSR's options/train/SRResNet_SRGAN/train_MSRGAN_x4.yml, with half of its batch.
BASICSR_SHAPE: dict[str, Any] = {
    "data": {"patch_size": 128, "batch_size": 8},
    "generator": {"name": "msrresnet"},
    "discriminator": {"name": "vgg", "layout": "basicsr"},
}


@dataclass(frozen=True)
class Way:
    """One way to train.

    Attributes:
        name: for people.
        kind: ours, or a peer's.
        changes: of the configuration, by dotted keys.
        ranks: processes.
    """

    name: str
    kind: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    ranks: int = 1


class Row(NamedTuple):
    """What one way came to, for one update of the generator on a whole window.

    Attributes:
        way: which.
        seconds: of an update, with its share of the discriminator's.
        speed_up: the time of BasicSR's step by ours, both of the same moment; None for that step itself.
        images_per_second: over all ranks.
        crops: in the window, or as many of it as a peer has memory for.
        peak_gib: memory of one process.
        parts: share of the time by part, empty for peers.
    """

    way: Way
    seconds: Spread
    speed_up: Spread | None
    images_per_second: float
    crops: int
    peak_gib: float
    parts: dict[str, float]


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
        config: the configuration of which one thing at a time is changed.
        rounds: measurements of each way, in turns with BasicSR's step.
        ranks: processes of one of the ways, beside one.
        only: names of the ways to measure beside BasicSR's, empty for all.
    """

    config: Config
    rounds: int
    ranks: int
    only: Sequence[str] = ()

    @property
    def is_basicsrs(self) -> bool:
        """Whether the networks and the crops are those of BasicSR's recipe."""
        config, theirs = self.config, Config(**BASICSR_SHAPE)
        return (config.generator, config.discriminator, config.data.patch_size, config.loss) == (
            theirs.generator,
            theirs.discriminator,
            theirs.data.patch_size,
            theirs.loss,
        )


@dataclass(frozen=True)
class StepReport:
    """What came out.

    Attributes:
        options: what was asked for.
        rows: every way that ran.
        left_out: ways that did not, and why.
    """

    options: Options
    rows: list[Row]
    left_out: dict[str, str]

    def row(self, name: str) -> Row | None:
        """The row of a name, if it ran."""
        return next((row for row in self.rows if row.way.name == name), None)


def ways(config: Config, *, ranks: int, only: Sequence[str] = ()) -> list[Way]:
    """BasicSR's step, with which the others are compared, the notebook's, the configuration, and it with one change.

    Args:
        config: the configuration.
        ranks: processes of the last way; 1 leaves it out.
        only: names of those wanted; empty for all.

    Raises:
        UserError: a name is not among them.
    """
    reference, *others = _all_ways(config, ranks=ranks)
    names = [way.name for way in others]
    for name in only:
        if name not in names:
            raise UserError(f"--only is {name!r}, allowed here are {', '.join(names)}")
    return [reference, *(way for way in others if not only or way.name in only)]


def _all_ways(config: Config, *, ranks: int) -> list[Way]:
    share, micro_batch = config.data.batch_size, config.data.micro_batch
    sizes = [size for size in (share, share // 2, share // 4) if size and share % size == 0]
    found = [Way(BASICSR_STEP, BASICSR), Way(NOTEBOOK_STEP, NOTEBOOK), Way(CONFIGURED, OURS)]

    def add(name: str, **changes: Any) -> None:
        found.append(Way(name, OURS, {key.replace("__", "."): value for key, value in changes.items()}))

    for precision in ("fp32", "bf16", *(("fp16",) if torch.cuda.is_available() else ())):
        if precision != config.train.precision:
            add(precision, train__precision=precision)
    add(
        "channels_last" if not config.train.channels_last else "NCHW",
        train__channels_last=not config.train.channels_last,
    )
    for size in dict.fromkeys(sizes):
        if size != (micro_batch or share):
            add(f"micro-batches of {size}", data__micro_batch=size)
    for recompute in ("none", "perceptual", "generator", "both"):
        if recompute != config.train.recompute:
            add(f"recompute {recompute}", train__recompute=recompute)
    add("compiled" if not config.train.compile else "not compiled", train__compile=not config.train.compile)
    if ranks > 1:
        found.append(Way(ranks_name(ranks), OURS, ranks=ranks))
    return found


def ranks_name(ranks: int) -> str:
    """The name of the configuration on several ranks."""
    return f"{ranks} ranks"
