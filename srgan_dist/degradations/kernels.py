"""Blur kernels of Real-ESRGAN, and the filter that applies them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from srgan_dist.degradations.pixels import pad

_Floats = NDArray[np.float64]

RADIUS = 10
"""Radius in pixels of all kernels here: 21x21, zero outside their own size."""
_FFT_MULTIPLE = 32  # images have many sizes; this limits transforms to few lengths, all fast
_USM_RADIUS, _USM_SIGMA, _USM_WEIGHT, _USM_THRESHOLD = 25, 8.0, 0.5, 10 / 255


def gaussian_kernels(
    *,
    size: ArrayLike,
    sigma_x: ArrayLike,
    sigma_y: ArrayLike,
    rotation: ArrayLike,
    beta: ArrayLike,
    plateau: ArrayLike,
) -> _Floats:
    """Make generalised Gaussian and plateau-shaped kernels; beta 1 without plateau is the Gaussian itself.

    With q = v' S^-1 v, and S the covariance of the two sigmas turned by the rotation, a kernel is
    exp(-q^beta / 2), or 1 / (1 + q^beta) with plateau, of sum 1.

    Args:
        size: [b] odd, 1..21; side in pixels.
        sigma_x: [b] > 0, pixels, along the rotated x axis.
        sigma_y: [b] > 0, pixels, across it.
        rotation: [b] radians, from x to y.
        beta: [b] > 0.
        plateau: [b] bool.

    Returns:
        float64 [b, 21, 21], zero outside the size.

    Source:
        Wang et al., "Real-ESRGAN", 2021, section 3.1; Liu et al., "Estimating generalized Gaussian blur kernels for
        out-of-focus image deblurring", 2020.
    """
    y, x = _grid()
    turn = _wide(rotation)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    power = ((along / _wide(sigma_x)) ** 2 + (across / _wide(sigma_y)) ** 2) ** _wide(beta)
    with np.errstate(under="ignore"):
        return _normalised(np.where(_wide(plateau), 1 / (1 + power), np.exp(-power / 2)), size)


def sinc_kernels(*, size: ArrayLike, cutoff: ArrayLike) -> _Floats:
    """Make circular low-pass filters that ring, as over-sharpening and compression do.

    Args:
        size: [b] odd, 1..21; side in pixels.
        cutoff: [b] radians a pixel, 0 to pi.

    Returns:
        float64 [b, 21, 21] of sum 1, zero outside the size.

    Source:
        Wang et al., "Real-ESRGAN", 2021, equation 6, with J1 the Bessel function of the first kind.
    """
    radius = np.hypot(*_grid())
    frequency = _wide(cutoff)
    bessel = torch.special.bessel_j1(torch.from_numpy(frequency * radius)).numpy()
    beyond = np.where(radius > 0, radius, 1.0)
    centre = frequency**2 / (4 * np.pi)  # the limit at 0
    return _normalised(np.where(radius > 0, frequency * bessel / (2 * np.pi * beyond), centre), size)


def filter_image(image: Tensor, kernel: Tensor) -> Tensor:
    """Filter an image, its borders mirrored.

    This uses a Fourier transform: three times as fast as a depthwise convolution of 21x21 on a CPU, and not
    affected by TF32, autocast or cuDNN's choice of an algorithm, which would make two runs differ.

    Args:
        image: float32 [1, C, H, W]. One image at a time: the bits of a transform may depend on the batch.
        kernel: float32 [k, k], k odd, symmetric about its centre.

    Returns:
        float32 [1, C, H, W].
    """
    height, width = image.shape[-2:]
    radius = kernel.shape[-1] // 2
    padded = pad(image, top=radius, bottom=radius, left=radius, right=radius, reflect=True)
    size = [-(-side // _FFT_MULTIPLE) * _FFT_MULTIPLE for side in padded.shape[-2:]]
    # The transform wraps around, which affects the first 2 * radius rows and columns.
    product = torch.fft.rfft2(padded, s=size) * torch.fft.rfft2(kernel, s=size)
    filtered: Tensor = torch.fft.irfft2(product, s=size)
    return filtered[..., 2 * radius : 2 * radius + height, 2 * radius : 2 * radius + width].contiguous()


def usm_kernel() -> Tensor:
    """The wide Gaussian kernel of `sharpen`.

    Returns:
        float32 [51, 51], on the CPU.
    """
    taps = torch.arange(-_USM_RADIUS, _USM_RADIUS + 1, dtype=torch.float64)
    row = torch.exp(-taps.square() / (2 * _USM_SIGMA**2))
    kernel = row[:, None] * row
    return (kernel / kernel.sum()).float()


def sharpen(image: Tensor, kernel: Tensor) -> Tensor:
    """Sharpen edges by unsharp masking, leaving nearly flat regions unchanged.

    Args:
        image: float32 [1, 3, H, W] in [0, 1].
        kernel: The result of `usm_kernel`, on the image's device.

    Returns:
        float32 [1, 3, H, W] in [0, 1].

    Source:
        The "USM" of Wang et al., "Real-ESRGAN", 2021, section 4.1, with its published code's numbers: OpenCV's Gaussian
        of 51 pixels (sigma 8), weight 0.5, threshold 10 levels.
    """
    residual = image - filter_image(image, kernel)
    mask = filter_image((residual.abs() > _USM_THRESHOLD).to(image.dtype), kernel)
    sharp = (image + _USM_WEIGHT * residual).clamp_(0, 1)
    return (mask * sharp + (1 - mask) * image).clamp_(0, 1)


def _grid() -> tuple[_Floats, _Floats]:
    axis = np.arange(-RADIUS, RADIUS + 1, dtype=np.float64)
    return axis[:, None], axis[None, :]


def _normalised(kernels: _Floats, size: ArrayLike) -> _Floats:
    y, x = _grid()
    inside = np.maximum(abs(y), abs(x)) <= (_wide(size) - 1) / 2
    kernels = np.where(inside, kernels, 0.0)
    return np.asarray(kernels / kernels.sum(axis=(1, 2), keepdims=True))


def _wide(values: ArrayLike) -> NDArray[np.float64]:
    array = np.atleast_1d(np.asarray(values))
    return np.asarray(array[:, None, None], dtype=np.float64)
