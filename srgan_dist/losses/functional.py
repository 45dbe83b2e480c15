"""Losses: pure functions of tensors, each with its equation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import assert_never  # torch depends on it; typing has it only from Python 3.11

PixelKind = Literal["mse", "l1", "charbonnier"]
Criterion = Literal["mse", "l1"]
AdversarialKind = Literal["vanilla", "relativistic", "lsgan", "hinge"]

CHARBONNIER_EPSILON = 1e-3  # Lai et al. 2017 (LapSRN), for images in [0, 1]


def full(tensor: Tensor) -> Tensor:
    """Convert to at least float32: sums of thousands of bfloat16 values would lose most of their digits."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def pixel_loss(kind: PixelKind, sr: Tensor, hr: Tensor) -> Tensor:
    """Compute the distance between generated and true pixels.

    Args:
        kind: "mse", "l1", or "charbonnier" (L1 that is smooth near 0).
        sr: [N, C, H, W], generated.
        hr: Same shape, true.

    Returns:
        Scalar, at least float32: the mean over all elements.

    Source:
        Ledig et al. 2017, eq. 4 (mse); Lai et al. 2017, LapSRN (charbonnier).
    """
    sr, hr = full(sr), full(hr)
    if kind == "mse":
        return F.mse_loss(sr, hr)
    if kind == "l1":
        return F.l1_loss(sr, hr)
    if kind == "charbonnier":
        return torch.sqrt((sr - hr).square() + CHARBONNIER_EPSILON**2).mean()
    assert_never(kind)


def perceptual_loss(
    criterion: Criterion,
    sr_features: Sequence[Tensor],
    hr_features: Sequence[Tensor],
    *,
    weights: Sequence[float] | None = None,
) -> Tensor:
    """Compute the distance between the feature maps of generated and of true images.

    Args:
        criterion: "mse" (the paper) or "l1".
        sr_features: Feature maps of the generated images, [N, C, H, W] each.
        hr_features: Feature maps of the true images, same shapes.
        weights: Of each layer; None for a mean over layers.

    Returns:
        Scalar, at least float32: the weighted sum over layers, or the mean, of the mean over elements.

    Source:
        Ledig et al. 2017, eq. 5; "l1" is what ESRGAN's and BasicSR's recipes use; Johnson et al. 2016 and Wang et al.
        2021 (Real-ESRGAN) sum over layers.
    """
    distances = [pixel_loss(criterion, sr, hr) for sr, hr in zip(sr_features, hr_features, strict=True)]
    if weights is None:
        return torch.stack(distances).mean()
    return torch.stack([weight * distance for weight, distance in zip(weights, distances, strict=True)]).sum()


def perceptual_distance(sr_features: Sequence[Tensor], hr_features: Sequence[Tensor]) -> Tensor:
    """Compute the perceptual distance of each image pair: LPIPS with all its heads equal to 1.

    Args:
        sr_features: Feature maps of the generated images, [N, C, H, W] each.
        hr_features: Feature maps of the true images, same shapes.

    Returns:
        [N], at least float32, from 0 (same features) to 4 (opposite everywhere): channels normalised to unit length at
        each position, squared difference summed over channels, mean over positions, mean over layers.

    Source:
        Zhang et al. 2018, eq. 1 with w = 1 (a mean over layers where the equation has a sum).
    """
    distances = []
    for sr, hr in zip(sr_features, hr_features, strict=True):
        difference = F.normalize(full(sr), dim=1) - F.normalize(full(hr), dim=1)
        distances.append(difference.square().sum(dim=1).mean(dim=(1, 2)))
    return torch.stack(distances).mean(dim=0)


Average = Callable[[Tensor], Tensor]


def compares_images(kind: AdversarialKind) -> bool:
    """Whether a loss of this kind compares each image with the mean of all others.

    Args:
        kind: Kind of the adversarial loss.

    Returns:
        True for "relativistic" only; the other kinds are sums of terms of single images.
    """
    return kind == "relativistic"


