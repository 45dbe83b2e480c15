"""What is minimised: the terms of the generator's and the discriminator's loss, weighted and named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from srgan_dist import losses

Features = Callable[[Tensor], Sequence[Tensor]]
Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Objective:
    """The losses of one run.

    Attributes:
        pixel: Kind of the pixel loss.
        pixel_weight: Its weight in the adversarial phase.
        adversarial: Kind of the adversarial loss.
        adversarial_weight: Its weight in the generator's loss.
        label_smoothing: Real images are labelled 1 minus this.
        features: Frozen feature network, or None for no perceptual loss.
        perceptual: Distance between features.
        perceptual_weight: Its weight in the adversarial phase.
    """

    pixel: losses.PixelKind
    pixel_weight: float
    adversarial: losses.AdversarialKind
    adversarial_weight: float
    label_smoothing: float
    features: Features | None
    perceptual: losses.Criterion
    perceptual_weight: float

    def pretraining(self, sr: Tensor, hr: Tensor) -> Terms:
        """Loss of the generator before the adversarial phase.

        Args:
            sr: [N, 3, H, W], generated.
            hr: Like ``sr``, in [0, 1].

        Returns:
            The pixel loss, with weight 1.
        """
        return {"g/pixel": losses.pixel_loss(self.pixel, sr, hr)}

    def generator(self, sr: Tensor, hr: Tensor, discriminator: Callable[[Tensor], Tensor]) -> Terms:
        """Loss of the generator in the adversarial phase.

        Args:
            sr: [N, 3, H, W], generated.
            hr: Like ``sr``, in [0, 1].
            discriminator: Maps images to logits; its parameters must not require gradients.

        Returns:
            Weighted scalar terms by logged name; their sum is the loss.

        Source:
            Ledig et al. 2017, eq. 3; Wang et al. 2018, eq. 3.
        """
        terms: Terms = {}
        if self.pixel_weight:
            terms["g/pixel"] = self.pixel_weight * losses.pixel_loss(self.pixel, sr, hr)
        if self.features and self.perceptual_weight:
            with torch.no_grad():  # the target needs no graph
                target = self.features(hr)
            distance = losses.perceptual_loss(self.perceptual, self.features(sr), target)
            terms["g/perceptual"] = self.perceptual_weight * distance
        if self.adversarial_weight:
            real = None
            if losses.uses_real_logits(self.adversarial):
                with torch.no_grad():
                    real = discriminator(hr)
            loss = losses.adversarial_generator_loss(self.adversarial, discriminator(sr), real)
            terms["g/adversarial"] = self.adversarial_weight * loss
        return terms

    def discriminator(self, hr: Tensor, sr: Tensor, discriminator: Callable[[Tensor], Tensor]) -> Terms:
        """Loss of the discriminator.

        Args:
            hr: [N, 3, H, W], real, in [0, 1].
            sr: Like ``hr``, generated and detached.
            discriminator: Maps images to logits.

        Returns:
            ``d/loss``, the sum of the real and the fake part, and the mean scores, which carry no gradient.

        Source:
            Goodfellow et al. 2014, eq. 1.
        """
        real_logits, fake_logits = discriminator(hr), discriminator(sr)
        real, fake = losses.adversarial_discriminator_loss(
            self.adversarial, real_logits, fake_logits, label_smoothing=self.label_smoothing
        )
        return {
            "d/loss": real + fake,
            "d/real_score": real_logits.detach().float().sigmoid().mean(),
            "d/fake_score": fake_logits.detach().float().sigmoid().mean(),
        }
