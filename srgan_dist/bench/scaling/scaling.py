"""``srgan-dist bench scaling``: measures and predicts a few ranks, and predicts many on a given interconnect."""

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
from srgan_dist.bench.step.variants import StepBenchOptions, Variant
from srgan_dist.config.root import Config
from srgan_dist.errors import UserError

_STEPS, _SECONDS = 2, 1.0  # of a cycle, at least; ranks that do not wait for each other end at different times
SIZES = (2**10, 2**16, 2**19, 2**21, 2**23, 25 * 2**20)  # bytes: from a vote to DDP's largest bucket
_VOTE = 8  # bytes

# The demo's networks, and a few of VGG19's layers.
SHAPE: dict[str, Any] = {
    "data": {"patch_size": 96, "batch_size": 4},
    "generator": {"channels": 48, "blocks": 8, "norm": "none", "skip": "bicubic", "upsampler": "pixelshuffledirect"},
    "discriminator": {"channels": 16, "norm": "spectral"},
    "loss": {"perceptual": {"layers": {"conv2_2": 1.0}}},
    "train": {"g_per_d": 2},
}


@dataclass(frozen=True)
class ScalingBenchOptions:
    """The options of `bench scaling`.

    Attributes:
        config: The configuration; its batch is that of each rank or, with ``strong``, of all together.
        ranks: Numbers of processes to measure, in addition to one.
        rounds: Number of measurements of each.
        strong: Whether the global batch is constant and divided among the ranks (strong scaling), instead of growing
            with their number (weak scaling).
        gpus: Numbers of GPUs to predict.
        interconnect: The links between them.
        step_seconds: Time of a step on one of them, measured elsewhere; None for the time measured here.
    """

    config: Config
    ranks: Sequence[int]
    rounds: int
    strong: bool
    gpus: Sequence[int]
    interconnect: Interconnect
    step_seconds: float | None = None

    def per_rank_batch(self, ranks: int) -> int:
        """Patches of one rank in a global batch, with the given number of ranks."""
        return self.config.data.batch_size // (ranks if self.strong else 1)


class Measured(NamedTuple):
    """The result for one number of ranks on this machine; all times are seconds of a step.

    Attributes:
        ranks: Number of ranks.
        seconds: Time of ranks that train together.
        alone: Time of as many ranks that do not wait for each other, on the same cores in turns with them.
        communication: Fraction of the time that the first rank waits for the others, after its last gradient.
        link: The link, fitted to measured all-reduces; None for one rank.
        predicted: Predicted time, from `alone` and `link` only.
    """

    ranks: int
    seconds: Spread
    alone: Spread
    communication: float
    link: Link | None
    predicted: float

    @property
    def error(self) -> float:
        """Error of the prediction relative to the measured time."""
        return self.predicted / self.seconds.median - 1


class Predicted(NamedTuple):
    """The prediction for one number of GPUs on an interconnect.

    Attributes:
        ranks: Number of GPUs.
        batch: Patches in a global batch.
        seconds: Time of a step.
        compute: Time of a step without communication.
        gradients: Cost of averaging the gradients.
        norms: Time of BatchNorm's collectives, which overlap with nothing.
        efficiency: Images per second, relative to the number of GPUs times one rank's.
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
        """Fraction of the time in which nothing is computed."""
        return 1 - self.compute / self.seconds

    @property
    def hidden(self) -> float:
        """Fraction of the gradients' averaging that overlaps with the backward pass."""
        return 1 - self.gradients.exposed / self.gradients.total if self.gradients.total else 1.0


@dataclass(frozen=True)
class ScalingReport:
    """The results of `bench scaling`.

    Attributes:
        options: The options.
        measured: Results on this machine, one rank first.
        predicted: Predictions for the interconnect.
        left_out: Numbers of GPUs that are not possible, and why.
        facts: What a step communicates.
    """

    options: ScalingBenchOptions
    measured: list[Measured]
    predicted: list[Predicted]
    left_out: dict[int, str]
    facts: Facts


def bench_scaling(options: ScalingBenchOptions, *, on_progress: Callable[[str], None]) -> ScalingReport:
    """Measure one rank and several, and predict them and many more.

    Args:
        options: What to measure and predict.
        on_progress: Called with a description of the current work.

    Raises:
        UserError: A number is out of range.
        Failure: A process ended with an error.
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
    predicted, left_out = predict(options, one.median, facts)
    return ScalingReport(options, measured, predicted, left_out, facts)


def predict(options: ScalingBenchOptions, seconds: float, facts: Facts) -> tuple[list[Predicted], dict[int, str]]:
    """Predict many ranks on the interconnect of the options.

    Args:
        options: What to measure and predict.
        seconds: Time of a step of one rank.
        facts: What a step communicates.

    Returns:
        The predictions; and the numbers of GPUs that are not possible, with the reason.
    """
    found: list[Predicted] = []
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
        num_patches = batch if options.strong else batch * gpus
        found.append(Predicted(gpus, num_patches, total, compute, gradients, norms, compute / total))
    return found, left_out


def _on(wires: Interconnect, gpus: int) -> Callable[[float], float]:
    return lambda num_bytes: wires.all_reduce(num_bytes, gpus)


def _gradients(
    facts: Facts, all_reduce: Callable[[float], float], options: ScalingBenchOptions, *, slower: float, overlaps: bool
) -> Cost:
    """Predict the cost of averaging the gradients in a step, the discriminator's as a mean over g_per_d steps."""
    costs = []
    for index, arrivals in enumerate(facts.arrivals):
        filled = buckets(Arrival(one.num_bytes, one.before_end * slower) for one in arrivals)
        cost = reduction(filled, all_reduce, overlaps=overlaps)
        frequency = 1 / options.config.train.planned_g_per_d if index else 1.0
        costs.append(Cost(cost.total * frequency, cost.exposed * frequency))
    return Cost(sum(cost.total for cost in costs), sum(cost.exposed for cost in costs))


