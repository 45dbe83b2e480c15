"""The training step, defined once: the trainer calls it, the memory estimate runs it, the benchmark times it.

A step is one update of the generator on one global batch. In pretraining, that is all; in the adversarial phase, the
discriminator is updated too, when its schedule says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from srgan_dist.checkpointing.format import TrainingState, of_file
from srgan_dist.checkpointing.tensors import check_network
from srgan_dist.data.loading.loader import Patches
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.losses.additional import AdditionalLoss, additional_terms
from srgan_dist.losses.content import ContentLoss, Terms
from srgan_dist.models.discriminator import advance_power_iteration
from srgan_dist.tracking.logged import SCORE_BINS
from srgan_dist.training.adversarial import (
    AdversarialObjective,
    AdversarialSettings,
    RealOrFakeBatch,
    split_micro_batches,
)
from srgan_dist.training.batch_quality import BatchQuality
from srgan_dist.training.discriminator_schedule import DiscriminatorSchedule
from srgan_dist.training.ema import EMA
from srgan_dist.training.micro_batch import MicroBatch
from srgan_dist.training.schedules import Rates
from srgan_dist.training.trainable_network import FiniteGuard, TrainableNetwork

StepMetrics = dict[str, Tensor]
Batch = list[Patches]
"""This rank's part of a global batch, on the device, in micro-batches."""


class TrainingStep(Protocol):
    """One update of the generator and of its EMA, and, depending on the step, of the discriminator."""

    def __call__(self, batch: Batch, rates: Rates) -> StepMetrics:
        """Take one step.

        Args:
            batch: This rank's part of the global batch.
            rates: Learning rates and factors of this step.

        Returns:
            Scalars on the device by logged name: losses as means over this rank's micro-batches, norms of gradients; of
            the discriminator, if this step updated it. The host does not wait for them.
        """
        ...


class PretrainingStep:
    """An update of the generator on the pixel loss alone; with ``mse``, SRResNet-MSE (Ledig et al. 2017, section 3.2).

    Args:
        generator: Maps LR to SR.
        ema: The generator's moving average.
        content: The pixel and perceptual loss.
        micro_batch: Number of patches that go through the networks at once.
    """

    def __init__(self, generator: TrainableNetwork, *, ema: EMA, content: ContentLoss, micro_batch: MicroBatch) -> None:
        self.generator, self.ema, self.content, self.micro_batch = generator, ema, content, micro_batch
        self.quality = BatchQuality()

    def __call__(self, batch: Batch, rates: Rates) -> StepMetrics:
        """Take one step; see `TrainingStep`."""
        metrics = self.micro_batch.within_memory(partial(self.update_generator, rates=rates), batch)
        self.ema.update(self.generator.network)
        return metrics

    def update_generator(self, batch: Batch, *, rates: Rates) -> StepMetrics:
        """Minimise over G the mean of ``pixel(G(lr), hr)``."""
        batch = split_micro_batches(batch, self.micro_batch.size)
        generated: list[Tensor] = []

        def losses(patches: Patches) -> Terms:
            sr = self.generator.wrapped(patches.lr)
            generated.append(sr.detach())
            return with_total(self.content.pretraining(sr, patches.hr))

        weight, step = 1 / len(batch), rates.step
        metrics = self.generator.update(batch, losses, "g/total", weight=weight, rate=rates.generator, step=step)
        return metrics | self.quality(generated, batch)


