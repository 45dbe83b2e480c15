"""The measure of grid artefacts: patterns that are known, and what must not count."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from srgan_dist.evaluation.grid import grid_ratio
from srgan_dist.evaluation.test_sets import read_pairs
from srgan_dist.imaging.pixels import to_uint8
from srgan_dist.imaging.resize import upscale_bicubic_tensor
from tests.conftest import SHARED, photo

SCALES = pytest.mark.parametrize("scale", [2, 3, 4, 8])


def tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def smooth(size: int = 192) -> Tensor:
    """A gradient in each colour, with the noise of a camera."""
    y, x = np.mgrid[:size, :size] / size
    image = np.stack([60 + 90 * x, 180 - 80 * y, 70 + 50 * (x + y)], axis=-1)
    noisy = image + np.random.default_rng(0).normal(0, 0.7, image.shape)
    return tensor(noisy.round().astype(np.uint8))


def with_grid(image: Tensor, *, scale: int, level: float) -> Tensor:
    """With a pattern that repeats every ``scale`` pixels, of so many levels (root mean square)."""
    tile = torch.randn(3, scale, scale, generator=torch.Generator().manual_seed(scale))
    tile = tile - tile.mean((1, 2), keepdim=True)
    tile = level * tile / tile.square().mean((1, 2), keepdim=True).sqrt()
    height, width = image.shape[-2:]
    pattern = tile.repeat(1, height // scale + 1, width // scale + 1)[:, :height, :width]
    return (image + pattern).round().clamp(0, 255).to(torch.uint8)


def ratio(sr: Tensor, hr: Tensor, *, scale: int) -> float:
    value = grid_ratio(sr, hr, scale=scale)
    assert value is not None
    return value


@SCALES
def test_two_levels_on_a_smooth_area_are_2_and_more_is_more(scale: int) -> None:
    hr = smooth()
    values = [ratio(with_grid(hr, scale=scale, level=level), hr, scale=scale) for level in (0.5, 1, 2, 4, 8)]
    assert all(low < high for low, high in pairwise(values)), values
    assert values[0] < 1.15
    assert values[2] == pytest.approx(2, abs=0.2)


@SCALES
@pytest.mark.parametrize("image", [smooth(), tensor(photo(160, 176))], ids=["smooth", "detailed"])
def test_hr_itself_is_1(image: Tensor, scale: int) -> None:
    assert ratio(image, image, scale=scale) == 1


def noisy(image: Tensor) -> Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return (image + 12 * noise).round().clamp(0, 255).to(torch.uint8)


def blurred(image: Tensor) -> Tensor:
    return functional.avg_pool2d(image.float(), 3, 1, 1, count_include_pad=False).round().to(torch.uint8)


def sharpened(image: Tensor) -> Tensor:
    values = image.float()
    return (2 * values - blurred(image)).round().clamp(0, 255).to(torch.uint8)


def shifted(image: Tensor) -> Tensor:
    return torch.roll(image, (1, 3), dims=(-2, -1))


@pytest.mark.parametrize("change", [noisy, blurred, sharpened, shifted])
@pytest.mark.parametrize("scale", [2, 4])
def test_texture_is_no_grid(change: Callable[[Tensor], Tensor], scale: int) -> None:
    hr = tensor(photo(192, 192))
    assert ratio(change(hr), hr, scale=scale) < 1.15


@pytest.mark.parametrize("axis", [-1, -2], ids=["columns", "rows"])
def test_stripes_along_one_axis_and_a_checkerboard_count(axis: int) -> None:
    hr = smooth()
    sign = torch.tensor([4, 0]).repeat(96)
    stripes = sign if axis == -1 else sign[:, None]
    assert ratio(hr + stripes.to(torch.uint8), hr, scale=4) > 1.5
    board = (sign[:, None] + sign) % 8
    assert ratio(hr + board.to(torch.uint8), hr, scale=4) > 1.5


def test_squares_of_nearest_upscaling_are_a_grid_and_bicubic_has_none() -> None:
    hr = tensor(photo(192, 192))
    lr = hr[..., ::4, ::4]
    nearest = lr.repeat_interleave(4, -1).repeat_interleave(4, -2)
    bicubic = to_uint8(upscale_bicubic_tensor(lr.float() / 255, 4))
    assert ratio(nearest, hr, scale=4) > 1.5
    assert ratio(bicubic, hr, scale=4) < 1.1


def test_there_is_none_without_upscaling_or_in_less_than_a_window() -> None:
    hr = tensor(photo(48, 31))
    assert grid_ratio(hr, hr, scale=1) is None
    assert grid_ratio(hr, hr, scale=4) is None


@pytest.mark.parametrize("name", ["img_001.png", "img_003.png", "img_004.png"])  # baby, butterfly, head
def test_on_photographs(name: str) -> None:
    folder = SHARED / "data/benchmark/Set5"
    if not folder.is_dir():
        pytest.skip("needs the benchmark images in ../shared")
    image = next(image for image in read_pairs(folder, scale=4) if f"{image.name}.png" == name)
    bicubic = to_uint8(upscale_bicubic_tensor(image.lr.float() / 255, 4))
    assert ratio(bicubic, image.hr, scale=4) < 1.05
    assert ratio(with_grid(bicubic, scale=4, level=2), image.hr, scale=4) > 1.5
    nearest = image.lr.repeat_interleave(4, -1).repeat_interleave(4, -2)
    assert ratio(nearest, image.hr, scale=4) > 2
