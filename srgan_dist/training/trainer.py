"""Training a super-resolution GAN: n updates of the generator for each update of the discriminator."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor, as_tensor

from srgan_dist.checkpointing.format import Snapshot
from srgan_dist.checkpointing.manager import Checkpoints
from srgan_dist.checkpointing.weights import WeightsFile
from srgan_dist.config.root import TrainConfig
from srgan_dist.data.loading.loader import Pair, Windows, to_device
from srgan_dist.data.loading.order import as_hex
from srgan_dist.data.loading.pairs import Batch
from srgan_dist.degradations.degradation import Degradation
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.distributed.signals import StopSignals
from srgan_dist.errors import Stopped
from srgan_dist.evaluation.validator import Validator
from srgan_dist.losses.content import Objective
from srgan_dist.models.discriminator import advance_power_iteration
from srgan_dist.tracking.run_logger import Journal
from srgan_dist.training.adversarial import Game, Rules, cut
from srgan_dist.training.clock import Clock
from srgan_dist.training.collapse_monitor import Stability, window_quality
from srgan_dist.training.ema import Average
from srgan_dist.training.micro_batch import MicroBatch
from srgan_dist.training.schedules import Intervals, Rates
from srgan_dist.training.trainable_network import FiniteGuard, Learner, WindowMean, with_last

log = logging.getLogger("srgan_dist")


class Trainer:
    """The loop. A step is one generator update on one window; everything is counted in steps.

    Args:
        config: Length, ratio, averaging.
        runtime: The machine and the other ranks.
        guard: Stops learning at the first loss that is not finite.
        generator: Maps LR to SR.
        discriminator: Maps images to logits; a forward never changes its buffers. None where all steps are
            pretraining.
        average: Moving average of the generator.
        objective: What generated images are compared with.
        rules: The adversarial loss.
        windows: An endless stream of windows: of each, this rank's share.
        origin: Stored in checkpoints: the configuration and data with which a run that goes on is compared.
        degradation: Makes LR images of HR ones, or None where they are read.
        batch_size: Crops in a window, over all ranks.
        micro_batch: How much of a window goes through the networks at once.
        epoch_size: Crops in an epoch.
        rates: What depends on the step alone.
        stability: When the discriminator learns, and what follows from a collapse.
        intervals: How often to log, validate, save.
        journal: Where numbers go.
        checkpoints: Where state goes.
        validator: Measures a generator, or None.
        folder: The run's folder.
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
        average: Average,
        objective: Objective,
        rules: Rules,
        windows: Windows,
        origin: Mapping[str, Any],
        degradation: Degradation | None,
        batch_size: int,
        micro_batch: MicroBatch,
        epoch_size: int,
        rates: Callable[[int], Rates],
        stability: Stability,
        intervals: Intervals,
        journal: Journal,
        checkpoints: Checkpoints,
        validator: Validator | None,
        folder: Path,
        signals: StopSignals,
    ) -> None:
        self.config, self.runtime, self.guard = config, runtime, guard
        self.generator, self.discriminator, self.average = generator, discriminator, average
        self.learners = {"generator": generator} | ({"discriminator": discriminator} if discriminator else {})
        self.objective, self.rules = objective, rules
        self.windows, self.origin, self.epoch_size = windows, origin, epoch_size
        self.batch_size, self.micro_batch = batch_size, micro_batch
        self.degradation, self.rates_at, self.stability = degradation, rates, stability
        self.intervals, self.journal = intervals, journal
        self.checkpoints, self.validator = checkpoints, validator
        self.folder, self.signals = folder, signals
        self.generator.network.train()
        if discriminator:
            runtime.hold_buffers(discriminator.network)
        self.step = self.consumed = self.discriminator_updates = 0
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
            self.rates = self.rates_at(self.step)
            game = self.micro_batch.within_memory(self.update_generator, window)
            if game and self.discriminator_learns(game):
                self.micro_batch.within_memory(self.update_discriminator, game)
            self.average.update(self.generator.network)
            self.stop_if_broken()
            self.report()
            self.stability.respond(self.step, self.rewind)
            self.checkpoint()
            self.journal.advance(self.step)
            self.stop_if_asked()

    def describe(self) -> str:
        """One line: how a window is made up, and the ratio."""
        pretrain_steps = self.config.pretrain_steps
        return f"{self.micro_batch}; {pretrain_steps} steps of pretraining, then {self.stability.pace}"

    def fetch(self, share: Batch) -> list[Pair]:
        """Copy this rank's share of a window to the device, in micro-batches."""
        self.clock.waited += self.windows.wait_seconds
        self.digest = share.digest.sum()
        options: dict[str, Any] = {"channels_last": self.config.channels_last, "degradation": self.degradation}
        return [to_device(batch, self.runtime.device, **options) for batch in share.split(self.micro_batch.size)]

    def discriminator_learns(self, game: Game) -> bool:
        in_phase, real = self.step - self.config.pretrain_steps, self.discriminator_stats.get("d/real_accuracy")
        return self.stability.pace.lets_learn(in_phase, fooled=game.fooled, real=real)

    def update_generator(self, window: list[Pair]) -> Game | None:
        """One update on the window's mean loss; returns what the discriminator thought of it, and the images."""
        window = cut(window, self.micro_batch.size)
        generator, total = self.generator, WindowMean(1 / len(window))
        game = self.new_game(window)
        made: list[Tensor] = []
        generator.begin(rate=self.rates.generator)
        with self.discriminator.frozen() if self.discriminator else nullcontext():
            if game:
                game.foresee(generator.network)
            for index, (pair, last) in enumerate(with_last(window)):
                with self.runtime.accumulating(generator.wrapped, sync=last):
                    sr = generator.wrapped(pair.lr)
                    terms = self.objective.content(sr, pair.hr) if game else self.objective.pretraining(sr, pair.hr)
                    if game:
                        terms["g/adversarial"] = game.generator_loss(sr, index)
                    terms["g/total"] = sum(terms.values(), start=sr.new_zeros(()))
                    generator.backward(terms["g/total"], share=total.share, last=last)
                made.append(sr.detach())
                total.add(terms)
        self.generator_stats = generator.step(self.step, total.terms)
        if self.is_due(self.intervals.log):
            self.generator_stats |= window_quality(made, window)
            self.generator_stats |= {"d/fake_accuracy": 1 - game.fooled()} if game else {}
        return game

    def update_discriminator(self, game: Game) -> None:
        """One update on the same window and the images just made of it: no second forward of the generator."""
        assert self.discriminator
        game.cut(self.micro_batch.size)
        discriminator, total = self.discriminator, WindowMean(1 / len(game.window))
        r1_is_due = self.discriminator_updates % self.rules.r1_every == 0
        discriminator.begin(rate=self.rates.discriminator * self.stability.d_rate)
        for half, last in with_last(game.halves()):
            with self.runtime.accumulating(discriminator.wrapped, sync=last):
                terms = game.discriminator_terms(half, discriminator.wrapped, r1_is_due=r1_is_due)
                discriminator.backward(terms["d/loss"], share=total.share, last=last)
            total.add(terms)
        self.discriminator_stats |= discriminator.step(self.step, total.terms)
        advance_power_iteration(discriminator.network)
        self.discriminator_updates += 1

    def new_game(self, window: list[Pair]) -> Game | None:
        if not self.discriminator or self.step <= self.config.pretrain_steps:
            return None
        factor, noise = self.rates.adversarial, self.rates.noise
        return Game(self.rules, self.discriminator.network, window, runtime=self.runtime, factor=factor, noise=noise)

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
                self.checkpoints.save_weights(self.weights_file("pretrained"))
            if self.validation_is_due:
                record |= self.validate()
            if record:
                self.journal.metrics(self.step, record)
            if self.validator and self.runtime.is_main and self.is_due(self.intervals.images):
                self.journal.images(self.step, self.validator.contact_sheet({"SR": self.average.network}))

    def measure(self) -> dict[str, Any]:
        """The numbers of this step's window: means over micro-batches and ranks."""
        digest = int(self.runtime.reduce_sum(self.digest))
        speed = self.clock.lap(self.step)
        record = {
            "images": self.consumed,
            "epoch": self.consumed / self.epoch_size,
            "learning_rate": self.rates.generator,
            **self.runtime.reduce_mean(self.discriminator_stats | self.generator_stats),
            "d/updates": self.discriminator_updates,
            "perf/images_per_second": speed.steps_per_second * self.batch_size,
            "perf/data_wait": speed.data_wait,
            "perf/memory_gib": self.runtime.peak_memory_gib(),
            "data/digest": as_hex(digest),
        }
        return self.stability.look(self.step, record)

    @property
    def pretraining_ends(self) -> bool:
        return self.step == self.config.pretrain_steps

    @property
    def validation_is_due(self) -> bool:
        return self.validator is not None and (self.is_due(self.intervals.validate) or self.pretraining_ends)

    def validate(self) -> dict[str, float]:
        """Measure the averaged generator on the validation images."""
        assert self.validator
        self.average.share_buffers()
        quality = self.validator.measure(self.average.network)
        if self.pretraining_ends:
            self.results["pretrained"] = quality
        self.results["final"] = quality
        return {f"val/{name}": value for name, value in quality.items() if value is not None}

    def checkpoint(self) -> None:
        """Publish what was saved in the background; save everything, if due."""
        self.checkpoints.poll()
        if self.is_due(self.intervals.checkpoint):
            self.save()
        if self.step == self.config.steps:
            self.checkpoints.wait()

    def save(self) -> None:
        """Save everything, in the background."""
        with self.clock.paused():
            self.checkpoints.save(self.step, self.snapshot(), self.weights_file("generator"))

    def stop_if_asked(self) -> None:
        """Stop at this step boundary if any rank received a signal."""
        if self.step < self.config.steps and self.runtime.anyone(self.signals.received is not None):
            self.guard.stop_if_tripped()
            if not self.is_due(self.intervals.checkpoint):
                self.save()
            self.checkpoints.wait()
            raise Stopped(f"stopped by a signal after step {self.step} of {self.config.steps}, with everything saved")

    def weights_file(self, name: str) -> WeightsFile:
        """The averaged generator for use, to be written in the background."""
        facts = {"step": str(self.step), "images": str(self.consumed)}
        return self.average.file(self.folder / "weights" / f"{name}.safetensors", facts)

    def snapshot(self) -> Snapshot:
        """Everything that the rest of the run depends on."""
        return Snapshot(
            counters={
                "step": self.step,
                "consumed": self.consumed,
                "origin": dict(self.origin),
                "averaged": self.average.num_updates,
                "discriminator_updates": self.discriminator_updates,
                "discriminator_stats": self.runtime.reduce_mean(self.discriminator_stats),
                "stability": self.stability.state(),
                "seconds": self.clock.seconds,
                "results": self.results,
                "tracker_id": self.journal.tracker_id,
            },
            weights={
                "ema": self.average.network.state_dict(),
                **{name: learner.network.state_dict() for name, learner in self.learners.items()},
            },
            optimizers={name: learner.optimizer_state() for name, learner in self.learners.items()},
            rng=self.runtime.rng_state(),
        )

    def rewind(self, before: int) -> Path | None:
        """Take weights, optimizers and average from the newest checkpoint of an earlier step; all else goes on."""
        self.checkpoints.wait()
        if path := self.checkpoints.newest(before=before):
            self.load_networks(self.checkpoints.load(path))
        return path

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot, exactly."""
        counters = snapshot.counters
        self.step, self.consumed = counters["step"], counters["consumed"]
        self.seconds, self.results = counters["seconds"], counters["results"]
        self.discriminator_updates = counters["discriminator_updates"]
        self.discriminator_stats = {name: as_tensor(value) for name, value in counters["discriminator_stats"].items()}
        self.stability.load(counters["stability"])
        self.load_networks(snapshot)
        self.runtime.set_rng_state(snapshot.rng)

    def load_networks(self, snapshot: Snapshot) -> None:
        for name, learner in self.learners.items():
            if name == "discriminator" and name not in snapshot.weights:
                continue  # all steps were to be pretraining: it begins as it would have then
            learner.network.load_state_dict(snapshot.weights[name])
            learner.load_optimizer_state(snapshot.optimizers[name])
        self.average.load(snapshot.weights["ema"], num_updates=snapshot.counters["averaged"])
