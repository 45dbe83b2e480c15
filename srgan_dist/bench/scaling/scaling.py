"""``srgan-dist bench scaling``: several ranks, measured and foreseen, and many more on a given interconnect."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from srgan_dist.bench.common.child import CYCLE, PARTS
from srgan_dist.bench.common.measure import Spread, num_cores
from srgan_dist.bench.common.process import Process
from srgan_dist.bench.common.timeline import COMMUNICATION
from srgan_dist.bench.scaling import child as scaling_child
from srgan_dist.bench.scaling.child import REDUCE, Facts
from srgan_dist.bench.scaling.interconnect import Arrival, Cost, Interconnect, Link, buckets, fit, reduction, ring
from srgan_dist.bench.step.child import OURS
from srgan_dist.bench.step.step import Bench
from srgan_dist.bench.step.ways import Options as StepOptions
from srgan_dist.bench.step.ways import Way
from srgan_dist.config.root import Config
from srgan_dist.errors import UserError

_STEPS, _SECONDS = 2, 1.0  # of a cycle, at least: ranks that do not wait for each other do not end together
SIZES = (2**10, 2**16, 2**19, 2**21, 2**23, 25 * 2**20)  # bytes: from a vote to DDP's largest bucket
_VOTE = 8  # bytes

# The demo's networks, and a few of VGG19's layers.
SHAPE: dict[str, Any] = {
    "data": {"patch_size": 96, "batch_size": 4},
    "generator": {"channels": 48, "blocks": 8, "norm": "none", "skip": "bicubic", "upsampler": "pixelshuffledirect"},
    "discriminator": {"channels": 16, "norm": "spectral"},
    "loss": {"perceptual": {"layer": "conv2_2"}},
    "train": {"g_per_d": 2},
}


@dataclass(frozen=True)
class Options:
    """What is measured and foreseen.

    Attributes:
        config: of one rank: its batch is that of each rank, or with ``strong`` of all of them.
        ranks: numbers of processes to measure, beside one.
        rounds: measurements of each.
        strong: whether the window stays as it is and is shared by more ranks, instead of growing with them.
        gpus: numbers of ranks to foresee.
        interconnect: their wires.
        step_seconds: of one of them, measured elsewhere; None: as measured here.
    """

    config: Config
    ranks: Sequence[int]
    rounds: int
    strong: bool
    gpus: Sequence[int]
    interconnect: Interconnect
    step_seconds: float | None = None

    def share(self, ranks: int) -> int:
        """Crops of each of so many ranks in a window."""
        return self.config.data.batch_size // (ranks if self.strong else 1)


class Measured(NamedTuple):
    """Some ranks on this machine; seconds are those of a step.

    Attributes:
        ranks: how many.
        seconds: of ranks that train together.
        alone: of as many that do not wait for each other, on the same cores in the same minutes.
        communication: share of the time that the first rank waits for the others, after its last gradient.
        link: what its all-reduces say of the wire, None for one rank.
        foreseen: by `alone` and `link`, without a look at `seconds`.
    """

    ranks: int
    seconds: Spread
    alone: Spread
    communication: float
    link: Link | None
    foreseen: float

    @property
    def error(self) -> float:
        """Of what was foreseen, relative to what was measured."""
        return self.foreseen / self.seconds.median - 1


class Foreseen(NamedTuple):
    """Many ranks on an interconnect.

    Attributes:
        ranks: how many.
        batch: crops in a window.
        seconds: of a step.
        compute: seconds of it without communication.
        gradients: what averaging them costs.
        norms: seconds in BatchNorm's collectives, which hide behind nothing.
        efficiency: images a second, of so many times those of one rank.
    """

    ranks: int
    batch: int
    seconds: float
    compute: float
    gradients: Cost
    norms: float
    efficiency: float

    @property
    def communication(self) -> float:
        """Share of the time in which nothing is computed."""
        return 1 - self.compute / self.seconds

    @property
    def hidden(self) -> float:
        """Share of the gradients' averaging behind which the backward pass goes on."""
        return 1 - self.gradients.exposed / self.gradients.total if self.gradients.total else 1.0


