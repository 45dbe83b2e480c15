"""Builds the training step from the configuration: networks, losses, the discriminator's schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from typing_extensions import assert_never

from srgan_dist.checkpointing.weights import initialise
from srgan_dist.config.additional_losses import (
    AdditionalLossConfig,
    DISTSLossConfig,
    FrequencyLossConfig,
    LDLLossConfig,
    LearnedLossConfig,
    LPIPSLossConfig,
    WaveletLossConfig,
)
from srgan_dist.config.losses import AdversarialLossConfig, LossConfig
from srgan_dist.config.models import NotRecomputed
from srgan_dist.config.root import Config
from srgan_dist.degradations.noise import add_gaussian, noise_tables
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.losses import additional as losses
from srgan_dist.losses.additional import AdditionalLoss
from srgan_dist.losses.content import ContentLoss, Features
from srgan_dist.models.build import (
    build_discriminator,
    build_features,
    build_generator,
    build_learned_distance,
    generator_metadata,
)
from srgan_dist.models.classes import leave_out_unused
from srgan_dist.models.features import FeatureNetwork
from srgan_dist.models.reparameterised import weights_to_train
from srgan_dist.training.adversarial import AdversarialSettings
from srgan_dist.training.discriminator_schedule import DiscriminatorSchedule
from srgan_dist.training.ema import EMA
from srgan_dist.training.gan_step import GANStep, PretrainingStep, TwoPhases
from srgan_dist.training.micro_batch import MicroBatch
from srgan_dist.training.trainable_network import FiniteGuard, LossScale, TrainableNetwork


def build_step(
    config: Config,
    *,
    runtime: Runtime,
    micro_batch: MicroBatch,
    schedule: DiscriminatorSchedule,
    features: Features | None,
    starts: bool = True,
) -> TwoPhases:
    """Build the steps of both phases, with freshly initialised weights.

    Args:
        config: The configuration.
        runtime: The machine and the other ranks.
        micro_batch: Number of patches that go through the networks at once.
        schedule: When the discriminator is updated.
        features: Frozen feature network for the perceptual loss, or None.
        starts: Whether this is a new run, which loads ``run.init_from`` and ``run.init_discriminator_from``; a resumed
            run takes its weights from the checkpoint.
    """
    guard = FiniteGuard(runtime)

    def trainable(network: nn.Module, name: str, *, side: int) -> TrainableNetwork:
        trainable = TrainableNetwork(
            network,
            runtime=runtime,
            guard=guard,
            name=name,
            betas=config.optimizer.betas,
            weight_decay=config.optimizer.weight_decay,
            clip=config.train.clip_grad_norm,
            loss_scale=LossScale(runtime.device) if runtime.needs_loss_scale else None,
        )
        example = torch.zeros(2, 3, side, side, device=runtime.device)  # one may be too few for BatchNorm
        trainable.build_ddp_buckets(example.contiguous(memory_format=runtime.memory_format))
        runtime.compile(trainable.network)
        return trainable

    patch, recompute = config.data.patch_size, config.train.recompute in ("generator", "both")
    network = build_generator(config.generator, scale=config.data.scale, recompute=recompute)
    if config.run.init_from and starts:
        initialise(network, config.run.init_from, as_trained=weights_to_train)
    network = runtime.place(network)
    with torch.random.fork_rng(devices=()):  # building the average must not change the run's random numbers
        average = runtime.place(build_generator(config.generator, scale=config.data.scale))
    average.load_state_dict(network.state_dict())
    metadata = generator_metadata(config.generator, scale=config.data.scale)
    ema = EMA(average, decay=config.train.ema_decay, runtime=runtime, metadata=metadata)
    if runtime.world_size > 1 and isinstance(config.generator, NotRecomputed):
        leave_out_unused(network, side=patch // config.data.scale, device=runtime.device)
    generator = trainable(network, "g", side=patch // config.data.scale)
    content = build_content_loss(config.loss, features)
    pretraining = PretrainingStep(generator, ema=ema, content=content, micro_batch=micro_batch)
    if not config.adversarial_steps:
        return TwoPhases(pretraining, None, guard=guard)
    discriminator = build_discriminator(config.discriminator)
    if config.run.init_discriminator_from and starts:
        initialise(discriminator, config.run.init_discriminator_from, role="discriminator")
    gan = GANStep(
        generator,
        trainable(discriminator, "d", side=patch),
        ema=ema,
        content=content,
        adversarial=build_adversarial_settings(config.loss.adversarial, device=runtime.device),
        schedule=schedule,
        micro_batch=micro_batch,
        runtime=runtime,
        additional=build_additional_losses(config, runtime=runtime, average=average),
    )
    return TwoPhases(pretraining, gan, guard=guard)


def build_schedule(config: Config, *, runtime: Runtime) -> DiscriminatorSchedule:
    """Build the schedule of the discriminator's updates."""
    train, stability = config.train, config.stability
    return DiscriminatorSchedule(
        g_per_d=None if train.g_per_d == "auto" else train.g_per_d,
        warmup=train.d_warmup_steps,
        band=stability.d_accuracy_band,
        watches=stability.on_collapse == "pause_d",
        runtime=runtime,
    )


