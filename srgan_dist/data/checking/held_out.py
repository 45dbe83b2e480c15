"""Hashes images, to find held-out images that are also trained on, under another name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from srgan_dist.data.packing.held_out import VALIDATION_NAME
from srgan_dist.data.packing.options import make_tile_options
from srgan_dist.data.packing.pairing import Source
from srgan_dist.data.packing.partial import PLAN_NAME, Plan, read_plan
from srgan_dist.data.packing.tiles import TileOptions, stored_tiles
from srgan_dist.data.shard_format.manifest import Manifest
from srgan_dist.errors import UserError
from srgan_dist.imaging.listing import list_images


class HeldOutImage(NamedTuple):
    """An image held out for validation.

    Attributes:
        path: Its file.
        digests: `digest_pixels` of its tiles.
        problem: Why it cannot be read, or "".
    """

    path: Path
    digests: list[bytes]
    problem: str = ""


def digest_pixels(pixels: NDArray[np.uint8]) -> bytes | None:
    """Hash an image, so that equal images can be found.

    Args:
        pixels: uint8 [H, W, 3].

    Returns:
        8 bytes; None for an image of one colour, of which there may be many.
    """
    if pixels.min() == pixels.max():
        return None
    digest = hashlib.blake2b(str(pixels.shape).encode(), digest_size=8)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def read_held_out(folder: Path, manifest: Manifest) -> Iterator[HeldOutImage]:
    """Read the images held out for validation, cut into tiles as the images in the shards were.

    Args:
        folder: A packed folder, with or without held-out images.
        manifest: Its manifest.

    Yields:
        Each image; none where pack.json is missing.
    """
    plan, images = read_plan(folder), folder / VALIDATION_NAME
    if plan is None or not images.is_dir():
        return
    try:
        tile_options = _tile_options(plan, manifest)
        paths = list_images(images / "HR" if plan["options"].get("lr") == "given" else images)
    except UserError as error:
        yield HeldOutImage(folder / PLAN_NAME, [], str(error))
        return
    for path in paths:
        try:
            digests = map(digest_pixels, stored_tiles(Source("", path, None), tile_options))
            yield HeldOutImage(path, [digest for digest in digests if digest])
        except UserError as error:
            yield HeldOutImage(path, [], str(error).removeprefix(f"{path}: "))


def _tile_options(plan: Plan, manifest: Manifest) -> TileOptions:
    tile, stride = plan["options"].get("tile"), plan["options"].get("stride")
    for value in (tile, stride):
        if not (value is None or isinstance(value, int)):
            raise UserError(f"tile and stride are {tile!r} and {stride!r}, expected whole numbers: pack again")
    return make_tile_options(scale=manifest.scale, encoding=manifest.encoding, tile=tile, stride=stride, min_detail=0.0)