@dataclass(frozen=True)
class ScalingReport:
    """What came out.

    Attributes:
        options: what was asked for.
        measured: ranks on this machine, one first.
        foreseen: ranks on the interconnect.
        left_out: numbers of them that cannot be, and why.
        facts: what a step communicates.
    """

    options: Options
    measured: list[Measured]
    foreseen: list[Foreseen]
    left_out: dict[int, str]
    facts: Facts


def bench_scaling(options: Options, *, on_progress: Callable[[str], None]) -> ScalingReport:
    """Measure one rank and several, and foresee them and more.

    Args:
        options: what.
        on_progress: called with what is being done.

    Raises:
        UserError: a number is out of range.
        Failure: ranks do not run.
    """
    _refuse_bad_numbers(options)
    with tempfile.TemporaryDirectory(prefix="srgan-dist-bench-") as name:
        bench = _Scaling(Path(name), options)
        on_progress("shards")
        bench.make_shards()
        on_progress("1 rank")
        one, facts = bench.one()
        measured = [Measured(1, one, one, 0.0, None, one.median)]
        for ranks in options.ranks:
            on_progress(f"{ranks} ranks")
            measured.append(bench.several(ranks, facts))
    foreseen, left_out = foresee(options, one.median, facts)
    return ScalingReport(options, measured, foreseen, left_out, facts)


def foresee(options: Options, seconds: float, facts: Facts) -> tuple[list[Foreseen], dict[int, str]]:
    """Many ranks on the interconnect of the options.

    Args:
        options: what.
        seconds: of a step of one rank.
        facts: what a step communicates.

    Returns:
        Those that can be, and why others cannot.
    """
    found: list[Foreseen] = []
    left_out: dict[int, str] = {}
    batch, wires = options.config.data.batch_size, options.interconnect
    alone = options.step_seconds or seconds
    for gpus in options.gpus:
        if options.strong and batch % gpus:
            left_out[gpus] = f"a batch of {batch} is not a multiple of it"
            continue
        compute = alone / gpus if options.strong else alone
        gradients = _gradients(facts, _on(wires, gpus), options, slower=compute / seconds, overlaps=True)
        vote = wires.all_reduce(_VOTE, gpus)
        norms = facts.norms * vote
        total = compute + gradients.exposed + norms + facts.votes * vote
        crops = batch if options.strong else batch * gpus
        found.append(Foreseen(gpus, crops, total, compute, gradients, norms, compute / total))
    return found, left_out


def _on(wires: Interconnect, gpus: int) -> Callable[[float], float]:
    return lambda num_bytes: wires.all_reduce(num_bytes, gpus)


def _gradients(
    facts: Facts, all_reduce: Callable[[float], float], options: Options, *, slower: float, overlaps: bool
) -> Cost:
    """Averaging the gradients of a step: the generator's, and its part of the discriminator's."""
    costs = []
    for index, arrivals in enumerate(facts.arrivals):
        filled = buckets(Arrival(one.num_bytes, one.before_end * slower) for one in arrivals)
        cost = reduction(filled, all_reduce, overlaps=overlaps)
        often = 1 / options.config.train.planned_g_per_d if index else 1.0
        costs.append(Cost(cost.total * often, cost.exposed * often))
    return Cost(sum(cost.total for cost in costs), sum(cost.exposed for cost in costs))


