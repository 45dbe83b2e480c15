"""Conversion of pixels between arrays, tensors and 8-bit values."""

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
    return image.float().clamp(0, 1).mul(255).round().to(torch.uint8)


def image_tensor(image: NDArray[np.uint8]) -> Tensor:
    """Convert [H, W, 3] to [1, 3, H, W] without changing the pixels."""
    return torch.from_numpy(np.array(image, order="C")).permute(2, 0, 1)[None]


def image_array(image: Tensor) -> NDArray[np.uint8]:
    """Convert [1, 3, H, W] uint8 to [H, W, 3], the inverse of `image_tensor`."""
    array: NDArray[np.uint8] = image[0].permute(1, 2, 0).cpu().numpy()
    return np.ascontiguousarray(array)
