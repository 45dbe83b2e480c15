from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from srgan_dist.degradations.jpeg import jpeg, jpeg_constants

Pixels = NDArray[np.uint8]
CONSTANTS = jpeg_constants("cpu")


def through_pillow(image: Pixels, quality: int) -> NDArray[np.int64]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=2)
    return np.array(Image.open(file)).astype(np.int64)


def as_batch(*images: Pixels) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def through_ours(image: Pixels, quality: int) -> NDArray[np.int64]:
    levels = jpeg(as_batch(image), torch.tensor([quality]), CONSTANTS)[0] * 255
    assert (levels - levels.round()).abs().max() < 1e-3
    return levels.round().permute(1, 2, 0).numpy().astype(np.int64)


@pytest.mark.parametrize("quality", [1, 10, 30, 49, 50, 75, 95, 100])
@pytest.mark.parametrize(("height", "width"), [(96, 96), (97, 83), (30, 46), (120, 121)])
def test_it_is_pillows_jpeg(make_image: Callable[..., Pixels], height: int, width: int, quality: int) -> None:
    image = make_image(height, width)
    expected, made = through_pillow(image, quality), through_ours(image, quality)
    difference = np.abs(made - expected)
    # What compression itself does is far more, so that a wrong table or sampling would be seen. A coefficient at the
    # border of two steps may fall to the other side and change one block by a few levels.
    assert difference.mean() <= 0.25
    assert (difference > 0).mean() <= 0.2
    assert (difference > 3).mean() <= 0.02
    if quality < 100:
        assert np.abs(expected - image).mean() > 4 * difference.mean()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 17), (17, 5), (8, 8)])
def test_small_images_are_pillows_jpeg_too(make_image: Callable[..., Pixels], height: int, width: int) -> None:
    images = [make_image(height, width, seed) for seed in range(9)]
    # Of nine: a single coefficient on the border (1.498 of a step of 50) is seen in a whole image of this size.
    means = [np.abs(through_ours(image, 75) - through_pillow(image, 75)).mean() for image in images]
    assert np.median(means) <= 0.25


@pytest.mark.parametrize("quality", [30, 60, 95])
def test_flat_images_are_pillows_to_the_bit(quality: int) -> None:
    # Their coefficients are exact halves of a step more often than not.
    for colour in [(77, 77, 77), (10, 200, 30), (255, 0, 0), (128, 64, 191), (0, 0, 0), (255, 255, 255), (3, 5, 7)]:
        image = np.broadcast_to(np.array(colour, dtype=np.uint8), (24, 24, 3)).copy()
        np.testing.assert_array_equal(through_ours(image, quality), through_pillow(image, quality))


def test_quality_100_keeps_grey_images(make_image: Callable[..., Pixels]) -> None:
    image = make_image(64, 64)
    grey = np.repeat(image[..., :1], 3, axis=2)
    assert np.abs(through_ours(grey, 100) - grey).max() <= 2
    assert np.abs(through_ours(grey, 100) - grey).mean() < 0.5


def test_each_sample_has_its_quality(make_image: Callable[..., Pixels]) -> None:
    images = [make_image(40, 56, seed) for seed in range(4)]
    quality = torch.tensor([5, 40, 90, 40])
    together = jpeg(as_batch(*images), quality, CONSTANTS)
    for number, image in enumerate(images):
        alone = jpeg(as_batch(image), quality[number : number + 1], CONSTANTS)
        assert torch.equal(together[number : number + 1], alone)
