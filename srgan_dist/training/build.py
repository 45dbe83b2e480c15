"""From the configuration to the objects: one `match` for each choice, and nothing else knows both sides."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from srgan_dist.checkpointing.manager import Checkpoints
from srgan_dist.checkpointing.weights import initialise
from srgan_dist.config.compatibility import origin, refuse_changes
from srgan_dist.config.optimizer import ScheduleConfig
from srgan_dist.config.root import (
    Config,
)
from srgan_dist.data.build import build_shards, build_windows, micro_batch_size
from srgan_dist.degradations.build import build_degradation
from srgan_dist.distributed.memory import used_ram
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.distributed.signals import StopSignals
from srgan_dist.evaluation.build import build_validation_images
from srgan_dist.evaluation.validator import Validator
from srgan_dist.losses.content import Features
from srgan_dist.models.build import build_discriminator, build_features, build_generator, generator_metadata
from srgan_dist.tracking.run_logger import Journal
from srgan_dist.training.build_losses import build_objective, build_rules
from srgan_dist.training.collapse_monitor import CollapseMonitor, Limits, Stability
from srgan_dist.training.discriminator_schedule import Pace
from srgan_dist.training.ema import Average
from srgan_dist.training.micro_batch import MicroBatch
from srgan_dist.training.schedules import Intervals, Rates, adversarial_factor, instance_noise, learning_rate
from srgan_dist.training.trainable_network import FiniteGuard, Learner, LossScale
from srgan_dist.training.trainer import Trainer

log = logging.getLogger("srgan_dist")

_OF_FREE_RAM = 0.9  # predictions are not exact, and others grow, too


def build_rates(config: Config) -> Callable[[int], Rates]:
    """What depends on the step alone."""

    def rate(schedule: ScheduleConfig, step: int, num_steps: int) -> float:
        return learning_rate(
            step,
            num_steps=num_steps,
            base=schedule.learning_rate,
            schedule=schedule.schedule,
            warmup_steps=schedule.warmup_steps,
            milestones=schedule.milestones,
            gamma=schedule.gamma,
            minimum=schedule.min_learning_rate,
        )

    pretrain_steps, optimizer, adversarial = config.train.pretrain_steps, config.optimizer, config.loss.adversarial

    def rates(step: int) -> Rates:
        if step <= pretrain_steps:
            return Rates(generator=rate(optimizer.pretrain, step, pretrain_steps))
        in_phase, num_steps = step - pretrain_steps, config.adversarial_steps
        return Rates(
            generator=rate(optimizer.generator, in_phase, num_steps),
            discriminator=rate(optimizer.discriminator, in_phase, num_steps),
            adversarial=adversarial_factor(in_phase, delay=config.train.d_warmup_steps, ramp=adversarial.ramp_steps),
            noise=instance_noise(
                in_phase, initial=adversarial.instance_noise, num_steps=adversarial.instance_noise_steps
            ),
        )

    return rates


def build_stability(config: Config, *, runtime: Runtime) -> Stability:
    """When the discriminator learns, and what follows from a collapse."""
    train, stability = config.train, config.stability
    limits = Limits(
        d_accuracy=stability.max_d_accuracy,
        grad_ratio=stability.grad_ratio,
        saturated=stability.max_saturated,
        psnr_drop=stability.max_psnr_drop,
    )
    return Stability(
        pace=Pace(
            g_per_d=None if train.g_per_d == "auto" else train.g_per_d,
            warmup=train.d_warmup_steps,
            band=stability.d_accuracy_band,
            watches=stability.on_collapse == "pause_d",
            runtime=runtime,
        ),
        monitor=CollapseMonitor(limits, patience=stability.patience, start=train.pretrain_steps + train.d_warmup_steps),
        response=stability.on_collapse,
        is_main=runtime.is_main,
    )


def build_trainer(
    config: Config,
    *,
    runtime: Runtime,
    journal: Journal,
    checkpoints: Checkpoints,
    signals: StopSignals,
    position: dict[str, Any] | None,
) -> Trainer:
    """Everything that a run needs, with fresh weights.

    Args:
        config: The resolved configuration.
        runtime: The machine and the other ranks.
        journal: Where numbers go.
        checkpoints: Where state goes.
        signals: Whether this process was asked to stop.
        position: Counters of the checkpoint to go on from, or None to begin.

    Raises:
        UserError: The configuration does not fit the data, the ranks or the checkpoint.
    """
    micro_batch = _micro_batch(config, runtime)
    shards = build_shards(config.data)
    degradation = build_degradation(config.data.degradation, scale=config.data.scale, device=runtime.device)
    if position:
        refuse_changes(position["origin"], config, shards=shards.digest, step=position["step"])
    consumed = position["consumed"] if position else 0
    windows, dataset = build_windows(
        config.data,
        shards,
        seed=config.run.seed,
        consumed=consumed,
        margin=degradation.margin if degradation else 0,
        runtime=runtime,
    )
    torch.manual_seed(config.run.seed)
    guard = FiniteGuard(runtime)
    generator, discriminator, average = _learners(config, runtime=runtime, guard=guard, begins=position is None)
    features, features_of_any_size = _features(config, runtime)
    images = build_validation_images(config.data)
    return Trainer(
        config=config.train,
        runtime=runtime,
        guard=guard,
        generator=generator,
        discriminator=discriminator,
        average=average,
        objective=build_objective(config.loss, features),
        rules=build_rules(config.loss.adversarial, device=runtime.device),
        windows=windows,
        origin=origin(config, shards=shards.digest),
        degradation=degradation,
        batch_size=config.data.batch_size,
        micro_batch=micro_batch,
        epoch_size=dataset.num_crops,
        rates=build_rates(config),
        stability=build_stability(config, runtime=runtime),
        intervals=_intervals(config),
        journal=journal,
        checkpoints=checkpoints,
        validator=Validator(images, scale=config.data.scale, runtime=runtime, features=features_of_any_size)
        if images
        else None,
        folder=config.run.dir,
        signals=signals,
    )


def _micro_batch(config: Config, runtime: Runtime) -> MicroBatch:
    size = micro_batch_size(config.data, world_size=runtime.world_size)
    share = config.data.batch_size // runtime.world_size
    # A GPU tells when its memory is full, and halves; on a CPU the kernel kills, so it is foreseen.
    if config.data.micro_batch == "auto" and runtime.device.type == "cpu":
        from srgan_dist.training.memory_estimate import largest_micro_batch  # half a second that others can do without

        memory = int(_OF_FREE_RAM * runtime.free_memory()) + used_ram()
        recompute = config.train.recompute
        found = largest_micro_batch(config, share=share, recompute=recompute, memory=memory, device="cpu")
        size = min(runtime.collect(max(found.micro_batch, 1)))
        if not found.micro_batch:
            log.warning("memory may not be enough for one crop at a time: srgan-dist plan tells what is needed")
    return MicroBatch(size, share=share, runtime=runtime)


def _intervals(config: Config) -> Intervals:
    return Intervals(
        log=config.log.every,
        images=config.log.images_every,
        validate=config.validation.every,
        checkpoint=config.checkpoint.every,
    )


def _learners(
    config: Config, *, runtime: Runtime, guard: FiniteGuard, begins: bool
) -> tuple[Learner, Learner | None, Average]:
    """Generator, discriminator (None where all steps are pretraining), and the generator's moving average."""

    def learner(network: nn.Module, name: str, *, size: int) -> Learner:
        learner = Learner(
            network,
            runtime=runtime,
            guard=guard,
            name=name,
            betas=config.optimizer.betas,
            weight_decay=config.optimizer.weight_decay,
            clip=config.train.clip_grad_norm,
            loss_scale=LossScale(runtime.device) if runtime.needs_loss_scale else None,
        )
        example = torch.zeros(1, 3, size, size, device=runtime.device)
        learner.settle(example.contiguous(memory_format=runtime.memory_format))
        runtime.compile(learner.network)
        return learner

    patch, recompute = config.data.patch_size, config.train.recompute in ("generator", "both")
    network = build_generator(config.generator, scale=config.data.scale, recompute=recompute)
    if config.run.init_from and begins:
        initialise(network, config.run.init_from)
    network = runtime.place(network)
    metadata = generator_metadata(config.generator, scale=config.data.scale)
    average = Average(network, decay=config.train.ema_decay, runtime=runtime, metadata=metadata)
    generator = learner(network, "g", size=patch // config.data.scale)
    if not config.adversarial_steps:
        return generator, None, average
    return generator, learner(build_discriminator(config.discriminator), "d", size=patch), average


def _features(config: Config, runtime: Runtime) -> tuple[Features | None, Features | None]:
    """The feature network for patches, compiled if the run is, and for images of any size."""
    if not config.loss.perceptual.weight or not config.adversarial_steps:
        return None, None
    recompute = config.train.recompute in ("perceptual", "both")
    network = build_features(config.loss.perceptual, recompute=recompute)
    network.compute_in(runtime.dtype)
    runtime.place(network)
    runtime.compile(network)

    def in_autocast(forward: Features) -> Features:
        def features(images: Tensor) -> Sequence[Tensor]:
            with runtime.autocast():
                return forward(images)

        return features

    return in_autocast(network), in_autocast(network.forward)
