"""Upscaling an image in overlapping tiles, so that memory is bounded and no seam shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from srgan_dist.imaging.pixels import from_levels, to_levels


def tile_spans(size: int, *, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Cover ``size`` pixels by spans of at most ``tile`` that overlap by at least ``overlap`` on each side.

    Args:
        size: Pixels to cover.
        tile: Longest span, in pixels; more than ``2 * overlap``.
        overlap: Pixels of context on each side.

    Returns:
        (start, stop) of each span, ascending.

    Raises:
        ValueError: ``tile`` is not more than ``2 * overlap``.
    """
    if tile <= 2 * overlap:
        raise ValueError(f"tile is {tile}, must be more than 2 x overlap = {2 * overlap}")
    if size <= tile:
        return [(0, size)]
    inner = tile - 2 * overlap
    starts = range(0, size - 2 * overlap, inner)
    return [(min(start, size - tile), min(start, size - tile) + tile) for start in starts]


def upscale_tiled(
    network: Callable[[Tensor], Tensor],
    lr: Tensor,
    *,
    scale: int,
    tile: int,
    overlap: int = 16,
    device: torch.device | None = None,
    on_tile: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Upscale one image, at most ``tile`` x ``tile`` LR pixels at a time.

    The outer ``overlap`` pixels of each tile only serve as context and are cut off, except at the image's border. If
    the network's receptive field does not exceed ``overlap``, the result is that of the whole image. Besides the result
    only one tile is ever in floating point.

    Args:
        network: Maps [1, C, h, w] in [0, 1] to [1, C, h * scale, w * scale].
        lr: uint8 or uint16 [1, C, h, w].
        scale: Factor of the network.
        tile: Side of the largest tile, in LR pixels.
        overlap: Context on each side, in LR pixels.
        device: Where the network is, if that is not where ``lr`` is.
        on_tile: Called with (number of finished tiles, number of tiles).

    Returns:
        [1, C, h * scale, w * scale] of the type, and on the device, of ``lr``; as an array [H, W, C] it is contiguous.
    """
    height, width = lr.shape[-2:]
    rows = list(_with_core(tile_spans(height, tile=tile, overlap=overlap), height, overlap))
    columns = list(_with_core(tile_spans(width, tile=tile, overlap=overlap), width, overlap))
    output = torch.empty((1, height * scale, width * scale, lr.shape[1]), dtype=lr.dtype, device=lr.device)
    output = output.permute(0, 3, 1, 2)
    done = 0
    for (top, bottom), (core_top, core_bottom) in rows:
        for (left, right), (core_left, core_right) in columns:
            sr = network(from_levels(lr[..., top:bottom, left:right], device))
            core = sr[
                ...,
                (core_top - top) * scale : (core_bottom - top) * scale,
                (core_left - left) * scale : (core_right - left) * scale,
            ]
            place = output[..., core_top * scale : core_bottom * scale, core_left * scale : core_right * scale]
            place.copy_(to_levels(core, lr.dtype))
            done += 1
            if on_tile:
                on_tile(done, len(rows) * len(columns))
    return output


def _with_core(
    spans: list[tuple[int, int]], size: int, overlap: int
) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Pair each span with the part of the output that only it fills."""
    begin = 0
    for start, stop in spans:
        end = size if stop == size else stop - overlap
        yield (start, stop), (begin, end)
        begin = end
