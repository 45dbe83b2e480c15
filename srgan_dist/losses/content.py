"""The losses that compare generated images with their targets: pixels and features, weighted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from srgan_dist.losses import functional as losses

Features = Callable[[Tensor], Sequence[Tensor]]
Terms = dict[str, Tensor]


@dataclass(frozen=True)
class ContentLoss:
    """The pixel and perceptual loss of a run.

    Attributes:
        pixel: Kind of the pixel loss.
        pixel_weight: Weight of the pixel loss in the adversarial phase.
        features: Frozen feature network, or None for no perceptual loss.
        perceptual: Kind of the distance between features.
        perceptual_weight: Weight of the perceptual loss in the adversarial phase.
        layer_weights: Of the feature maps, in their order; None for their mean.
    """

    pixel: losses.PixelKind
    pixel_weight: float
    features: Features | None
    perceptual: losses.Criterion
    perceptual_weight: float
    layer_weights: Sequence[float] | None = None

    def pretraining(self, sr: Tensor, hr: Tensor) -> Terms:
        """The generator's loss in pretraining.

        Args:
            sr: [N, 3, H, W], generated.
            hr: Like ``sr``, in [0, 1].

        Returns:
            The pixel loss, with weight 1.
        """
        return {"g/pixel": losses.pixel_loss(self.pixel, sr, hr)}

    def __call__(self, sr: Tensor, hr: Tensor) -> Terms:
        """The generator's loss in the adversarial phase, without the adversarial term.

        Args:
            sr: [N, 3, H, W], generated.
            hr: Like ``sr``, in [0, 1].

        Returns:
            Weighted scalar terms by logged name.

        Source:
            Ledig et al. 2017, eq. 3; Wang et al. 2018, eq. 3.
        """
        terms: Terms = {}
        if self.pixel_weight:
            terms["g/pixel"] = self.pixel_weight * losses.pixel_loss(self.pixel, sr, hr)
        if self.features and self.perceptual_weight:
            with torch.no_grad():  # the target needs no graph
                target = self.features(hr)
            features = self.features(sr)
            distance = losses.perceptual_loss(self.perceptual, features, target, weights=self.layer_weights)
            terms["g/perceptual"] = self.perceptual_weight * distance
        return terms
