"""Colour under transparent pixels: it is arbitrary, and a network would let it bleed into what is seen."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from srgan_dist.imaging.picture import Samples

_BAND = 512  # rows at a time at full resolution; even

Colours = NDArray[np.float32]


def fill_transparent(pixels: Samples, alpha: Samples) -> Samples:
    """Continue the colours that are seen smoothly under the pixels that are not.

    Args:
        pixels: uint8 or uint16 [H, W, C], straight.
        alpha: [H, W] of the same type.

    Returns:
        [H, W, C] of the same type: unchanged where alpha is above 0, or where it is 0 everywhere.

    Source:
        Gortler et al., "The Lumigraph", 1996, section 3.3: pull-push.
    """
    if alpha.all() or not alpha.any():
        return pixels
    height, width = alpha.shape
    bands = [slice(top, min(top + _BAND, height)) for top in range(0, height, _BAND)]
    full = float(np.iinfo(alpha.dtype).max)
    halves = [
        _halved(pixels[band].astype(np.float32), alpha[band][..., None].astype(np.float32) / full) for band in bands
    ]
    coarse = _filled(*(np.concatenate(part) for part in zip(*halves, strict=True)))
    filled = pixels.copy()
    for band in bands:
        first = max(band.start // 2 - 1, 0)  # with a row of context on each side
        smooth = _doubled(coarse[first : -(-band.stop // 2) + 1])[band.start - 2 * first :]
        hidden = alpha[band] == 0
        filled[band][hidden] = smooth[: band.stop - band.start, :width][hidden].round().astype(pixels.dtype)
    return filled


def _filled(colours: Colours, weights: Colours) -> Colours:
    """Fill [H, W, C] where the weights [H, W, 1] are 0 from half the resolution."""
    if (weights > 0).all():
        return colours
    height, width = weights.shape[:2]
    coarse = _filled(*_halved(colours, weights))
    return np.where(weights > 0, colours, _doubled(coarse)[:height, :width])


def _halved(colours: Colours, weights: Colours) -> tuple[Colours, Colours]:
    """Weighted means and mean weights of 2x2 pixels."""
    height, width = weights.shape[:2]
    odd = ((0, height % 2), (0, width % 2), (0, 0))
    total, weight = (
        np.pad(part, odd).reshape(-(-height // 2), 2, -(-width // 2), 2, part.shape[2]).sum(axis=(1, 3))
        for part in (colours * weights, weights)
    )
    return total / np.maximum(weight, np.finfo(np.float32).tiny), weight / 4


def _doubled(colours: Colours) -> Colours:
    image = torch.from_numpy(np.ascontiguousarray(colours)).permute(2, 0, 1)[None]
    doubled: Colours = F.interpolate(image, scale_factor=2.0, mode="bilinear")[0].permute(1, 2, 0).numpy()
    return doubled
