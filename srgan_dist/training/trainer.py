"""The training loop: steps, and the logging, validation and saving between them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from srgan_dist.checkpointing.best import BestWeights
from srgan_dist.checkpointing.format import TrainingState, usable
from srgan_dist.checkpointing.manager import Checkpoints, NotSaved
from srgan_dist.checkpointing.weights import WeightsFile
from srgan_dist.config.training import TrainConfig
from srgan_dist.data.loading.loader import BatchStream, to_device
from srgan_dist.data.loading.order import as_hex
from srgan_dist.degradations.degradation import Degradation
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.distributed.signals import StopSignals
from srgan_dist.errors import Failure, Stopped
from srgan_dist.evaluation.validator import Validator, mean_quality
from srgan_dist.tracking.run_logger import RunLogger
from srgan_dist.training.collapse_monitor import CollapseResponse
from srgan_dist.training.gan_step import Batch, TwoPhases
from srgan_dist.training.interval import Clock, IntervalMeans
from srgan_dist.training.saved_counters import load_state
from srgan_dist.training.schedules import Intervals, Rates

log = logging.getLogger("srgan_dist")

_SIGNAL, _ERROR = 1, 2  # why a rank wishes to stop; the highest one counts


class AnotherRankFailed(Failure):
    """This rank stopped because of another one, which says why."""


@dataclass
class TrainingData:
    """The data of a run.

    Attributes:
        stream: An endless stream of this rank's parts of the global batches.
        degradation: Makes LR images from HR ones, or None if they are read from the shards.
        batch_size: Patches in a global batch.
        epoch_size: Patches in an epoch.
        fingerprint: Fingerprint of configuration and data, saved in checkpoints and compared when a run resumes.
    """

    stream: BatchStream
    degradation: Degradation | None
    batch_size: int
    epoch_size: int
    fingerprint: Mapping[str, Any]


@dataclass(frozen=True)
class Schedules:
    """The objects that depend on the step.

    Attributes:
        rates: Learning rates and factors, a pure function of the step.
        intervals: How often to log, validate and save.
        collapse: Detects a collapse and responds to it.
    """

    rates: Callable[[int], Rates]
    intervals: Intervals
    collapse: CollapseResponse


@dataclass(frozen=True)
class Services:
    """The outputs and signals of a run.

    Attributes:
        run_logger: Receives the metrics.
        checkpoints: Stores the training state.
        best: Keeps the best weights.
        validator: Measures the generator on the validation images, or None.
        signals: Records whether this process was asked to stop.
        folder: The run's folder.
    """

    run_logger: RunLogger
    checkpoints: Checkpoints
    best: BestWeights
    validator: Validator | None
    signals: StopSignals
    folder: Path


class Trainer:
    """Takes the configured number of steps, and logs, validates and saves between them.

    Args:
        config: The numbers of steps, and the memory format.
        runtime: The machine and the other ranks.
        step: Takes a step of the current phase.
        data: The data of the run.
        schedules: The objects that depend on the step.
        services: The outputs and signals of the run.
    """

    def __init__(
        self,
        *,
        config: TrainConfig,
        runtime: Runtime,
        step: TwoPhases,
        data: TrainingData,
        schedules: Schedules,
        services: Services,
    ) -> None:
        self.config, self.runtime, self.take_step, self.data = config, runtime, step, data
        self.rates_at, self.intervals, self.collapse = schedules.rates, schedules.intervals, schedules.collapse
        self.run_logger, self.checkpoints, self.best = services.run_logger, services.checkpoints, services.best
        self.validator, self.signals, self.folder = services.validator, services.signals, services.folder
        self.means = IntervalMeans(runtime)
        self.unsaved: list[WeightsFile] = []  # of this step
        self.step = self.consumed = 0
        self.seconds = 0.0
        self.results: dict[str, dict[str, float | None]] = {}
        self.error: Exception | None = None
        self.saved_step = 0  # whose checkpoint is in the run's own folder; at step 0 there is nothing to save

    def run(self) -> None:
        """Train until `TrainConfig.steps`."""
        self.clock, self.first_step = Clock(self.step, self.seconds), self.step
        while self.step < self.config.steps:
            batch = self.next_batch_or_stop()
            self.step += 1
            self.consumed += self.data.batch_size
            self.metrics = self.take_step(batch, self.rates())
            if self.step == self.config.pretrain_steps + 1:
                self.means.clear()  # no mean is over steps of both phases
            self.means.add(self.metrics)
            self.stop_if_broken()
            self.report()
            self.collapse.respond(self.step, self.roll_back)
            self.save_if_due()
            self.run_logger.advance(self.step)
        self.stop_together()

    def describe(self) -> str:
        """The composition of a global batch, the phases and the ratio, in one line."""
        pretrain_steps = self.config.pretrain_steps
        return f"{self.take_step.micro_batch}; {pretrain_steps} steps of pretraining, then {self.collapse.schedule}"

    def next_batch(self) -> Batch:
        """Copy this rank's part of the next global batch to the device, in micro-batches."""
        patches = next(self.data.stream)
        self.clock.waited += self.data.stream.wait_seconds
        self.digest = patches.digest.sum()
        options: dict[str, Any] = {"channels_last": self.config.channels_last, "degradation": self.data.degradation}
        size = self.take_step.micro_batch.size
        return [to_device(part, self.runtime.device, **options) for part in patches.split(size)]

    def next_batch_or_stop(self) -> Batch:
        """Read this rank's part of the next global batch, unless all ranks stop here: see `stop_together`."""
        batch: Batch = []
        if not self.error and not self.is_asked_to_stop:
            with self.postponed_errors():
                batch = self.next_batch()
        self.stop_together()
        return batch

    @property
    def is_asked_to_stop(self) -> bool:
        """Whether this rank received a signal; the first step of every start is taken all the same, and is progress."""
        return self.first_step < self.step < self.config.steps and self.signals.received is not None

    @contextmanager
    def postponed_errors(self) -> Iterator[None]:
        """Around what only this rank does between two steps: an error waits until all ranks can stop and save."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - raised by stop_together
            self.error = self.error or error

    def rates(self) -> Rates:
        """Learning rates and factors of this step, with the discriminator's rate as reduced by rollbacks."""
        rates = self.rates_at(self.step)
        return replace(rates, discriminator=rates.discriminator * self.collapse.d_rate)

    def is_due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.steps

    def stop_if_broken(self) -> None:
        """Stop on all ranks if a loss was not finite.

        On a GPU, this is checked only at steps where the host waits for the device anyway; until then the guard keeps
        the weights unchanged.
        """
        waits = self.is_due(self.intervals.log) or self.validation_is_due or self.is_due(self.intervals.checkpoint)
        if self.runtime.device.type != "cpu" and not waits:
            return
        self.take_step.guard.stop_if_tripped()

    def report(self) -> None:
        """Log, validate and draw sample images if due; at most one line of metrics for each step."""
        logs = self.is_due(self.intervals.log)
        record = self.measure() if logs else {}
        histograms = self.take_step.score_histograms() if logs else {}
        with self.clock.paused():
            if self.pretraining_ends:
                self.unsaved.append(self.weights_file("pretrained"))
            if self.validation_is_due:
                record |= self.validate()
            if self.unsaved and not self.is_due(self.intervals.checkpoint):
                self.checkpoints.save_weights(self.take_unsaved(), then=self.arrange_best())
            with self.postponed_errors():
                if record:
                    self.run_logger.metrics(self.step, self.position() | record)
                    self.run_logger.histograms(self.step, histograms)
                if self.validator and self.runtime.is_main and self.is_due(self.intervals.images):
                    crops = self.validator.crops(self.take_step.ema.network)
                    self.run_logger.references(self.validator.references)
                    self.run_logger.samples(self.step, self.validator.contact_sheet({"SR": crops}), crops)

    def position(self) -> dict[str, Any]:
        """How far the run is, in each unit."""
        return {
            "hours": self.clock.seconds / 3600,
            "images": self.consumed,
            "epoch": self.consumed / self.data.epoch_size,
        }

    def measure(self) -> dict[str, Any]:
        """The metrics of the interval that ends here: means over steps, micro-batches and ranks."""
        digest = int(self.runtime.reduce_sum(self.digest))
        speed, rates = self.clock.lap(self.step), self.rates()
        means, left_out = self.means.take()
        # What had no step of its own, as of a discriminator that pauses, is as it was last.
        latest = self.take_step.discriminator_metrics | self.metrics
        latest = {name: value for name, value in latest.items() if name not in means or name.startswith("loss_scale/")}
        skipped = {
            f"skipped/{network}": left_out.get(f"grad_norm/{network}", 0)
            for network in ("g", "d")
            if f"loss_scale/{network}" in latest
        }
        record = {
            "learning_rate": rates.generator,
            **({} if rates.is_pretraining else {"learning_rate/d": rates.discriminator}),
            **means,
            **self.runtime.reduce_mean(latest),
            **skipped,
            "d/updates": self.take_step.discriminator_updates,
            "perf/images_per_second": speed.steps_per_second * self.data.batch_size,
            "perf/data_wait": speed.data_wait,
            "perf/memory_gib": self.runtime.peak_memory_gib(),
            "data/digest": as_hex(digest),
        }
        return self.collapse.observe(self.step, record)

    @property
    def pretraining_ends(self) -> bool:
        return self.step == self.config.pretrain_steps

    @property
    def validation_is_due(self) -> bool:
        return self.validator is not None and (self.is_due(self.intervals.validate) or self.pretraining_ends)

    def validate(self) -> dict[str, float]:
        """Measure the averaged generator on the validation images."""
        assert self.validator
        self.take_step.ema.broadcast_buffers()
        rows = self.validator.measure_each(self.take_step.ema.network)
        with self.postponed_errors():
            self.run_logger.validation(self.step, rows)
        quality = mean_quality(rows)
        if self.pretraining_ends:
            self.results["pretrained"] = quality
        self.results["final"] = quality
        if self.best.add(self.step, quality):
            values = {f"val/{name}": str(value) for name, value in quality.items() if value is not None}
            self.unsaved.append(self.weights_file(self.best.path(self.step), values))
        return {f"val/{name}": value for name, value in quality.items() if value is not None}

    def save_if_due(self) -> None:
        """Publish checkpoints that were written in the background, and save a new one if due."""
        self.checkpoints.poll()
        if self.is_due(self.intervals.checkpoint):
            self.save()
        if self.step == self.config.steps:
            self.checkpoints.wait()

    def save(self) -> None:
        """Start saving a checkpoint and the weights in the background."""
        with self.clock.paused():
            state, weights = self.state(), [*self.take_unsaved(), self.weights_file("generator")]
            then = self.arrange_best()
            self.checkpoints.save(self.step, state, weights, sync_records=self.run_logger.sync, then=then)
        self.saved_step = self.step

    def stop_together(self) -> None:
        """At a step boundary: save and stop on all ranks, if one was asked to, or failed to read its data or to log.

        Raises:
            Stopped: A rank received a signal.
            AnotherRankFailed: Here; on that rank, its error.
        """
        reason = self.runtime.max_over_ranks(_ERROR if self.error else _SIGNAL if self.is_asked_to_stop else 0)
        if not reason:
            return
        self.take_step.guard.stop_if_tripped()
        try:
            if self.saved_step != self.step:
                self.save()
            self.checkpoints.wait()
        except NotSaved as problem:
            if self.error is None:
                raise
            log.error("%s", problem)
            raise self.error from None
        if reason == _ERROR:
            errors = self.runtime.all_gather_object(self.error and " ".join(str(self.error).split())[:500])
            rank, why = next((rank, why) for rank, why in enumerate(errors) if why is not None)
            stopped = f"stopped after step {self.step}, with everything saved: rank {rank} failed: {why}"
            log.error("%s: %s", self.folder, stopped)
            raise self.error or AnotherRankFailed(stopped)
        raise Stopped(f"stopped by a signal after step {self.step} of {self.config.steps}, with everything saved")

    def weights_file(self, path: str | Path, values: Mapping[str, str] = MappingProxyType({})) -> WeightsFile:
        """The weights file of the averaged generator, to be written in the background.

        Args:
            path: The file, or its name in the run's folder.
            values: Stored in it.
        """
        if isinstance(path, str):
            path = self.folder / "weights" / f"{path}.safetensors"
        return self.take_step.ema.file(path, {"step": str(self.step), "images": str(self.consumed), **values})

    def take_unsaved(self) -> list[WeightsFile]:
        """The weights that this step is to leave."""
        unsaved, self.unsaved = self.unsaved, []
        return unsaved

    def arrange_best(self) -> Callable[[list[int]], None]:
        """What is left to do for the best weights when those of this step are written."""
        return partial(self.best.arrange, history=self.best.history)

    def state(self) -> TrainingState:
        """The complete state of the run."""
        return TrainingState(
            counters={
                "step": self.step,
                "consumed": self.consumed,
                "origin": dict(self.data.fingerprint),
                **self.take_step.counters(self.runtime.reduce_mean),
                "stability": self.collapse.state(),
                "seconds": self.clock.seconds,
                "results": self.results,
                "validations": self.best.state(),
                "interval": self.means.state(),
                "tracker_id": self.run_logger.tracker_id,
            },
            weights=self.take_step.weights(),
            optimizers=self.take_step.optimizers(),
            rng=self.runtime.rng_state(),
        )

    def roll_back(self, before: int) -> Path | None:
        """Load weights, optimizers and EMA from the newest checkpoint before a step; everything else continues."""
        self.checkpoints.wait()
        if path := self.checkpoints.newest(before=before):
            state = load_state(self.checkpoints, path)
            with usable(path):
                self.take_step.load_networks(state)
        return path

    def restore(self, state: TrainingState, source: Path) -> None:
        """Restore the complete state of a run.

        Args:
            state: The state, as `load_state` returned it.
            source: The checkpoint that it is from.

        Raises:
            UserError: It does not fit the networks, or is damaged.
        """
        with usable(source):
            self.take_step.load_networks(state)
        counters = state.counters
        self.step, self.consumed = counters["step"], counters["consumed"]
        self.seconds, self.results = counters["seconds"], counters["results"]
        self.means.load(counters.get("interval"))
        validations = counters.get("validations")
        if validations is None:  # an earlier version's
            validations = self.run_logger.logged_validations(self.step)
        self.best.load(*self.runtime.broadcast((validations, self.best.steps_on_disk())))
        self.take_step.load_counters(counters)
        self.collapse.load(counters["stability"])
        self.runtime.set_rng_state(state.rng)
