"""Tiles: together they are the whole image, each is small, and no seam shows."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from srgan_dist.imaging.pixels import from_levels, to_levels
from srgan_dist.imaging.tiling import tile_spans, upscale_tiled


@given(st.integers(1, 500), st.integers(33, 120))
def test_spans_cover_with_context(size: int, tile: int) -> None:
    spans = tile_spans(size, tile=tile, overlap=16)
    assert spans[0][0] == 0
    assert spans[-1][1] == size
    assert all(stop - start <= tile for start, stop in spans)
    assert all(before[1] - after[0] >= 32 for before, after in itertools.pairwise(spans))
    assert all(before[0] < after[0] and before[1] < after[1] for before, after in itertools.pairwise(spans))


@pytest.mark.parametrize("size", [(40, 40), (100, 37), (130, 131), (64, 200)])
def test_a_network_that_sees_no_farther_than_the_overlap_gives_the_whole_image(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 12, 9, padding=4), nn.PixelShuffle(2))
    image = torch.randint(0, 65536, (1, 3, *size)).to(torch.uint16)
    seen: list[tuple[int, int]] = []

    def limited(lr: Tensor) -> Tensor:
        seen.append((lr.shape[-2], lr.shape[-1]))
        sr: Tensor = network(lr)
        return sr

    done: list[tuple[int, int]] = []
    with torch.no_grad():
        whole = to_levels(network(from_levels(image)), torch.uint16)
        tiled = upscale_tiled(limited, image, scale=2, tile=48, on_tile=lambda k, n: done.append((k, n)))
    assert (tiled.to(torch.int32) - whole.to(torch.int32)).abs().max() <= 1  # of 65535
    assert tiled[0].permute(1, 2, 0).is_contiguous()
    assert max(max(shape) for shape in seen) <= 48
    assert done == [(k + 1, len(seen)) for k in range(len(seen))]


def test_a_tile_without_a_core_is_refused() -> None:
    with pytest.raises(ValueError, match="must be more than 2 x overlap"):
        tile_spans(100, tile=32, overlap=16)
