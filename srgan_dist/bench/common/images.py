"""The images of a benchmark, the user's or generated, and copies of their tiles for other readers."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import webdataset
from numpy.typing import NDArray
from PIL import Image

from srgan_dist.imaging.listing import list_images
from srgan_dist.imaging.read import read_size

TILE = 480
_MADE, _MADE_HEIGHT, _MADE_WIDTH = 8, 960, 1440  # 48 tiles of 480x480, 33 MB: more than a CPU's cache holds
_ENOUGH_TILES = 128


def make_images(folder: Path, *, count: int = _MADE, seed: int = 0) -> None:
    """Write PNG images that compress about as badly as photographs do.

    Args:
        folder: An existing folder to write to.
        count: Number of images, of 960x1440 pixels each.
        seed: The same seed gives the same pixels.
    """
    for number in range(count):
        pixels = _photo_like(np.random.default_rng((seed, number)), _MADE_HEIGHT, _MADE_WIDTH)
        Image.fromarray(pixels).save(folder / f"made-{number:02d}.png", compress_level=1)


def _photo_like(draw: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Clouds of every size, objects with sharp edges in front of them, and the noise of a camera."""
    image = np.full((height, width, 3), 128.0, dtype=np.float32)
    for octave in range(2, 8):
        side = 2**octave
        coarse = Image.fromarray(draw.integers(0, 256, (side, side, 3), dtype=np.uint8))
        clouds = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
        image += (clouds - 128) * 2.0 ** (1 - octave)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for _ in range(40):
        across, down, radius = draw.uniform(0, width), draw.uniform(0, height), draw.uniform(8, 160)
        squeeze, slant = draw.uniform(0.3, 1), draw.uniform(-1, 1)
        u, v = x - across, (y - down - slant * (x - across)) / squeeze
        image[u * u + v * v < radius**2] += draw.normal(0, 30, 3).astype(np.float32)
    noise = draw.standard_normal((height, width, 3), dtype=np.float32)
    pixels: NDArray[np.uint8] = np.clip(image + noise, 0, 255).astype(np.uint8)
    return pixels


def choose_images(source: Path, folder: Path, *, patch_size: int) -> list[Path]:
    """Link enough images for a benchmark, a fixed random selection from the user's folder.

    Args:
        source: The folder with the user's images.
        folder: An existing folder for the links.
        patch_size: Images with a shorter side are skipped.

    Returns:
        The chosen images; empty if all are too small.

    Raises:
        UserError: The folder does not exist, contains no images, or contains an unreadable one.
    """
    images = list_images(source)
    random.Random(0).shuffle(images)
    chosen: list[Path] = []
    tiles = 0
    for image in images:
        height, width = read_size(image)
        if min(height, width) < patch_size:
            continue
        chosen.append(image)
        (folder / f"{len(chosen):05d}{image.suffix.lower()}").symlink_to(image.resolve())
        tiles += -(-height // TILE) * -(-width // TILE)
        if tiles >= _ENOUGH_TILES:
            break
    return chosen


def png_tiles(shards: Sequence[Path], folder: Path) -> list[str]:
    """Write the tiles of raw shards as PNG files, ``hr/KEY.png`` and ``lr/KEY.png``, as other trainers prepare them.

    Args:
        shards: Tars of raw arrays.
        folder: The folder to create.

    Returns:
        The keys.
    """
    for side in ("hr", "lr"):
        (folder / side).mkdir(parents=True)
    keys: list[str] = []
    for sample in webdataset.WebDataset([str(path) for path in shards], shardshuffle=False).decode():
        keys.append(sample["__key__"])
        for side in ("hr", "lr"):
            (folder / side / f"{keys[-1]}.png").write_bytes(_as_png(sample[f"{side}.npy"]))
    return keys


def _as_png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
