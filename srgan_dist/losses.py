"""Losses: pure functions of tensors, each with its equation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import assert_never  # torch depends on it; typing has it only from Python 3.11

PixelKind = Literal["mse", "l1", "charbonnier"]
Criterion = Literal["mse", "l1"]
AdversarialKind = Literal["vanilla", "relativistic", "lsgan", "hinge"]

CHARBONNIER_EPSILON = 1e-3  # Lai et al. 2017 (LapSRN), for images in [0, 1]


def _full(tensor: Tensor) -> Tensor:
    """At least float32: sums of thousands of bfloat16 values would lose most of their digits."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def pixel_loss(kind: PixelKind, sr: Tensor, hr: Tensor) -> Tensor:
    """Measure how far generated pixels are from the true ones.

    Args:
        kind: "mse", "l1", or "charbonnier" (l1 that is smooth near 0).
        sr: [N, C, H, W], generated.
        hr: same shape, true.

    Returns:
        Scalar, at least float32: the mean over all elements.

    Source: Ledig et al. 2017, eq. 4 (mse); Lai et al. 2017, LapSRN (charbonnier).
    """
    sr, hr = _full(sr), _full(hr)
    if kind == "mse":
        return F.mse_loss(sr, hr)
    if kind == "l1":
        return F.l1_loss(sr, hr)
    if kind == "charbonnier":
        return torch.sqrt((sr - hr).square() + CHARBONNIER_EPSILON**2).mean()
    assert_never(kind)


def perceptual_loss(criterion: Criterion, sr_features: Sequence[Tensor], hr_features: Sequence[Tensor]) -> Tensor:
    """Measure how far feature maps of generated images are from those of the true ones.

    Args:
        criterion: "mse" (the paper) or "l1".
        sr_features: feature maps of the generated images, [N, C, H, W] each.
        hr_features: feature maps of the true images, same shapes.

    Returns:
        Scalar, at least float32: the mean over layers of the mean over elements.

    Source: Ledig et al. 2017, eq. 5; "l1" is what ESRGAN's and BasicSR's recipes use.
    """
    distances = [pixel_loss(criterion, sr, hr) for sr, hr in zip(sr_features, hr_features, strict=True)]
    return torch.stack(distances).mean()


def perceptual_distance(sr_features: Sequence[Tensor], hr_features: Sequence[Tensor]) -> Tensor:
    """Measure the perceptual distance of each image pair, as LPIPS does with all its heads equal to 1.

    Args:
        sr_features: feature maps of the generated images, [N, C, H, W] each.
        hr_features: feature maps of the true images, same shapes.

    Returns:
        [N], at least float32, from 0 (same features) to 4 (opposite everywhere): channels scaled to unit length at
        every place, squared difference summed over channels, mean over places, mean over layers.

    Source: Zhang et al. 2018, eq. 1 with w = 1 (a mean over layers where the equation has a sum).
    """
    distances = []
    for sr, hr in zip(sr_features, hr_features, strict=True):
        difference = F.normalize(_full(sr), dim=1) - F.normalize(_full(hr), dim=1)
        distances.append(difference.square().sum(dim=1).mean(dim=(1, 2)))
    return torch.stack(distances).mean(dim=0)


def uses_real_logits(kind: AdversarialKind) -> bool:
    """Tell whether the generator's loss of this kind needs the logits of real images.

    Args:
        kind: the adversarial loss.

    Returns:
        True for "relativistic" only.
    """
    return kind == "relativistic"


def _bce(logits: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def adversarial_generator_loss(kind: AdversarialKind, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """Reward the generator for images that the discriminator takes for real.

    Args:
        kind: "vanilla" (non-saturating), "relativistic" (average), "lsgan" or "hinge".
        fake_logits: logits of generated images, any shape with the batch first.
        real_logits: logits of real images, needed by "relativistic" (see `uses_real_logits`) and ignored
            by the others. Its means are those of the tensors given: with several micro-batches or ranks,
            pass the micro-batch's own and know that it is an estimate, as BatchNorm's statistics are.

    Returns:
        Scalar, at least float32.

    Raises:
        ValueError: "relativistic" without real_logits.

    Source: Goodfellow et al. 2014, section 3 (-log D(G(z))), as Ledig et al. 2017, eq. 6; Jolicoeur-Martineau
        2018 as Wang et al. 2018 (ESRGAN), eq. 2 (the sum of both terms, not halved); Mao et al. 2017, eq. 9;
        Miyato et al. 2018, eq. 17.
    """
    fake = _full(fake_logits)
    if kind == "vanilla":
        return _bce(fake, 1.0)
    if kind == "relativistic":
        if real_logits is None:
            raise ValueError("adversarial_generator_loss: kind 'relativistic' needs real_logits, got None")
        real = _full(real_logits)
        return _bce(real - fake.mean(), 0.0) + _bce(fake - real.mean(), 1.0)
    if kind == "lsgan":
        return 0.5 * (fake - 1.0).square().mean()
    if kind == "hinge":
        return -fake.mean()
    assert_never(kind)


def adversarial_discriminator_loss(
    kind: AdversarialKind, real_logits: Tensor, fake_logits: Tensor, *, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Reward the discriminator for telling real images from generated ones.

    Args:
        kind: "vanilla", "relativistic" (average), "lsgan" or "hinge".
        real_logits: logits of real images, any shape with the batch first.
        fake_logits: logits of generated images, same shape.
        label_smoothing: in [0, 1), taken off the label 1 of real images (never added to the 0 of generated
            ones); "hinge" has margins in place of labels and ignores it.

    Returns:
        The half on real images and the half on generated ones, scalars, at least float32; the loss is their sum.
        Except for "relativistic", each half depends on its own logits only and can be differentiated alone.

    Source: Goodfellow et al. 2014, eq. 1; Jolicoeur-Martineau 2018 as Wang et al. 2018 (ESRGAN), eq. 1 (not
        halved); Mao et al. 2017, eq. 9; Miyato et al. 2018, eq. 16; smoothing: Salimans et al. 2016.
    """
    real, fake = _full(real_logits), _full(fake_logits)
    label = 1.0 - label_smoothing
    if kind == "vanilla":
        return _bce(real, label), _bce(fake, 0.0)
    if kind == "relativistic":
        return _bce(real - fake.mean(), label), _bce(fake - real.mean(), 0.0)
    if kind == "lsgan":
        return 0.5 * (real - label).square().mean(), 0.5 * fake.square().mean()
    if kind == "hinge":
        return F.relu(1.0 - real).mean(), F.relu(1.0 + fake).mean()
    assert_never(kind)