class GANStep:
    """An update of the generator (Ledig et al. 2017, eq. 3) and, when due, of the discriminator (eq. 2).

    Owns the two networks, the moving average and the losses; no other code defines what an update is.

    Args:
        generator: Maps LR to SR.
        discriminator: Maps images to logits; a forward pass never changes its buffers.
        ema: The generator's moving average.
        content: The pixel and perceptual loss.
        adversarial: The adversarial loss.
        schedule: When the discriminator is updated.
        micro_batch: Number of patches that go through the networks at once.
        runtime: The machine and the other ranks.
        additional: Further losses of the generator.

    Attributes:
        discriminator_updates: Number of discriminator updates so far; it decides which have the R1 penalty.
        discriminator_metrics: The metrics of the last discriminator update.
        judged: Its logits of real and of generated images, those of this rank; none before the first.
    """

    def __init__(
        self,
        generator: TrainableNetwork,
        discriminator: TrainableNetwork,
        *,
        ema: EMA,
        content: ContentLoss,
        adversarial: AdversarialSettings,
        schedule: DiscriminatorSchedule,
        micro_batch: MicroBatch,
        runtime: Runtime,
        additional: Sequence[AdditionalLoss] = (),
    ) -> None:
        self.generator, self.discriminator, self.ema = generator, discriminator, ema
        self.content, self.adversarial, self.schedule = content, adversarial, schedule
        self.additional = additional
        self.micro_batch, self.runtime, self.quality = micro_batch, runtime, BatchQuality()
        self.discriminator_updates = 0
        self.discriminator_metrics: StepMetrics = {}
        self.judged: dict[str, list[Tensor]] = {}
        runtime.freeze_batchnorm_stats(discriminator.network)

    def __call__(self, batch: Batch, rates: Rates) -> StepMetrics:
        """Take one step; see `TrainingStep`."""
        if (
            any(loss.uses_average for loss in self.additional)
            and self.runtime.batchnorm_ranks < self.runtime.world_size
        ):
            self.ema.broadcast_buffers()  # here, where no rank can break off; a run that resumes has rank 0's, too
        update = partial(self.update_generator, rates=rates)
        objective, metrics = self.micro_batch.within_memory(update, batch)
        if self.schedule.should_update(
            rates.phase_step,
            fooling_rate=objective.fooling_rate,
            real_accuracy=self.discriminator_metrics.get("d/real_accuracy"),
        ):
            update_discriminator = partial(self.update_discriminator, rates=rates)
            metrics = self.micro_batch.within_memory(update_discriminator, objective) | metrics
        self.ema.update(self.generator.network)
        return metrics

    def update_generator(self, batch: Batch, *, rates: Rates) -> tuple[AdversarialObjective, StepMetrics]:
        """Minimise over G the mean of ``content(G(lr), hr) + weight * adversarial(D(G(lr)))``; D is frozen.

        The additional losses, if there are any, are added to it.

        Returns:
            The objective, which holds the generated images and their logits, and the metrics.
        """
        batch = split_micro_batches(batch, self.micro_batch.size)
        objective = AdversarialObjective(
            self.adversarial,
            self.discriminator.network,
            batch,
            runtime=self.runtime,
            factor=rates.adversarial,
            noise=rates.noise,
        )

        def losses(part: tuple[int, Patches]) -> Terms:
            index, patches = part
            sr = self.generator.wrapped(patches.lr)
            terms = self.content(sr, patches.hr)
            terms |= additional_terms(self.additional, sr, patches.hr, patches.lr, factors=rates.additional)
            return with_total(terms | {"g/adversarial": objective.generator_loss(sr, index)})

        with self.discriminator.frozen():
            objective.precompute_logits(self.generator.network)
            parts = list(enumerate(batch))
            weight, step = 1 / len(batch), rates.step
            metrics = self.generator.update(parts, losses, "g/total", weight=weight, rate=rates.generator, step=step)
        quality = self.quality(objective.generated, batch)
        return objective, metrics | quality | {"d/fake_accuracy": 1 - objective.fooling_rate()}

    def update_discriminator(self, objective: AdversarialObjective, *, rates: Rates) -> StepMetrics:
        """Minimise over D its loss on the batch's real and just generated images, without a second forward of G.

        Returns:
            The metrics.
        """
        objective.split(self.micro_batch.size)
        r1_is_due = self.discriminator_updates % self.adversarial.r1_every == 0

        def losses(part: RealOrFakeBatch) -> Terms:
            return objective.discriminator_terms(part, self.discriminator.wrapped, r1_is_due=r1_is_due)

        parts, weight = objective.real_and_fake_batches(), 1 / len(objective.batch)
        metrics = self.discriminator.update(
            parts, losses, "d/loss", weight=weight, rate=rates.discriminator, step=rates.step
        )
        self.judged = objective.judged
        advance_power_iteration(self.discriminator.network)
        self.discriminator_updates += 1
        self.discriminator_metrics |= metrics
        return metrics


def with_total(terms: Terms) -> Terms:
    """Add ``g/total``, the sum of the terms."""
    return terms | {"g/total": sum(terms.values(), start=next(iter(terms.values())).new_zeros(()))}


def _histogram(logits: Tensor, bins: int) -> Tensor:
    """Count the sigmoid of logits [N] in bins of equal width in [0, 1]; int64 [bins]."""
    edges = torch.linspace(0, 1, bins + 1, device=logits.device, dtype=torch.float64)[1:-1]
    below = torch.searchsorted(logits.double().sigmoid().sort().values, edges)  # unlike histc, always the same way
    ends = below.new_tensor([0]), below.new_tensor([len(logits)])
    return torch.cat([ends[0], below, ends[1]]).diff()


