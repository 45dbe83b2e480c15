"""Cuts an image into samples: the places of its tiles, their detail, and their encoded bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from srgan_dist.data.packing.pairing import Source, read_lr
from srgan_dist.data.shard_format.encodings import Encoding, decode, encode, suffixes
from srgan_dist.errors import UserError
from srgan_dist.imaging.read import open_image, orientation, read_rgb
from srgan_dist.imaging.resize import downscale, modcrop

_LUMA = np.array([299, 587, 114], dtype=np.int32)  # ITU-R BT.601, in thousandths: integers add up exactly


@dataclass(frozen=True, kw_only=True)
class TileOptions:
    """How an image is cut into samples.

    Attributes:
        scale: HR pixels per LR pixel.
        tile: Maximum side of a tile in HR pixels; None keeps images whole.
        stride: Pixels from tile to tile, at most `tile`; None splits without overlap into nearly equal parts.
        min_detail: Tiles with less `detail` are left out; 0 keeps all.
        encoding: Encoding of the members.
    """

    scale: int
    tile: int | None
    stride: int | None
    min_detail: float
    encoding: Encoding


class EncodedSample(NamedTuple):
    """An encoded tile.

    Attributes:
        key: Its key in the shard.
        hr: Data of the HR member.
        lr: Data of the LR member.
    """

    key: str
    hr: bytes
    lr: bytes


class CutImage(NamedTuple):
    """The samples of one image.

    Attributes:
        samples: Its tiles, row by row.
        num_flat: Tiles left out because they have too little detail.
        reencoded: Whether it was encoded as JPEG here, because its file is no upright RGB or grey JPEG.
    """

    samples: list[EncodedSample]
    num_flat: int
    reencoded: bool


def cut_image(source: Source, tile_options: TileOptions) -> CutImage:
    """Read an image and cut it into samples.

    Args:
        source: The image, and its LR image where one was given.
        tile_options: How it is cut.

    Returns:
        The samples; none where all were flat.

    Raises:
        UserError: An image is unreadable or unsuitable, or its size has changed.
    """
    pixels, whole, reencoded = _read_whole(source, tile_options)
    hr_suffix, lr_suffix = suffixes(tile_options.encoding)
    scale = tile_options.scale
    hr = modcrop(pixels, scale)
    # The LR image is made from the whole image: made tile by tile, its borders would be wrong.
    lr = downscale(hr, scale) if source.lr is None else read_lr(source.lr, pixels, scale=scale)
    samples, num_flat = [], 0
    for place in _places(hr, tile_options):
        top, bottom, left, right = place.box
        tile = hr[top:bottom, left:right]
        if tile_options.min_detail > 0 and detail(tile) < tile_options.min_detail:
            num_flat += 1
            continue
        small = lr[top // scale : bottom // scale, left // scale : right // scale]
        name = source.key if tile_options.tile is None else f"{source.key}_r{place.row:02d}c{place.column:02d}"
        samples.append(EncodedSample(name, whole or encode(tile, hr_suffix), encode(small, lr_suffix)))
    return CutImage(samples, num_flat, reencoded)


def stored_tiles(source: Source, tile_options: TileOptions) -> Iterator[NDArray[np.uint8]]:
    """Read an image and cut it into HR tiles, with the pixels that readers of its shard would decode.

    Args:
        source: The image.
        tile_options: How it is cut; flat tiles are not left out.

    Yields:
        uint8 [H, W, 3], row by row.

    Raises:
        UserError: The image is unreadable or unsuitable.
    """
    pixels, whole, _ = _read_whole(source, tile_options)
    if whole is not None:
        yield pixels
        return
    hr = modcrop(pixels, tile_options.scale)
    for place in _places(hr, tile_options):
        top, bottom, left, right = place.box
        yield hr[top:bottom, left:right]


def _read_whole(source: Source, tile_options: TileOptions) -> tuple[NDArray[np.uint8], bytes | None, bool]:
    """Return the pixels, the JPEG to store (None where tiles are stored), and whether it was encoded here."""
    if tile_options.encoding != "jpeg":
        return read_rgb(source.hr), None, False
    own = own_jpeg(source)
    if own is not None:
        return _decoded(source, own), own, False
    # The LR image is made from the stored JPEG, not from the image before it: they have to be a pair.
    made = encode(read_rgb(source.hr), suffixes("jpeg")[0])
    return decode(made), made, True


class _Place(NamedTuple):
    row: int
    column: int
    box: tuple[int, int, int, int]  # top, bottom, left, right


def _places(hr: NDArray[np.uint8], tile_options: TileOptions) -> Iterator[_Place]:
    for row, (top, bottom) in enumerate(_spans(hr.shape[0], tile_options)):
        for column, (left, right) in enumerate(_spans(hr.shape[1], tile_options)):
            yield _Place(row, column, (top, bottom, left, right))


def own_jpeg(source: Source) -> bytes | None:
    """Read the bytes of a JPEG file that can be stored as it is: upright, RGB or grey.

    Args:
        source: The image.

    Returns:
        Its bytes, or None where the image has to be encoded first.

    Raises:
        UserError: The image is unreadable or unsuitable.
    """
    with open_image(source.hr) as image:
        if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L") or orientation(image) != 1:
            return None
        return source.hr.read_bytes()


def _decoded(source: Source, data: bytes) -> NDArray[np.uint8]:
    try:
        return decode(data)
    except ValueError as error:
        raise UserError(f"{source.hr}: cannot be read as an image ({error}): replace or remove it") from error


def detail(tile: NDArray[np.uint8]) -> float:
    """Measure the amount of detail in a tile.

    Args:
        tile: uint8 [H, W, 3].

    Returns:
        Mean absolute difference of luma (BT.601, 0..255) between neighbouring pixels, in levels: the mean over.
        the neighbours to the right and that over those below, averaged. 0 is uniform; a clear sky has about 1.
    """
    luma = tile.astype(np.int32) @ _LUMA
    means = [float(np.abs(np.diff(luma, axis=axis)).mean()) / 1000 for axis in (0, 1) if luma.shape[axis] > 1]
    return sum(means) / len(means) if means else 0.0


def _spans(length: int, tile_options: TileOptions) -> list[tuple[int, int]]:
    if tile_options.tile is None:
        return [(0, length)]
    if tile_options.stride is None or tile_options.stride == tile_options.tile:
        return list(pairwise(split_side(length, tile=tile_options.tile, scale=tile_options.scale)))
    return overlapping(length, tile=tile_options.tile, stride=tile_options.stride, scale=tile_options.scale)


def split_side(length: int, *, tile: int, scale: int) -> list[int]:
    """Split a side into as few parts as possible, of nearly equal length.

    Args:
        length: Length of the side in pixels, a multiple of `scale`.
        tile: Maximum part in pixels, a multiple of `scale`.
        scale: Every part is a multiple of it.

    Returns:
        The parts' edges: 0, ..., length, ascending.
    """
    units = length // scale
    parts = -(-units // (tile // scale))
    return [units * i // parts * scale for i in range(parts + 1)]


def overlapping(length: int, *, tile: int, stride: int, scale: int) -> list[tuple[int, int]]:
    """Cover a side with as few equal, overlapping tiles as possible, at most `stride` apart and evenly spaced.

    Args:
        length: Length of the side in pixels, a multiple of `scale`.
        tile: Side of a tile in pixels, a multiple of `scale`.
        stride: Maximum distance between the starts of two tiles in pixels, a multiple of `scale`.
        scale: Every edge is a multiple of it.

    Returns:
        (begin, end) of each tile; a single, shorter one where the side is shorter than a tile.
    """
    if length <= tile:
        return [(0, length)]
    free = (length - tile) // scale
    steps = -(-free // (stride // scale))
    return [(free * i // steps * scale, free * i // steps * scale + tile) for i in range(steps + 1)]
