from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from srgan_dist.imaging.resize import (
    downscale,
    downscale_part,
    downscale_tensor,
    modcrop,
    upscale_bicubic,
    upscale_bicubic_tensor,
)

SHARED = Path(__file__).parents[3] / "shared" / "data"


def cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def weights(length: int, out_length: int) -> NDArray[np.float64]:
    """The [out, in] matrix of MATLAB's imresize along one side: antialiased, borders mirrored."""
    scale = out_length / length
    shrink = min(scale, 1.0)
    matrix = np.zeros((out_length, length))
    for i in range(out_length):
        centre = (i + 0.5) / scale - 0.5
        taps = np.arange(np.floor(centre - 2 / shrink), np.ceil(centre + 2 / shrink) + 1)
        value = cubic((taps - centre) * shrink)
        value /= value.sum()
        mirrored = taps.astype(int) % (2 * length)
        np.add.at(matrix[i], np.minimum(mirrored, 2 * length - 1 - mirrored), value)
    return matrix


def reference(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    rows, columns = weights(image.shape[0], height), weights(image.shape[1], width)
    result: NDArray[np.float64] = np.einsum("yh,hwc,xw->yxc", rows, image.astype(np.float64), columns, optimize=True)
    return np.clip(np.floor(result + 0.5), 0, 255).astype(np.uint8)


def assert_nearly_equal(image: NDArray[np.uint8], expected: NDArray[np.uint8], fraction: float) -> None:
    assert image.shape == expected.shape
    difference = np.abs(image.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() <= fraction


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
def test_downscale_is_matlabs_imresize(make_image: Callable[..., NDArray[np.uint8]], scale: int) -> None:
    hr = modcrop(make_image(201, 300), scale)
    expected = reference(hr, hr.shape[0] // scale, hr.shape[1] // scale)
    assert_nearly_equal(downscale(hr, scale), expected, fraction=1e-4)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_upscale_is_matlabs_imresize(make_image: Callable[..., NDArray[np.uint8]], scale: int) -> None:
    lr = make_image(41, 30)
    assert_nearly_equal(upscale_bicubic(lr, scale), reference(lr, 41 * scale, 30 * scale), fraction=1e-4)


def test_images_smaller_than_the_padding(make_image: Callable[..., NDArray[np.uint8]]) -> None:
    tiny = make_image(4, 12)
    assert_nearly_equal(downscale(tiny, 4), reference(tiny, 1, 3), fraction=0.0)
    assert_nearly_equal(upscale_bicubic(tiny[:1, :1], 4), np.broadcast_to(tiny[:1, :1], (4, 4, 3)), fraction=0.0)


def test_a_step_edge_overshoots_by_the_stored_values() -> None:
    # A step edge at x2: the cubic kernel overshoots by 2 on both sides, and 8-bit clips it at 0.
    step = np.full((2, 16, 3), 50, dtype=np.uint8)
    step[:, 8:] = 200
    assert downscale(step, 2)[0, :, 0].tolist() == [50, 50, 48, 60, 190, 202, 200, 200]
    step[:, :8] = 0
    assert downscale(step, 2)[0, :, 0].tolist() == [0, 0, 0, 13, 187, 202, 200, 200]


def test_tensor_variants_agree_with_the_rounded_ones(make_image: Callable[..., NDArray[np.uint8]]) -> None:
    hr = make_image(64, 48)
    batch = torch.from_numpy(hr).permute(2, 0, 1)[None].float().repeat(2, 1, 1, 1) / 255
    small, large = downscale_tensor(batch, 4), upscale_bicubic_tensor(batch, 2)
    assert small.shape == (2, 3, 16, 12)
    assert large.shape == (2, 3, 128, 96)
    small_uint8 = (small[1].clamp(0, 1) * 255 + 0.5).floor().permute(1, 2, 0).numpy().astype(np.uint8)
    assert_nearly_equal(small_uint8, downscale(hr, 4), fraction=1e-3)


def test_modcrop_cuts_bottom_and_right(make_image: Callable[..., NDArray[np.uint8]]) -> None:
    image = make_image(13, 18)
    np.testing.assert_array_equal(modcrop(image, 4), image[:12, :16])
    np.testing.assert_array_equal(modcrop(image, 1), image)


def test_downscale_refuses_other_sizes(make_image: Callable[..., NDArray[np.uint8]]) -> None:
    with pytest.raises(ValueError, match="13x16 cannot be downscaled by 4"):
        downscale(make_image(13, 16), 4)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not here")
def test_set5_gives_the_published_lr_images() -> None:
    for path in sorted((SHARED / "benchmark" / "Set5" / "HR").glob("*.png")):
        hr = np.array(Image.open(path).convert("RGB"))
        lr = np.array(Image.open(path.parents[1] / "LRx4" / path.name).convert("RGB"))
        assert_nearly_equal(downscale(hr, 4), lr, fraction=1e-4)


@pytest.mark.parametrize(
    ("scale", "height", "width"), [(4, 121, 163), (3, 100, 70), (2, 64, 31), (8, 200, 90), (4, 9, 8)]
)
def test_a_part_is_that_part_of_the_whole(
    make_image: Callable[..., NDArray[np.uint8]], scale: int, height: int, width: int
) -> None:
    hr = make_image(height, width)
    whole = downscale(modcrop(hr, scale), scale)
    random = np.random.default_rng(0)
    for _ in range(60):
        rows, columns = random.integers(1, whole.shape[0] + 1), random.integers(1, whole.shape[1] + 1)
        top, left = random.integers(0, whole.shape[0] - rows + 1), random.integers(0, whole.shape[1] - columns + 1)
        part = downscale_part(hr, scale, top=int(top), left=int(left), height=int(rows), width=int(columns))
        np.testing.assert_array_equal(part, whole[top : top + rows, left : left + columns])