class TwoPhases:
    """Takes the step of the current phase, pretraining or GAN, and holds the state of both.

    Args:
        pretraining: The step of the first phase.
        gan: The step of the second phase, or None if all steps are pretraining.
        guard: Stops the optimizers at the first loss that is not finite.
    """

    def __init__(self, pretraining: PretrainingStep, gan: GANStep | None, *, guard: FiniteGuard) -> None:
        self.pretraining, self.gan, self.guard = pretraining, gan, guard
        self.generator, self.ema, self.micro_batch = pretraining.generator, pretraining.ema, pretraining.micro_batch
        self.networks = {"generator": self.generator} | ({"discriminator": gan.discriminator} if gan else {})
        self._restored_histograms: dict[str, list[int]] = {}
        self.generator.network.train()

    def __call__(self, batch: Batch, rates: Rates) -> StepMetrics:
        """Take one step of the current phase; see `TrainingStep`."""
        step: TrainingStep = self.gan if self.gan and not rates.is_pretraining else self.pretraining
        return step(batch, rates)

    def score_histograms(self, *, bins: int = SCORE_BINS) -> dict[str, list[int]]:
        """How the discriminator judged at its last update: histograms of the sigmoid of its logits.

        The step only keeps the logits; they are counted here, where the host waits for the device anyway.

        Args:
            bins: Number of bins of equal width in [0, 1].

        Returns:
            The counts over all ranks for ``d/real_scores`` and ``d/fake_scores``; none before the first update. Until
            a resumed run has updated it, those that were saved.
        """
        if not (self.gan and self.gan.judged):
            return self._restored_histograms
        judged, reduce_sum = self.gan.judged, self.gan.runtime.reduce_sum
        counts = [_histogram(torch.cat([logits.flatten() for logits in parts]), bins) for parts in judged.values()]
        summed = reduce_sum(torch.stack(counts)).tolist()
        return {f"d/{name}_scores": row for name, row in zip(judged, summed, strict=True)}

    @property
    def discriminator_updates(self) -> int:
        """Number of discriminator updates so far."""
        return self.gan.discriminator_updates if self.gan else 0

    @property
    def discriminator_metrics(self) -> StepMetrics:
        """The metrics of the last discriminator update; empty before the first."""
        return self.gan.discriminator_metrics if self.gan else {}

    def counters(self, reduce_mean: Callable[[Mapping[str, Tensor]], dict[str, float]]) -> dict[str, Any]:
        """What a resumed run needs in addition to weights and optimizers, for JSON.

        Args:
            reduce_mean: Averages scalars over the ranks.
        """
        stats = reduce_mean(self.discriminator_metrics)
        return {
            "averaged": self.ema.num_updates,
            "discriminator_updates": self.discriminator_updates,
            # The gradient of an update that fp16's loss scale skipped has no norm, and JSON nothing to write it as.
            "discriminator_stats": {name: value for name, value in stats.items() if math.isfinite(value)},
            "score_histograms": self.score_histograms(),
        }

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """State dicts by name."""
        networks: dict[str, nn.Module] = {name: network.network for name, network in self.networks.items()}
        return {name: network.state_dict() for name, network in ({"ema": self.ema.network} | networks).items()}

    def optimizers(self) -> dict[str, dict[str, Any]]:
        """Optimizer states by name."""
        return {name: network.optimizer_state() for name, network in self.networks.items()}

    def load_counters(self, counters: Mapping[str, Any]) -> None:
        """Restore `counters`."""
        self._restored_histograms = counters.get("score_histograms") or {}  # absent in those of earlier versions
        if self.gan:
            self.gan.discriminator_updates = counters["discriminator_updates"]
            metrics = counters["discriminator_stats"]
            # As they were averaged over the ranks: rounded to float32, a resumed run would log other numbers.
            self.gan.discriminator_metrics = {
                name: torch.tensor(value, dtype=torch.float64) for name, value in metrics.items()
            }

    def load_networks(self, state: TrainingState) -> None:
        """Load weights, optimizers and EMA from a checkpoint; everything, or nothing if anything cannot be used.

        Raises:
            CheckpointError: A file is missing, of another network, or damaged; file and tensor are named.
        """
        # A checkpoint from a run of pretraining only has no discriminator, which then keeps its initial weights.
        saved = {name: self.networks[name] for name in self.networks if name == "generator" or name in state.weights}
        for name, trainable in saved.items():
            with of_file(f"{name}.safetensors"):
                check_network(state.weights.get(name), trainable.network)
            with of_file(f"optimizer_{name}.pt"):
                trainable.check_optimizer_state(state.optimizers.get(name))
        with of_file("ema.safetensors"):
            check_network(state.weights.get("ema"), self.ema.network)
        for name, trainable in saved.items():
            trainable.network.load_state_dict(state.weights[name])
            trainable.load_optimizer_state(state.optimizers[name])
        self.ema.load(state.weights["ema"], num_updates=state.counters["averaged"])
