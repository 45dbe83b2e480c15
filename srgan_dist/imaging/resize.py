"""Bicubic resizing like MATLAB's imresize, the method behind every published x2, x3, x4 table."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

# Half the width of the antialiased cubic kernel is 2 * scale source pixels: 16 covers scales up to 8.
_PADDING = 16
_BAND = 128  # LR rows at a time of a large image, as floating point takes several times the memory of its 8 bits
_REACH = 4  # LR pixels around a part that are computed with it; the kernel needs 2


def modcrop(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Cut the bottom and right edge so that both sides are multiples of the scale.

    Args:
        image: [H, W, C] array.
        scale: Factor, >= 1.

    Returns:
        A view [H - H % scale, W - W % scale, C] of the image.
    """
    height, width = image.shape[:2]
    return image[: height - height % scale, : width - width % scale]


def downscale(hr: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Make the standard low-resolution image: antialiased bicubic, rounded to 8 bits.

    Args:
        hr: uint8 [H, W, 3], both sides multiples of `scale` (see `modcrop`).
        scale: Factor, >= 1.

    Returns:
        uint8 [H / scale, W / scale, 3].

    Raises:
        ValueError: A side is not a multiple of the scale, or is empty.

    Source:
        MATLAB `imresize(I, 1 / scale, "bicubic")`; Keys, "Cubic convolution interpolation", 1981, with a = -0.5.
    """
    height, width = hr.shape[0] // scale, hr.shape[1] // scale
    if height <= 2 * _BAND or hr.shape[0] % scale or hr.shape[1] % scale:
        return _to_uint8(downscale_tensor(_to_float(hr), scale))
    lr = np.empty((height, width, hr.shape[2]), dtype=np.uint8)
    for top in range(0, height, _BAND):
        rows = min(_BAND, height - top)
        lr[top : top + rows] = downscale_part(hr, scale, top=top, left=0, height=rows, width=width)
    return lr


def downscale_part(
    hr: NDArray[np.uint8], scale: int, *, top: int, left: int, height: int, width: int
) -> NDArray[np.uint8]:
    """Compute a part of an image's low-resolution image, without computing the rest.

    Args:
        hr: uint8 [H, W, 3], the whole image, of any size.
        scale: Factor, >= 1.
        top: Upper edge of the part in LR pixels.
        left: Left edge in LR pixels.
        height: Height of the part in LR pixels; top + height <= H // scale.
        width: Width of the part in LR pixels; left + width <= W // scale.

    Returns:
        uint8 [height, width, 3], equal to that part of `downscale` of the mod-cropped image.
    """
    rows = range(max(top - _REACH, 0), min(top + height + _REACH, hr.shape[0] // scale))
    columns = range(max(left - _REACH, 0), min(left + width + _REACH, hr.shape[1] // scale))
    around = hr[rows.start * scale : rows.stop * scale, columns.start * scale : columns.stop * scale]
    top, left = top - rows.start, left - columns.start
    return downscale(around, scale)[top : top + height, left : left + width]


def upscale_bicubic(lr: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Enlarge an image by bicubic interpolation, the baseline of every table.

    Args:
        lr: uint8 [h, w, 3].
        scale: Factor, >= 1.

    Returns:
        uint8 [h * scale, w * scale, 3].

    Source:
        MATLAB `imresize(I, scale, "bicubic")`.
    """
    return _to_uint8(upscale_bicubic_tensor(_to_float(lr), scale))


def downscale_tensor(hr: Tensor, scale: int) -> Tensor:
    """Downscale a batch as `downscale` does, without rounding or clamping.

    Args:
        hr: float [N, C, H, W], any range; both sides multiples of `scale`.
        scale: Factor, >= 1.

    Returns:
        float [N, C, H / scale, W / scale]; may overshoot the input's range.

    Raises:
        ValueError: A side is not a multiple of the scale, or is empty.
    """
    height, width = hr.shape[-2:]
    if height % scale or width % scale or not height or not width:
        raise ValueError(f"image of {height}x{width} cannot be downscaled by {scale}: crop it with modcrop first")
    padding = -(-max(_PADDING, 2 * scale) // scale) * scale  # a multiple of the scale keeps the grid aligned
    return _resize(hr, height // scale, width // scale, padding=padding, border=padding // scale)


def upscale_bicubic_tensor(lr: Tensor, scale: int) -> Tensor:
    """Enlarge a batch as `upscale_bicubic` does, without rounding or clamping.

    Args:
        lr: float [N, C, h, w], any range.
        scale: Factor, >= 1.

    Returns:
        float [N, C, h * scale, w * scale]; may overshoot the input's range.
    """
    height, width = lr.shape[-2:]
    return _resize(lr, height * scale, width * scale, padding=_PADDING, border=_PADDING * scale)


def bicubic_matrix(length: int, scale: int) -> Tensor:
    """The matrix by which `upscale_bicubic_tensor` enlarges each column, and each row, of an image.

    Args:
        length: Pixels of a column.
        scale: Factor, >= 1.

    Returns:
        float [length * scale, length].
    """
    columns = torch.eye(length)[:, None, :, None]  # images of one column, in each of which one pixel is 1
    return upscale_bicubic_tensor(columns, scale)[:, 0, :, 0].T.contiguous()


def _resize(image: Tensor, height: int, width: int, *, padding: int, border: int) -> Tensor:
    padded = _pad_symmetric(image, padding)
    size = (height + 2 * border, width + 2 * border)
    # antialias=True also for enlarging, as only that kernel has a = -0.5; the other one has a = -0.75.
    resized = F.interpolate(padded, size=size, mode="bicubic", align_corners=False, antialias=True)
    return resized[..., border : border + height, border : border + width]


def _pad_symmetric(image: Tensor, padding: int) -> Tensor:
    # torch has no symmetric mode (edge pixel repeated), and its modes refuse images smaller than the padding.
    rows = _mirrored_indices(image.shape[-2], padding, image.device)
    columns = _mirrored_indices(image.shape[-1], padding, image.device)
    return image.index_select(-2, rows).index_select(-1, columns)


def _mirrored_indices(length: int, padding: int, device: torch.device) -> Tensor:
    indices = torch.arange(-padding, length + padding, device=device) % (2 * length)
    return torch.minimum(indices, 2 * length - 1 - indices)


def _to_float(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)[None].float()


def _to_uint8(image: Tensor) -> NDArray[np.uint8]:
    # MATLAB rounds halves up; torch.round would round them to even.
    rounded = (image[0] + 0.5).floor_().clamp_(0, 255).to(torch.uint8)
    return np.ascontiguousarray(rounded.permute(1, 2, 0).numpy())