def _bce(logits: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def adversarial_generator_loss(
    kind: AdversarialKind, fake_logits: Tensor, real_logits: Tensor | None = None, *, average: Average = torch.mean
) -> Tensor:
    """The generator's loss, small if the discriminator takes generated images for real.

    Args:
        kind: "vanilla" (non-saturating), "relativistic" (average), "lsgan" or "hinge".
        fake_logits: Logits of generated images, any shape with the batch first.
        real_logits: Logits of real images, needed by "relativistic" (see `compares_images`) and ignored
            by the others.
        average: Computes the mean over all logits for "relativistic"; by default that of the given tensor.

    Returns:
        Scalar, at least float32.

    Raises:
        ValueError: "relativistic" without real_logits.

    Source:
        Goodfellow et al. 2014, section 3 (-log D(G(z))), as Ledig et al. 2017, eq. 6; Jolicoeur-Martineau 2018 as Wang
        et al. 2018 (ESRGAN), eq. 2 (the sum of both terms, not halved); Mao et al. 2017, eq. 9; Miyato et al. 2018, eq.
        17.
    """
    fake = full(fake_logits)
    if kind == "vanilla":
        return _bce(fake, 1.0)
    if kind == "relativistic":
        if real_logits is None:
            raise ValueError("adversarial_generator_loss: kind 'relativistic' needs real_logits, got None")
        real = full(real_logits)
        return _bce(real - average(fake), 0.0) + _bce(fake - average(real), 1.0)
    if kind == "lsgan":
        return 0.5 * (fake - 1.0).square().mean()
    if kind == "hinge":
        return -fake.mean()
    assert_never(kind)


def adversarial_discriminator_loss(
    kind: AdversarialKind,
    real_logits: Tensor,
    fake_logits: Tensor,
    *,
    label_smoothing: float = 0.0,
    average: Average = torch.mean,
) -> tuple[Tensor, Tensor]:
    """The discriminator's loss, small if it distinguishes real from generated images.

    Args:
        kind: "vanilla", "relativistic" (average), "lsgan" or "hinge".
        real_logits: Logits of real images, any shape with the batch first.
        fake_logits: Logits of generated images, same shape.
        label_smoothing: See `real_or_fake_loss`.
        average: Computes the mean over all logits for "relativistic"; by default that of the given tensor.

    Returns:
        The term of the real images and that of the generated ones, scalars, at least float32; the loss is their sum.

    Source:
        `real_or_fake_loss`; Jolicoeur-Martineau 2018 as Wang et al. 2018 (ESRGAN), eq. 1 (not halved).
    """
    real, fake = full(real_logits), full(fake_logits)
    if compares_images(kind):
        real, fake = real - average(fake), fake - average(real)
    return (
        real_or_fake_loss(kind, real, is_real=True, label_smoothing=label_smoothing),
        real_or_fake_loss(kind, fake, is_real=False),
    )


def real_or_fake_loss(kind: AdversarialKind, logits: Tensor, *, is_real: bool, label_smoothing: float = 0.0) -> Tensor:
    """The discriminator's loss on images that are all real or all generated.

    Args:
        kind: "vanilla", "lsgan" or "hinge"; "relativistic" is "vanilla" on logits minus the mean of the others' logits.
        logits: Any shape with the batch first.
        is_real: Whether the images are real; otherwise they are generated.
        label_smoothing: In [0, 1), subtracted from the label 1 of real images (never added to the label 0 of generated
            ones); "hinge" has margins in place of labels and ignores it.

    Returns:
        Scalar, at least float32.

    Source:
        Goodfellow et al. 2014, eq. 1; Mao et al. 2017, eq. 9; Miyato et al. 2018, eq. 16; smoothing: Salimans et al.
        2016.
    """
    logits, label = full(logits), 1.0 - label_smoothing if is_real else 0.0
    if kind == "vanilla" or kind == "relativistic":
        return _bce(logits, label)
    if kind == "lsgan":
        return 0.5 * (logits - label).square().mean()
    if kind == "hinge":
        return F.relu(1.0 - logits if is_real else 1.0 + logits).mean()
    assert_never(kind)