class _Scaling:
    def __init__(self, folder: Path, options: ScalingBenchOptions) -> None:
        self.folder, self.options = folder, options
        self.on_gpu = torch.cuda.is_available()
        self._bench = Bench(folder, StepBenchOptions(options.config, rounds=options.rounds, ranks=1))
        self.make_shards = self._bench.make_shards
        self.steps = self._whole(_STEPS)

    def _whole(self, steps: float) -> int:
        n = self.options.config.train.planned_g_per_d
        return n * math.ceil(steps / n)

    def one(self) -> tuple[Spread, Facts]:
        """Measure a single rank: seconds of its step, and what it would communicate."""
        folder = self._folder()
        with closing(self._train(folder, ranks=1, per_rank_batch=self.options.per_rank_batch(1))) as process:
            process.warm_up()
            seconds = Spread.of([process.ask(CYCLE) for _ in range(self.options.rounds)])
        self.steps = self._whole(max(_STEPS, _SECONDS / seconds.median))
        arrivals, *counts = json.loads((folder / "facts").read_text(encoding="utf-8"))
        return seconds, Facts([[Arrival(*one) for one in network] for network in arrivals], *counts)

    def several(self, ranks: int, facts: Facts) -> Measured:
        """Measure ranks that train together, in turns with ranks that do not wait for each other."""
        options, per_rank_batch = self.options, self.options.per_rank_batch(ranks)
        link = self._link(ranks)
        with ExitStack() as stack, ThreadPoolExecutor(ranks) as pool:

            def start(*, ranks: int) -> Process:
                return stack.enter_context(
                    closing(self._train(self._folder(), ranks=ranks, per_rank_batch=per_rank_batch))
                )

            together = start(ranks=ranks)
            # Unlike GPUs, cores affect each other (caches, memory, clocks), and there may be fewer cores than ranks.
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
        # One more vote, with which the first rank makes the others continue with the benchmark.
        predicted = alone.median + gradients.exposed + (facts.votes + 1) * ring(link, _VOTE, ranks)
        if self.on_gpu:
            predicted += facts.norms * ring(link, _VOTE, ranks)
        waiting = parts[COMMUNICATION] / sum(parts.values())
        return Measured(ranks, Spread.of([seconds for seconds, _ in pairs]), alone, waiting, link, predicted)

    def _train(self, folder: Path, *, ranks: int, per_rank_batch: int) -> Process:
        changes = {"data.batch_size": per_rank_batch * ranks} | ({} if self.on_gpu else {"train.threads": 1})
        config = self._bench.config(Variant("", OURS, changes), folder / "run")
        spec = {
            "steps": self.steps,
            "facts": str(folder / "facts"),
            "config": config.model_dump(mode="json", by_alias=True),
        }
        return Process(
            scaling_child.main, folder, spec, ranks=ranks, num_patches=per_rank_batch * ranks, scale=1 / self.steps
        )

    def _link(self, ranks: int) -> Link:
        spec = {"sizes": SIZES}
        with closing(Process(scaling_child.reduce, self._folder(), spec, ranks=ranks, num_patches=0)) as process:
            taken = [process.ask(REDUCE) for _ in range(self.options.rounds)]
        return fit(list(zip(SIZES, map(median, zip(*taken, strict=True)), strict=True)), ranks=ranks)

    def _folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))


def _refuse_bad_numbers(options: ScalingBenchOptions) -> None:
    data, wires = options.config.data, options.interconnect
    if options.rounds < 1:
        raise UserError(f"--rounds is {options.rounds}, allowed are whole numbers from 1")
    most = torch.cuda.device_count() if torch.cuda.is_available() else 8 * num_cores()
    for ranks in options.ranks:
        if not 2 <= ranks <= most:
            raise UserError(
                f"--ranks is {ranks}, allowed here are 2 to {most}, separated by commas; one rank is always measured"
            )
        if options.strong and data.batch_size % ranks:
            raise UserError(
                f"--strong divides data.batch_size {data.batch_size}, which is not a multiple of {ranks} ranks"
            )
        if isinstance(data.micro_batch, int) and options.per_rank_batch(ranks) % data.micro_batch:
            raise UserError(
                f"data.micro_batch is {data.micro_batch}, which does not divide {options.per_rank_batch(ranks)} patches"
            )
    if wires.per_node < 1:
        raise UserError(f"--gpus-per-node is {wires.per_node}, allowed are whole numbers from 1")
    for gpus in options.gpus:
        if gpus < 1 or (gpus > wires.per_node and gpus % wires.per_node):
            raise UserError(
                f"--gpus is {gpus}, allowed are whole numbers from 1, multiples of --gpus-per-node above it"
            )