class _Scaling:
    def __init__(self, folder: Path, options: Options) -> None:
        self.folder, self.options = folder, options
        self.on_gpu = torch.cuda.is_available()
        self._bench = Bench(folder, StepOptions(options.config, rounds=options.rounds, ranks=1))
        self.make_shards = self._bench.make_shards
        self.steps = self._whole(_STEPS)

    def _whole(self, steps: float) -> int:
        n = self.options.config.train.planned_g_per_d
        return n * math.ceil(steps / n)

    def one(self) -> tuple[Spread, Facts]:
        """A rank that is alone: seconds of its step, and what it would communicate."""
        folder = self._folder()
        with closing(self._train(folder, ranks=1, share=self.options.share(1))) as process:
            process.warm_up()
            seconds = Spread.of([process.ask(CYCLE) for _ in range(self.options.rounds)])
        self.steps = self._whole(max(_STEPS, _SECONDS / seconds.median))
        arrivals, *counts = json.loads((folder / "facts").read_text(encoding="utf-8"))
        return seconds, Facts([[Arrival(*one) for one in network] for network in arrivals], *counts)

    def several(self, ranks: int, facts: Facts) -> Measured:
        """Ranks that train together, in turns with ranks that do not wait for each other."""
        options, share = self.options, self.options.share(ranks)
        link = self._link(ranks)
        with ExitStack() as stack, ThreadPoolExecutor(ranks) as pool:

            def start(*, ranks: int) -> Process:
                return stack.enter_context(closing(self._train(self._folder(), ranks=ranks, share=share)))

            together = start(ranks=ranks)
            # GPUs do not disturb each other, cores do: caches, memory, clocks, and there may be fewer than ranks.
            singles = list(pool.map(lambda _: start(ranks=1), range(1 if self.on_gpu else ranks)))
            pairs: list[tuple[float, float]] = []
            together.warm_up()
            list(pool.map(Process.warm_up, singles))
            for _ in range(options.rounds):
                taken = list(pool.map(lambda single: single.ask(CYCLE), singles))
                pairs.append((together.ask(CYCLE), max(taken)))
            parts = together.ask(PARTS)
        alone = Spread.of([single for _, single in pairs])
        gradients = _gradients(facts, lambda size: ring(link, size, ranks), options, slower=1.0, overlaps=self.on_gpu)
        # One vote more: with it the first rank tells the others to go on with the measurement.
        foreseen = alone.median + gradients.exposed + (facts.votes + 1) * ring(link, _VOTE, ranks)
        if self.on_gpu:
            foreseen += facts.norms * ring(link, _VOTE, ranks)
        share_of_waiting = parts[COMMUNICATION] / sum(parts.values())
        return Measured(ranks, Spread.of([seconds for seconds, _ in pairs]), alone, share_of_waiting, link, foreseen)

    def _train(self, folder: Path, *, ranks: int, share: int) -> Process:
        changes = {"data.batch_size": share * ranks} | ({} if self.on_gpu else {"train.threads": 1})
        config = self._bench.config(Way("", OURS, changes), folder / "run")
        spec = {
            "steps": self.steps,
            "facts": str(folder / "facts"),
            "config": config.model_dump(mode="json", by_alias=True),
        }
        return Process(scaling_child.main, folder, spec, ranks=ranks, crops=share * ranks, scale=1 / self.steps)

    def _link(self, ranks: int) -> Link:
        spec = {"sizes": SIZES}
        with closing(Process(scaling_child.reduce, self._folder(), spec, ranks=ranks, crops=0)) as process:
            taken = [process.ask(REDUCE) for _ in range(self.options.rounds)]
        return fit(list(zip(SIZES, map(median, zip(*taken, strict=True)), strict=True)), ranks=ranks)

    def _folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))


def _refuse_bad_numbers(options: Options) -> None:
    data, wires = options.config.data, options.interconnect
    if options.rounds < 1:
        raise UserError(f"--rounds is {options.rounds}, allowed are whole numbers from 1")
    most = torch.cuda.device_count() if torch.cuda.is_available() else 8 * num_cores()
    for ranks in options.ranks:
        if not 2 <= ranks <= most:
            raise UserError(
                f"--ranks is {ranks}, allowed here are 2 to {most}, separated by commas; one is always there"
            )
        if options.strong and data.batch_size % ranks:
            raise UserError(
                f"--strong shares data.batch_size {data.batch_size}, which is not a multiple of {ranks} ranks"
            )
        if isinstance(data.micro_batch, int) and options.share(ranks) % data.micro_batch:
            raise UserError(
                f"data.micro_batch is {data.micro_batch}, which does not divide {options.share(ranks)} crops"
            )
    if wires.per_node < 1:
        raise UserError(f"--gpus-per-node is {wires.per_node}, allowed are whole numbers from 1")
    for gpus in options.gpus:
        if gpus < 1 or (gpus > wires.per_node and gpus % wires.per_node):
            raise UserError(
                f"--gpus is {gpus}, allowed are whole numbers from 1, multiples of --gpus-per-node above it"
            )