def build_content_loss(config: LossConfig, features: Features | None) -> ContentLoss:
    """Build the pixel and perceptual loss."""
    return ContentLoss(
        pixel=config.pixel.kind,
        pixel_weight=config.pixel.weight,
        features=features,
        perceptual=config.perceptual.criterion,
        perceptual_weight=config.perceptual.weight,
        layer_weights=config.perceptual.layer_weights,
    )


def build_additional_losses(config: Config, *, runtime: Runtime, average: nn.Module) -> list[AdditionalLoss]:
    """Build the additional losses that have a weight; ``average`` is the moving average of the generator."""

    @torch.no_grad()
    def of_average(lr: Tensor) -> Tensor:
        with runtime.autocast():
            sr: Tensor = average(lr)
        return sr

    def build(section: AdditionalLossConfig) -> AdditionalLoss:
        kind, weight = section.kind, section.weight
        match section:
            case LPIPSLossConfig() | DISTSLossConfig():
                return AdditionalLoss(kind, weight, _learned_distance(section, config=config, runtime=runtime))
            case LDLLossConfig():
                return AdditionalLoss(
                    kind, weight, lambda sr, hr, lr: losses.ldl_loss(sr, hr, of_average(lr)), uses_average=True
                )
            case FrequencyLossConfig():
                return AdditionalLoss(kind, weight, lambda sr, hr, _: losses.frequency_loss(sr, hr))
            case WaveletLossConfig(levels=levels, bands=bands):
                return AdditionalLoss(
                    kind, weight, lambda sr, hr, _: losses.wavelet_loss(sr, hr, levels=levels, bands=bands)
                )
            case _:
                assert_never(section)

    return [build(section) for section in config.loss.additional if section.weight]


def _learned_distance(section: LearnedLossConfig, *, config: Config, runtime: Runtime) -> losses.Distance:
    network = build_learned_distance(section, recompute=config.train.recompute in ("perceptual", "both"))
    network.compute_in(runtime.dtype)
    runtime.place(network)
    runtime.compile(network)

    def distance(sr: Tensor, hr: Tensor, lr: Tensor) -> Tensor:  # noqa: ARG001 - as the others
        with runtime.autocast():
            each: Tensor = network(sr, hr)
        return each.mean()

    return distance


def build_adversarial_settings(config: AdversarialLossConfig, *, device: torch.device) -> AdversarialSettings:
    """Build the settings of the adversarial loss."""
    tables = noise_tables(device) if config.instance_noise else None

    def noise(images: Tensor, keys: Tensor, std: float) -> Tensor:
        assert tables
        levels = torch.full((len(images),), 255 * std, device=images.device)
        grey = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        return add_gaussian(images, tables, keys=keys, sigma=levels, grey=grey)

    return AdversarialSettings(
        kind=config.kind,
        weight=config.weight,
        label_smoothing=config.label_smoothing,
        noise=noise if tables else None,
        r1_weight=config.r1_weight,
        r1_every=config.r1_every,
    )


def build_perceptual_network(config: Config, *, runtime: Runtime) -> FeatureNetwork | None:
    """Build the frozen feature network on its device, in the precision it computes in; None if it is not used."""
    if not config.has_perceptual_network:
        return None
    network = build_features(config.loss.perceptual, recompute=config.train.recompute in ("perceptual", "both"))
    network.compute_in(runtime.dtype)
    runtime.place(network)
    return network


def in_autocast(forward: Callable[[Tensor], Sequence[Tensor]], *, runtime: Runtime) -> Features:
    """Wrap a network that Accelerate has not prepared, so that it runs in the run's mixed precision."""

    def features(images: Tensor) -> Sequence[Tensor]:
        with runtime.autocast():
            return forward(images)

    return features
