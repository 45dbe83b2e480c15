"""From the configuration to what is minimised."""

from __future__ import annotations

import torch
from torch import Tensor

from srgan_dist.config.root import AdversarialLossConfig, LossConfig
from srgan_dist.degradations.noise import add_gaussian, noise_tables
from srgan_dist.losses.content import Features, Objective
from srgan_dist.training.adversarial import Rules


def build_objective(config: LossConfig, features: Features | None) -> Objective:
    """What generated images are compared with."""
    return Objective(
        pixel=config.pixel.kind,
        pixel_weight=config.pixel.weight,
        features=features,
        perceptual=config.perceptual.criterion,
        perceptual_weight=config.perceptual.weight,
    )


def build_rules(config: AdversarialLossConfig, *, device: torch.device) -> Rules:
    """The adversarial loss."""
    tables = noise_tables(device) if config.instance_noise else None

    def noise(images: Tensor, keys: Tensor, std: float) -> Tensor:
        assert tables
        levels = torch.full((len(images),), 255 * std, device=images.device)
        grey = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        return add_gaussian(images, tables, keys=keys, sigma=levels, grey=grey)

    return Rules(
        kind=config.kind,
        weight=config.weight,
        label_smoothing=config.label_smoothing,
        noise=noise if tables else None,
        r1_weight=config.r1_weight,
        r1_every=config.r1_every,
    )
