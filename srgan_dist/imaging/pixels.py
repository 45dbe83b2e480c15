"""Conversion of pixels between arrays, tensors and the levels of a file."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_uint8(image: Tensor) -> Tensor:
    """Round an image to the 8 bits that a file holds.

    Args:
        image: [..., H, W] in [0, 1]; values outside are clamped.

    Returns:
        uint8 of the same shape.
    """
    return to_levels(image, torch.uint8)


def to_levels(image: Tensor, dtype: torch.dtype) -> Tensor:
    """Round an image to the levels of uint8 or uint16, as `to_uint8` does."""
    levels = image.float().clamp(0, 1).mul(torch.iinfo(dtype).max).round()
    # Few kernels, and none of CUDA's arithmetic, know uint16.
    return levels.to(dtype) if dtype == torch.uint8 else levels.to(torch.int32).cpu().to(dtype)


def from_levels(image: Tensor, device: torch.device | None = None) -> Tensor:
    """Scale an image of uint8 or uint16 to float32 in [0, 1], on another device if one is given."""
    levels = image if image.dtype == torch.uint8 else image.float()
    return levels.to(device or image.device).float() / torch.iinfo(image.dtype).max


def rgb_to_grey(image: Tensor) -> Tensor:
    """Luma of BT.601 in full swing, as Pillow's mode L: [N, 3, H, W] to [N, 1, H, W]."""
    red, green, blue = image.float().unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def image_tensor(image: NDArray[np.uint8]) -> Tensor:
    """Convert [H, W, 3] to [1, 3, H, W], which shares the pixels where it can."""
    return torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)[None]


def image_array(image: Tensor) -> NDArray[np.uint8]:
    """Convert [1, 3, H, W] uint8 to [H, W, 3], the inverse of `image_tensor`."""
    array: NDArray[np.uint8] = image[0].permute(1, 2, 0).cpu().numpy()
    return np.ascontiguousarray(array)
