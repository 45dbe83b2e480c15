"""Helpers of the degradations: 8-bit levels and padding."""

from __future__ import annotations

import torch
from torch import Tensor


def to_levels(image: Tensor) -> Tensor:
    """Turn an image into 8-bit levels, as saving it to a file would.

    Args:
        image: float, any shape, nominally in [0, 1].

    Returns:
        The same type and shape; whole numbers 0..255, halves rounded up as MATLAB does.
    """
    return torch.floor(image * 255 + 0.5).clamp_(0, 255)


def pad(
    image: Tensor, *, top: int = 0, bottom: int = 0, left: int = 0, right: int = 0, reflect: bool = False
) -> Tensor:
    """Enlarge images of any size, also smaller than the padding, by repeating or mirroring their border.

    Args:
        image: [..., H, W].
        top: Rows to add at the top, >= 0.
        bottom: Rows to add at the bottom, >= 0.
        left: Columns to add on the left, >= 0.
        right: Columns to add on the right, >= 0.
        reflect: Mirror at the border pixel, which is not repeated; otherwise repeat the border pixel.

    Returns:
        [..., top + H + bottom, left + W + right].
    """
    # torch's own reflection padding refuses images smaller than the padding.
    height, width = image.shape[-2:]
    rows = _indices(-top, height + bottom, height, reflect, image.device)
    columns = _indices(-left, width + right, width, reflect, image.device)
    return image.index_select(-2, rows).index_select(-1, columns)


def _indices(start: int, end: int, length: int, reflect: bool, device: torch.device) -> Tensor:
    indices = torch.arange(start, end, device=device)
    if not reflect:
        return indices.clamp_(0, length - 1)
    period = max(2 * (length - 1), 1)
    indices = indices % period
    return torch.minimum(indices, period - indices) if length > 1 else indices
