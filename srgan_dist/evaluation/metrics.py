"""Image quality by the protocol of the super-resolution tables: 8-bit, cropped border, luma of BT.601."""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor

_WINDOW = 11  # pixels, of SSIM's Gaussian with sigma 1.5
_TILE = 128  # windows a side at a time, as torch's convolution in float64 takes 5 kB for each pixel on a CPU


def luma(image: Tensor) -> Tensor:
    """Compute Y of BT.601 in studio swing, not rounded.

    Args:
        image: [N, 3, H, W] uint8, RGB.

    Returns:
        [N, 1, H, W] float64 in [16, 235].

    Source:
        ITU-R BT.601; MATLAB's rgb2ycbcr.
    """
    red, green, blue = image.to(torch.float64).div(255).unbind(1)
    return (16 + 65.481 * red + 128.553 * green + 24.966 * blue).unsqueeze(1)


def psnr_rgb(sr: Tensor, hr: Tensor, *, border: int) -> float:
    """Compute PSNR on RGB of one image.

    Args:
        sr: [1, 3, H, W] uint8.
        hr: Like ``sr``.
        border: Pixels left out on every side.

    Returns:
        PSNR in dB (peak 255; infinite for equal images), by the mean squared error over pixels and colours.
    """
    inside = slice(border, -border)
    mse = (sr[..., inside, inside].double() - hr[..., inside, inside]).square().mean().item()
    return 10 * math.log10(255**2 / mse) if mse else math.inf


def psnr_ssim_y(sr: Tensor, hr: Tensor, *, border: int) -> tuple[float, float]:
    """Compute PSNR and SSIM on Y of one image.

    Args:
        sr: [1, 3, H, W] uint8, RGB.
        hr: Like ``sr``.
        border: Pixels left out on every side; the scale, by convention.

    Returns:
        PSNR in dB (peak 255; infinite for equal images) and SSIM in [-1, 1] (Gaussian window 11x11 with
        sigma 1.5, K1 = 0.01, K2 = 0.03, valid region).

    Raises:
        ValueError: The shapes differ, or the image is too small for the window.

    Source:
        Wang et al. 2004, eq. 13.
    """
    # Imported here, as it takes 0.8 s and 80 MB, and most processes do not need it.
    from torchmetrics.functional.image import structural_similarity_index_measure

    if sr.shape != hr.shape:
        raise ValueError(f"sr is {tuple(sr.shape)}, hr is {tuple(hr.shape)}")
    height, width = hr.shape[-2] - 2 * border, hr.shape[-1] - 2 * border
    if min(height, width) < _WINDOW:
        smallest = _WINDOW + 2 * border
        raise ValueError(f"image is {hr.shape[-1]}x{hr.shape[-2]}; at least {smallest} pixels a side are needed")
    # torchmetrics mirrors the image at its border; the protocol counts only windows that lie inside.
    inside = slice(_WINDOW // 2, -(_WINDOW // 2))
    squared_error, ssim = (torch.zeros((), dtype=torch.float64, device=hr.device) for _ in range(2))
    for top, left in product(range(0, height, _TILE), range(0, width, _TILE)):
        # The pixels of the tile, and those that only its windows reach.
        rows, columns = (
            slice(border + start, border + min(start + _TILE + _WINDOW - 1, size))
            for start, size in ((top, height), (left, width))
        )
        y_sr, y_hr = luma(sr[..., rows, columns]), luma(hr[..., rows, columns])
        squared_error += (y_sr - y_hr)[..., :_TILE, :_TILE].square().sum()
        if min(y_sr.shape[-2:]) < _WINDOW:
            continue  # the windows of the neighbours have covered it
        _, ssim_map = structural_similarity_index_measure(
            y_sr, y_hr, sigma=1.5, data_range=255.0, k1=0.01, k2=0.03, return_full_image=True
        )
        ssim += ssim_map[..., inside, inside].sum()
    mse = squared_error.item() / (height * width)
    windows = (height - _WINDOW + 1) * (width - _WINDOW + 1)
    psnr = 10 * math.log10(255**2 / mse) if mse else math.inf
    return psnr, ssim.item() / windows
