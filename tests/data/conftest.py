"""Small photographs-like images and packed folders, made with numpy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from srgan_dist.data.index import ShardSet, open_shards
from srgan_dist.data.pack import pack

Pixels = NDArray[np.uint8]


def smooth_noise(height: int, width: int, seed: int = 0) -> Pixels:
    """Waves of several lengths under fine noise: gradients, edges and detail."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width, 3), 128.0)
    for period in (7, 19, 53):
        phase = random.uniform(0, 2 * np.pi, 6)
        for channel in range(3):
            image[..., channel] += 30 * np.sin(2 * np.pi * x / period + phase[channel])
            image[..., channel] += 20 * np.sin(2 * np.pi * y / period + phase[channel + 3])
    return np.clip(image + random.normal(0, 6, image.shape), 0, 255).round().astype(np.uint8)


@pytest.fixture(scope="session")
def make_image() -> Callable[..., Pixels]:
    return smooth_noise


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of different sizes, one of them in a subfolder, none a multiple of 4 in both sides."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for seed, (name, height, width) in enumerate([("a.png", 121, 163), ("b.b.png", 64, 130), ("more/c.png", 90, 50)]):
        Image.fromarray(smooth_noise(height, width, seed)).save(folder / name)
    return folder


@pytest.fixture(scope="session")
def packed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos in tiles of at most 64, in several shards."""
    out = tmp_path_factory.mktemp("packed") / "shards"
    pack(photos, out, scale=4, tile=64, shard_bytes=60_000)
    return out


@pytest.fixture
def shards(packed: Path) -> ShardSet:
    return open_shards([packed])
