"""What is measured of one SR image beside its HR image, besides PSNR and SSIM."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product

import torch
from torch import Tensor

from srgan_dist.evaluation.grid import grid_ratio
from srgan_dist.evaluation.metrics import psnr_ssim_y
from srgan_dist.losses.content import Features
from srgan_dist.losses.functional import perceptual_distance

ImageMeasure = Callable[[Tensor, Tensor], float | None]
"""From SR and HR, uint8 [1, 3, H, W] on the same device, to a number; None where such an image has none."""
Distance = Callable[[Tensor, Tensor], Tensor]
"""From SR and HR, [N, 3, H, W] in [0, 1], to [N]."""

_LARGEST = 1280  # pixels a side: the common test sets are measured whole, and 4 GB suffice for any photograph


def measure_image(
    sr: Tensor, hr: Tensor, *, scale: int, measures: Mapping[str, ImageMeasure]
) -> dict[str, float | None]:
    """Measure the quality of one image.

    Args:
        sr: uint8 [1, 3, H, W].
        hr: Like ``sr``.
        scale: Number of border pixels that PSNR and SSIM ignore.
        measures: What is measured besides, by name.

    Returns:
        ``psnr_y`` in dB, infinite for equal images; ``ssim_y``; and the measures.
    """
    psnr, ssim = psnr_ssim_y(sr, hr, border=scale)
    with torch.no_grad():
        return {"psnr_y": psnr, "ssim_y": ssim, **{name: measure(sr, hr) for name, measure in measures.items()}}


def grid_measure(scale: int) -> ImageMeasure:
    """`grid_ratio`, for images of this scale."""
    return partial(grid_ratio, scale=scale)


def perceptual_measure(features: Features) -> ImageMeasure:
    """The distance between the features of a frozen network."""

    def measure(sr: Tensor, hr: Tensor) -> float:
        return perceptual_distance(features(sr.float() / 255), features(hr.float() / 255)).item()

    return measure


def network_measure(distance: Distance) -> ImageMeasure:
    """LPIPS or DISTS. Of an image of more than 1280 pixels a side, the mean over tiles, by their pixels."""

    def measure(sr: Tensor, hr: Tensor) -> float:
        height, width = hr.shape[-2:]
        total = 0.0
        for rows, columns in product(_parts(height), _parts(width)):
            ours, theirs = (image[..., rows, columns].float() / 255 for image in (sr, hr))
            total += distance(ours, theirs).item() * ours[0, 0].numel()
        return total / (height * width)

    return measure


def _parts(length: int) -> list[slice]:
    """As few parts of a side as are small enough, of about the same size."""
    count = math.ceil(length / _LARGEST)
    return [slice(length * part // count, length * (part + 1) // count) for part in range(count)]
