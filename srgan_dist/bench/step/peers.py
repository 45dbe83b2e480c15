"""The training steps of BasicSR and of a typical notebook, on the same networks as ours.

Written from what they compute: NCHW in fp32, unfused Adam, every loss read from the device in every step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from srgan_dist.config.losses import LossConfig
from srgan_dist.losses import functional as losses


@dataclass(frozen=True)
class Networks:
    """The networks of a step, and its losses.

    Attributes:
        generator: Maps LR to SR.
        discriminator: Maps images to logits.
        features: Frozen feature network, or None for no perceptual loss.
        average: Another generator, for the moving average.
        loss: Kinds and weights; the adversarial loss is always the non-saturating one.
    """

    generator: nn.Module
    discriminator: nn.Module
    features: nn.Module | None
    average: nn.Module
    loss: LossConfig

    def pixel(self, sr: Tensor, hr: Tensor) -> Tensor:
        """The weighted pixel loss."""
        return self.loss.pixel.weight * losses.pixel_loss(self.loss.pixel.kind, sr, hr)

    def perceptual(self, sr: Tensor, hr: Tensor) -> Tensor:
        """The weighted perceptual loss, with a graph through those of the two images that require gradients."""
        if self.features is None:
            return sr.new_zeros(())
        loss = self.loss.perceptual
        sr_features, hr_features = self.features(sr), self.features(hr)
        return loss.weight * losses.perceptual_loss(
            loss.criterion, sr_features, hr_features, weights=loss.layer_weights
        )

    def fooling(self, sr: Tensor) -> Tensor:
        """The generator's weighted adversarial loss."""
        return self.loss.adversarial.weight * _bce(self.discriminator(sr), 1.0)


class BasicSRStep:
    """BasicSR's SRGANModel: D is frozen in G's update, D's two losses are computed in turn, the EMA in a loop.

    Args:
        networks: The networks, on their device.
        learning_rate: Learning rate of both optimizers.

    Source:
        BasicSR's srgan_model.py, optimize_parameters.
    """

    def __init__(self, networks: Networks, *, learning_rate: float = 1e-4) -> None:
        self.networks = networks
        networks.generator.train()
        networks.discriminator.train()
        networks.average.load_state_dict(networks.generator.state_dict())
        networks.average.eval()
        self.for_generator = Adam(networks.generator.parameters(), lr=learning_rate, betas=(0.9, 0.99))
        self.for_discriminator = Adam(networks.discriminator.parameters(), lr=learning_rate, betas=(0.9, 0.99))

    def cycle(self, lr: Tensor, hr: Tensor) -> list[float]:
        """Update each network once. Returns the losses."""
        return [loss.mean().item() for loss in self.update(lr, hr)]

    def update(self, lr: Tensor, hr: Tensor) -> list[Tensor]:
        """Update each network once, without reading the losses."""
        networks, discriminator = self.networks, self.networks.discriminator
        discriminator.requires_grad_(False)
        self.for_generator.zero_grad()
        sr = networks.generator(lr)
        pixel, perceptual, fooling = networks.pixel(sr, hr), networks.perceptual(sr, hr), networks.fooling(sr)
        _backward(pixel + perceptual + fooling)
        self.for_generator.step()
        discriminator.requires_grad_(True)
        self.for_discriminator.zero_grad()
        real = discriminator(hr)
        real_loss = _bce(real, 1.0)
        _backward(real_loss)
        fake = discriminator(sr.detach())
        fake_loss = _bce(fake, 0.0)
        _backward(fake_loss)
        self.for_discriminator.step()
        learnt = dict(networks.generator.named_parameters())
        with torch.no_grad():
            for name, parameter in networks.average.named_parameters():
                parameter.mul_(0.999).add_(learnt[name], alpha=0.001)
        return [pixel, perceptual, fooling, real_loss, fake_loss, real.detach(), fake.detach()]


class NotebookStep:
    """The step of a typical notebook: correct, but it computes many things several times.

    The generator runs three times in each of its updates, once for each loss; its update computes gradients of the
    discriminator's weights, which are then discarded; the features of the targets have a graph; and anomaly detection
    is left on.

    Args:
        networks: The networks, on their device.
        g_per_d: Generator updates for each discriminator update.
        learning_rate: Learning rate of both optimizers.
        detects_anomalies: Whether anomaly detection is on, as in the notebook.
    """

    def __init__(
        self, networks: Networks, *, g_per_d: int = 1, learning_rate: float = 1e-4, detects_anomalies: bool = True
    ) -> None:
        self.networks, self.g_per_d, self.detects_anomalies = networks, g_per_d, detects_anomalies
        networks.generator.train()
        networks.discriminator.train()
        self.for_generator = Adam(networks.generator.parameters(), lr=learning_rate)
        self.for_discriminator = Adam(networks.discriminator.parameters(), lr=learning_rate)

    def cycle(self, lr: Tensor, hr: Tensor) -> list[float]:
        """Update the generator ``g_per_d`` times and the discriminator once. Returns the losses."""
        read: list[float] = []
        with torch.autograd.set_detect_anomaly(self.detects_anomalies):
            for _ in range(self.g_per_d):
                losses_of_generator, sr = self.update_generator(lr, hr)
                read += [loss.item() for loss in losses_of_generator]
            read += [loss.item() for loss in self.update_discriminator(hr, sr)]
        return read

    def update(self, lr: Tensor, hr: Tensor) -> list[Tensor]:
        """Update each network once, without reading the losses."""
        losses_of_generator, sr = self.update_generator(lr, hr)
        return [*losses_of_generator, *self.update_discriminator(hr, sr)]

    def update_generator(self, lr: Tensor, hr: Tensor) -> tuple[list[Tensor], Tensor]:
        """Update the generator once. Returns the losses and the generated images."""
        networks = self.networks
        self.for_generator.zero_grad()
        target = hr.detach().requires_grad_()
        fooling = networks.fooling(networks.generator(lr))
        perceptual = networks.perceptual(networks.generator(lr), target)
        sr = networks.generator(lr)
        pixel = networks.pixel(sr, hr)
        _backward(fooling + perceptual + pixel)
        self.for_generator.step()
        return [fooling, perceptual, pixel], sr.detach()

    def update_discriminator(self, hr: Tensor, sr: Tensor) -> list[Tensor]:
        """Update the discriminator once. Returns the loss."""
        self.for_discriminator.zero_grad()
        loss = _bce(self.networks.discriminator(hr), 1.0) + _bce(self.networks.discriminator(sr), 0.0)
        _backward(loss)
        self.for_discriminator.step()
        return [loss]


def _bce(logits: Tensor, label: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def _backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]
