"""Further terms of the generator's loss in the adversarial phase: the losses, and the list of those that a run has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from srgan_dist.losses.content import Terms
from srgan_dist.losses.functional import full

LDL_WINDOW = 7  # pixels; Liang et al. 2022, section 3.2
LDL_EXPONENT = 1 / 5  # there, too: of the whole residual's variance

Distance = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From SR, HR and LR images to a scalar, the mean over the images of what each has by itself."""


@dataclass(frozen=True)
class AdditionalLoss:
    """One of the list.

    Attributes:
        kind: Its name, in the configuration and behind ``g/`` in the logs.
        weight: Its weight in the generator's loss.
        distance: What is minimised.
        uses_average: Whether it computes the moving average's SR images.
    """

    kind: str
    weight: float
    distance: Distance
    uses_average: bool = False


def additional_terms(
    losses: Sequence[AdditionalLoss], sr: Tensor, hr: Tensor, lr: Tensor, *, factors: Mapping[str, float]
) -> Terms:
    """Compute the additional terms of one micro-batch.

    Args:
        losses: Those of the run.
        sr: [N, 3, H, W], generated.
        hr: Like ``sr``, in [0, 1].
        lr: [N, 3, H / scale, W / scale], of which ``sr`` was generated.
        factors: On the weight of each kind at this step; 1 where there is none. At 0 nothing is computed.

    Returns:
        Weighted scalars by logged name; the mean over equal micro-batches is the batch's.
    """
    terms: Terms = {}
    for loss in losses:
        weight = loss.weight * factors.get(loss.kind, 1.0)
        terms[f"g/{loss.kind}"] = weight * loss.distance(sr, hr, lr) if weight else full(sr).new_zeros(())
    return terms


def frequency_loss(sr: Tensor, hr: Tensor) -> Tensor:
    """Compute the distance between the Fourier transforms of generated and true images.

    Not the focal frequency loss (Jiang et al. 2021): squared distances, weighted once more by the distance, follow the
    frequencies that differ most, and these are not the highest. Between bicubically upscaled crops of Set14 (x4) and
    HR, 79 % of the energy of its gradient lies above LR's Nyquist frequency, less than of an L1 pixel loss's (82 %).
    Here every frequency pulls alike: 94 %, which is that part's share of all frequencies.

    Args:
        sr: [N, C, H, W], generated.
        hr: Same shape, true.

    Returns:
        Scalar, at least float32: the mean absolute difference of real and imaginary parts. The transform is
        orthonormal, so that it is of the size of an L1 pixel loss.

    Source:
        Cho et al. 2021 (MIMO-UNet), eq. 5.
    """
    spectrum = torch.fft.fft2(full(sr) - full(hr), norm="ortho")  # linear: the difference of the transforms
    return torch.view_as_real(spectrum).abs().mean()


def wavelet_loss(sr: Tensor, hr: Tensor, *, levels: int, bands: Sequence[float]) -> Tensor:
    """Compute the distance between the bands of the stationary Haar transforms of generated and true images.

    Nothing is subsampled, so that a shift of the image is no other loss, and nothing is padded: a coefficient whose
    pixels would reach over the border is left out. The filters (1, 1) / 2 and (1, -1) / 2 keep the energy of an image.

    Args:
        sr: [N, C, H, W], generated; sides of 2 ** levels or more.
        hr: Same shape, true.
        levels: Number of levels; each looks at twice as many pixels as the one before it.
        bands: Weights of the low band, which only the last level has, and of each level's horizontal, vertical and
            diagonal detail. Horizontal: edges that run from left to right.

    Returns:
        Scalar, at least float32: the weighted sum over the bands of the mean absolute difference.

    Source:
        Korkmaz et al. 2024 (WGSR), section 3.1, with a longer wavelet there; Nason & Silverman 1995 (the transform).
    """
    low = full(sr) - full(hr)  # linear: the difference of the transforms
    of_low, *of_details = bands
    total = low.new_zeros(())
    for level in range(levels):
        low, *details = _haar(low, distance=2**level)
        total = total + sum(weight * band.abs().mean() for weight, band in zip(of_details, details, strict=True))
    return total + of_low * low.abs().mean()


def _haar(images: Tensor, *, distance: int) -> list[Tensor]:
    """One level of the transform between pixels at a distance: low, horizontal, vertical and diagonal."""
    first, second = images[..., :-distance, :], images[..., distance:, :]
    bands = []
    for across in ((first + second) / 2, (first - second) / 2):
        left, right = across[..., :-distance], across[..., distance:]
        bands += [(left + right) / 2, (left - right) / 2]
    low, vertical, horizontal, diagonal = bands
    return [low, horizontal, vertical, diagonal]


def ldl_loss(sr: Tensor, hr: Tensor, average: Tensor) -> Tensor:
    """Compute the locally discriminative loss: L1 where generated pixels are likely artefacts.

    Args:
        sr: [N, C, H, W], generated; sides of 4 or more.
        hr: Same shape, true.
        average: Same shape, generated of the same LR images by the moving average of the generator.

    Returns:
        Scalar, at least float32: the mean over pixels and channels of the absolute difference times `artefact_map`,
        through which no gradient flows.

    Source:
        Liang et al. 2022 (LDL), eq. 7.
    """
    return (artefact_map(sr, hr, average) * (full(sr) - full(hr)).abs()).mean()


@torch.no_grad()
def artefact_map(sr: Tensor, hr: Tensor, average: Tensor) -> Tensor:
    """Estimate how likely each pixel is an artefact of the GAN.

    Args:
        sr: [N, C, H, W], generated; sides of 4 or more.
        hr: Same shape, true.
        average: Same shape, generated by the moving average.

    Returns:
        [N, 1, H, W], at least float32, from 0: the local variance of the residual (its absolute values, summed over the
        channels), times a power of the whole image's; 0 where ``sr`` is nearer to ``hr`` than ``average`` is.

    Source:
        Liang et al. 2022 (LDL), eqs. 3 to 6.
    """
    residual, of_average = ((full(hr) - full(image)).abs().sum(dim=1, keepdim=True) for image in (sr, average))
    padded = F.pad(residual, [LDL_WINDOW // 2] * 4, mode="reflect")
    local = padded.unfold(2, LDL_WINDOW, 1).unfold(3, LDL_WINDOW, 1).var(dim=(-1, -2))
    whole = residual.var(dim=(1, 2, 3), keepdim=True) ** LDL_EXPONENT
    return (whole * local).where(residual >= of_average, 0.0)
