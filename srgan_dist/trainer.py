"""Training a super-resolution GAN: n updates of the generator for each update of the discriminator."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from srgan_dist.checkpoint import Checkpoints, Snapshot
from srgan_dist.clock import Clock
from srgan_dist.config import TrainConfig
from srgan_dist.data.degrade import Degradation
from srgan_dist.data.loader import Pair, Windows, to_device
from srgan_dist.data.order import as_hex
from srgan_dist.data.pairs import Batch
from srgan_dist.errors import Stopped
from srgan_dist.learner import FiniteGuard, Learner, WindowMean, with_last
from srgan_dist.models.discriminator import advance_power_iteration
from srgan_dist.objective import Objective, Terms
from srgan_dist.runtime import Runtime
from srgan_dist.signals import StopSignals
from srgan_dist.tracking import Journal
from srgan_dist.validate import Validator
from srgan_dist.weights import save_weights

log = logging.getLogger("srgan_dist")


@dataclass(frozen=True)
class Intervals:
    """Steps between the things that a run does now and then."""

    log: int
    images: int
    validate: int
    checkpoint: int


class Trainer:
    """The loop. A step is one generator update on one window; everything is counted in steps.

    Args:
        config: Length, ratio, averaging.
        runtime: The machine and the other ranks.
        guard: Stops learning at the first loss that is not finite.
        generator: Maps LR to SR.
        discriminator: Maps images to logits; kept in eval mode, so that a forward never changes its buffers. None
            where all steps are pretraining.
        ema: Moving average of the generator, made before its distributed form.
        objective: The losses.
        windows: An endless stream of windows, each a list of micro-batches.
        stream: What the order of the data depends on; a position is worth nothing in another stream.
        degradation: Makes LR images of HR ones, or None where they are read.
        batch_size: Crops in a window, over all ranks.
        epoch_size: Crops in an epoch.
        learning_rates: Rates of generator and discriminator at a step.
        intervals: How often to log, validate, save.
        journal: Where numbers go.
        checkpoints: Where state goes.
        validator: Measures a generator, or None.
        folder: The run's folder.
        metadata: Stored with the weights: architecture and scale.
        signals: Whether this process was asked to stop.
    """

    def __init__(
        self,
        *,
        config: TrainConfig,
        runtime: Runtime,
        guard: FiniteGuard,
        generator: Learner,
        discriminator: Learner | None,
        ema: AveragedModel,
        objective: Objective,
        windows: Windows,
        stream: Mapping[str, Any],
        degradation: Degradation | None,
        batch_size: int,
        epoch_size: int,
        learning_rates: Callable[[int], tuple[float, float]],
        intervals: Intervals,
        journal: Journal,
        checkpoints: Checkpoints,
        validator: Validator | None,
        folder: Path,
        metadata: Mapping[str, str],
        signals: StopSignals,
    ) -> None:
        self.config, self.runtime, self.guard = config, runtime, guard
        self.generator, self.discriminator, self.objective = generator, discriminator, objective
        self.windows, self.stream, self.batch_size, self.epoch_size = windows, stream, batch_size, epoch_size
        self.degradation, self.learning_rates = degradation, learning_rates
        self.intervals, self.journal, self.checkpoints, self.validator = (
            intervals,
            journal,
            checkpoints,
            validator,
        )
        self.folder, self.metadata, self.signals = folder, metadata, signals
        self.ema = ema
        self.ema.module.eval()
        self.generator.network.train()
        if discriminator:
            discriminator.network.eval()
        self.step = self.consumed = 0
        self.seconds = 0.0
        self.results: dict[str, dict[str, float | None]] = {}
        self.generator_stats: dict[str, Tensor] = {}
        self.discriminator_stats: dict[str, Tensor] = {}

    def run(self) -> None:
        """Train until `TrainConfig.steps`."""
        self.clock = Clock(self.step, self.seconds)
        while self.step < self.config.steps:
            window = self.fetch(next(self.windows))
            self.step += 1
            self.consumed += self.batch_size
            self.generator_rate, self.discriminator_rate = self.learning_rates(self.step)
            fakes = self.update_generator(window)
            if self.discriminator_is_due:
                self.update_discriminator(window, fakes)
            self.ema.update_parameters(self.generator.network)
            self.stop_if_broken()
            self.report()
            self.checkpoint()
            self.journal.advance(self.step)
            self.stop_if_asked()

    def describe(self) -> str:
        """One line: how a window is made up, and the ratio."""
        ranks, k = self.runtime.world_size, self.windows.num_micro_batches
        micro = self.batch_size // (k * ranks)
        return (
            f"window of {self.batch_size} = {micro} x {k} micro-batches x {ranks} ranks; "
            f"{self.config.pretrain_steps} steps of pretraining, then {self.config.g_per_d}:1"
        )

    def fetch(self, batches: list[Batch]) -> list[Pair]:
        """Copy a window to the device."""
        self.clock.waited += self.windows.wait_seconds
        self.digest = torch.stack([batch.digest for batch in batches]).sum()
        options: dict[str, Any] = {"channels_last": self.config.channels_last, "degradation": self.degradation}
        return [to_device(batch, self.runtime.device, **options) for batch in batches]

    @property
    def is_adversarial(self) -> bool:
        return self.step > self.config.pretrain_steps

    @property
    def discriminator_is_due(self) -> bool:
        return self.is_adversarial and (self.step - self.config.pretrain_steps) % self.config.g_per_d == 0

    def update_generator(self, window: list[Pair]) -> list[Tensor]:
        """One update on the window's mean loss; returns the detached SR images, for the discriminator."""
        generator, share = self.generator, 1 / len(window)
        generator.set_learning_rate(self.generator_rate)
        generator.zero_grad()
        fakes, total = [], WindowMean(share)
        for pair, last in with_last(window):
            with self.runtime.accumulating(generator.wrapped, sync=last):
                sr = generator.wrapped(pair.lr)
                terms = self.generator_terms(sr, pair.hr)
                terms["g/total"] = sum(terms.values(), start=sr.new_zeros(()))
                generator.backward(terms["g/total"], share=share)
            total.add(terms)
            fakes.append(sr.detach())
        self.generator_stats = generator.step(self.step, total.terms)
        return fakes

    def generator_terms(self, sr: Tensor, hr: Tensor) -> Terms:
        """The losses of one micro-batch; gradients flow through the discriminator, not into it."""
        if not self.is_adversarial:
            return self.objective.pretraining(sr, hr)
        assert self.discriminator
        with self.discriminator.frozen() as discriminator:
            return self.objective.generator(sr, hr, discriminator)

    def update_discriminator(self, window: list[Pair], fakes: list[Tensor]) -> None:
        """One update on the same window and the images just made of it: no second forward of the generator."""
        assert self.discriminator
        discriminator, share = self.discriminator, 1 / len(window)
        discriminator.set_learning_rate(self.discriminator_rate)
        discriminator.zero_grad()
        advance_power_iteration(discriminator.network)
        total = WindowMean(share)
        for (pair, sr), last in with_last(list(zip(window, fakes, strict=True))):
            with self.runtime.accumulating(discriminator.wrapped, sync=last):
                terms = self.objective.discriminator(pair.hr, sr, discriminator.wrapped)
                discriminator.backward(terms["d/loss"], share=share)
            total.add(terms)
        self.discriminator_stats = discriminator.step(self.step, total.terms)

    def is_due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.steps

    def stop_if_broken(self) -> None:
        """Stop on all ranks; on a GPU only when the host waits for it anyway, the guard holds the weights till then."""
        waits = self.is_due(self.intervals.log) or self.validation_is_due or self.is_due(self.intervals.checkpoint)
        if self.runtime.device.type != "cpu" and not waits:
            return
        self.guard.stop_if_tripped()

    def report(self) -> None:
        """Log, validate and draw, whatever is due; one line of metrics a step."""
        record = self.measure() if self.is_due(self.intervals.log) else {}
        with self.clock.paused():
            if self.pretraining_ends:
                self.save_weights("pretrained")
            if self.validation_is_due:
                record |= self.validate()
            if record:
                self.journal.metrics(self.step, record)
            if self.validator and self.is_due(self.intervals.images):
                self.draw(self.step)

    def measure(self) -> dict[str, Any]:
        """The numbers of this step's window: means over micro-batches and ranks."""
        digest = int(self.runtime.reduce_sum(self.digest))
        speed = self.clock.lap(self.step)
        return {
            "images": self.consumed,
            "epoch": self.consumed / self.epoch_size,
            "learning_rate": self.generator_rate,
            **self.runtime.reduce_mean(self.generator_stats | self.discriminator_stats),
            "perf/images_per_second": speed.steps_per_second * self.batch_size,
            "perf/data_wait": speed.data_wait,
            "perf/memory_gib": self.runtime.peak_memory_gib(),
            "data/digest": as_hex(digest),
        }

    @property
    def pretraining_ends(self) -> bool:
        return self.step == self.config.pretrain_steps

    @property
    def validation_is_due(self) -> bool:
        return self.validator is not None and (self.is_due(self.intervals.validate) or self.pretraining_ends)

    def validate(self) -> dict[str, float]:
        """Measure the averaged generator on the validation images."""
        assert self.validator
        self.share_buffers()
        quality = self.validator.measure(self.ema.module)
        if self.pretraining_ends:
            self.results["pretrained"] = quality
        self.results["final"] = quality
        return {f"val/{name}": value for name, value in quality.items() if value is not None}

    def share_buffers(self) -> None:
        """BatchNorm's running statistics differ between ranks; rank 0's are the ones that are saved and validated."""
        for buffer in self.ema.module.buffers():
            self.runtime.broadcast_tensor(buffer)

    def draw(self, step: int) -> None:
        """Write a picture of samples."""
        assert self.validator
        if self.runtime.is_main:
            sheet = self.validator.contact_sheet({"SR": self.ema.module})
            path = self.folder / "samples" / f"step-{step:06d}.png"
            path.parent.mkdir(exist_ok=True)
            sheet.save(path)
            self.journal.images(step, sheet)

    def checkpoint(self) -> None:
        """Save everything, if due."""
        if self.is_due(self.intervals.checkpoint):
            self.save()

    def save(self) -> None:
        """Save everything."""
        with self.clock.paused():
            self.checkpoints.save(self.step, self.snapshot())
            self.save_weights("generator")

    def stop_if_asked(self) -> None:
        """Stop at this step boundary if any rank received a signal."""
        if self.step < self.config.steps and self.runtime.anyone(self.signals.received is not None):
            if not self.is_due(self.intervals.checkpoint):
                self.save()
            raise Stopped(f"stopped by a signal after step {self.step} of {self.config.steps}, with everything saved")

    def save_weights(self, name: str) -> None:
        """Write the averaged generator for use."""
        self.share_buffers()
        if not self.runtime.is_main:
            return
        facts = {"step": str(self.step), "images": str(self.consumed)}
        path = self.folder / "weights" / f"{name}.safetensors"
        save_weights(path, self.ema.module.state_dict(), {**self.metadata, **facts})

    @property
    def learners(self) -> dict[str, Learner]:
        """What has weights and an optimizer, by name."""
        learners = {"generator": self.generator}
        return learners | {"discriminator": self.discriminator} if self.discriminator else learners

    def snapshot(self) -> Snapshot:
        """Everything that the rest of the run depends on."""
        return Snapshot(
            counters={
                "step": self.step,
                "position": {"consumed": self.consumed, "stream": dict(self.stream)},
                "averaged": int(self.ema.n_averaged),
                "seconds": self.clock.seconds,
                "results": self.results,
                "tracker_id": self.journal.tracker_id,
            },
            weights={
                "ema": self.ema.module.state_dict(),
                **{name: learner.network.state_dict() for name, learner in self.learners.items()},
            },
            optimizers={name: learner.optimizer_state() for name, learner in self.learners.items()},
            rng=self.runtime.rng_state(),
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot, exactly."""
        counters = snapshot.counters
        self.step, self.consumed = counters["step"], counters["position"]["consumed"]
        self.seconds, self.results = counters["seconds"], counters["results"]
        for name, learner in self.learners.items():
            learner.network.load_state_dict(snapshot.weights[name])
            learner.load_optimizer_state(snapshot.optimizers[name])
        self.ema.module.load_state_dict(snapshot.weights["ema"])
        self.ema.n_averaged.fill_(counters["averaged"])
        self.runtime.set_rng_state(snapshot.rng)
