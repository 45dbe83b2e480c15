"""Whether a picture that was put aside for validation is trained on all the same, under another name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from srgan_dist.data.packing.held_out import VALIDATION_NAME
from srgan_dist.data.packing.pairing import Source
from srgan_dist.data.packing.partial import read_plan
from srgan_dist.data.packing.tiles import Cutting, stored_tiles
from srgan_dist.data.shard_format.manifest import Manifest
from srgan_dist.errors import UserError
from srgan_dist.imaging.read import list_images


class Aside(NamedTuple):
    """An image put aside: its path, `digest_pixels` of its tiles, and why it cannot be read, or ""."""

    path: Path
    digests: list[bytes]
    problem: str = ""


def digest_pixels(pixels: NDArray[np.uint8]) -> bytes | None:
    """Hash an image, so that equal ones are found.

    Args:
        pixels: uint8 [H, W, 3].

    Returns:
        8 bytes; None for one plain colour, of which there may be many.
    """
    if pixels.min() == pixels.max():
        return None
    digest = hashlib.blake2b(str(pixels.shape).encode(), digest_size=8)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def read_aside(folder: Path, manifest: Manifest) -> Iterator[Aside]:
    """Cut the images put aside as those beside them were cut for the shards.

    Args:
        folder: packed, with or without images put aside.
        manifest: of the folder.

    Yields:
        Each image; none where the folder does not say how it was packed.
    """
    plan, images = read_plan(folder), folder / VALIDATION_NAME
    if plan is None or not images.is_dir():
        return
    cutting = Cutting(
        scale=manifest.scale,
        tile=plan["options"].get("tile"),
        stride=plan["options"].get("stride"),
        min_detail=0.0,
        encoding=manifest.encoding,
    )
    for path in list_images(images / "HR" if plan["options"].get("lr") == "given" else images):
        try:
            digests = map(digest_pixels, stored_tiles(Source("", path, None), cutting))
            yield Aside(path, [digest for digest in digests if digest])
        except UserError as error:
            yield Aside(path, [], str(error).removeprefix(f"{path}: "))
