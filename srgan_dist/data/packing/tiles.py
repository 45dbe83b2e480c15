"""From one image to its samples: where tiles lie, how much detail they have, and their encoded bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from srgan_dist.data.packing.pairing import Source
from srgan_dist.data.shard_format.encodings import Encoding, decode, encode, suffixes
from srgan_dist.errors import UserError
from srgan_dist.imaging.read import open_image, orientation, read_rgb
from srgan_dist.imaging.resize import downscale, modcrop

_LUMA = np.array([299, 587, 114], dtype=np.int32)  # ITU-R BT.601, in thousandths: whole numbers add up exactly


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """How images become samples.

    Attributes:
        scale: HR pixels per LR pixel.
        tile: greatest side of a tile in HR pixels; None keeps images whole.
        stride: pixels from tile to tile, at most `tile`; None splits without overlap into nearly equal parts.
        min_detail: tiles with less `detail` are left out; 0 keeps all.
        encoding: of the members.
    """

    scale: int
    tile: int | None
    stride: int | None
    min_detail: float
    encoding: Encoding


class Sample(NamedTuple):
    """One tile, encoded: its key, and the data of its members."""

    key: str
    hr: bytes
    lr: bytes


class Cut(NamedTuple):
    """What became of one image.

    Attributes:
        samples: its tiles, row by row.
        num_flat: tiles left out for want of detail.
        reencoded: whether it was encoded as JPEG here, not being an upright RGB or grey JPEG of its own.
    """

    samples: list[Sample]
    num_flat: int
    reencoded: bool


def cut_image(source: Source, cutting: Cutting) -> Cut:
    """Read an image and make its samples.

    Args:
        source: the image, and its LR image where one was given.
        cutting: how.

    Returns:
        The samples; none where all were flat.

    Raises:
        UserError: an image is unreadable or unsuitable, or was changed to another size.
    """
    pixels, whole, reencoded = _read_whole(source, cutting)
    hr_suffix, lr_suffix = suffixes(cutting.encoding)
    scale = cutting.scale
    hr = modcrop(pixels, scale)
    # The LR image is made from the whole image: made tile by tile, its borders would be wrong.
    lr = downscale(hr, scale) if source.lr is None else read_rgb(source.lr)
    if (lr.shape[0] * scale, lr.shape[1] * scale) != hr.shape[:2]:
        raise UserError(f"{source.lr}: is {lr.shape[0]}x{lr.shape[1]} now, and was another size before: pack again")
    samples, num_flat = [], 0
    for place in _places(hr, cutting):
        top, bottom, left, right = place.box
        tile = hr[top:bottom, left:right]
        if cutting.min_detail > 0 and detail(tile) < cutting.min_detail:
            num_flat += 1
            continue
        small = lr[top // scale : bottom // scale, left // scale : right // scale]
        name = source.key if cutting.tile is None else f"{source.key}_r{place.row:02d}c{place.column:02d}"
        samples.append(Sample(name, whole or encode(tile, hr_suffix), encode(small, lr_suffix)))
    return Cut(samples, num_flat, reencoded)


def stored_tiles(source: Source, cutting: Cutting) -> Iterator[NDArray[np.uint8]]:
    """Read an image and cut it into what readers of its shard would decode as HR tiles.

    Args:
        source: the image.
        cutting: how; flat tiles are not left out.

    Yields:
        uint8 [H, W, 3], row by row.

    Raises:
        UserError: the image is unreadable or unsuitable.
    """
    pixels, whole, _ = _read_whole(source, cutting)
    if whole is not None:
        yield pixels
        return
    hr = modcrop(pixels, cutting.scale)
    for place in _places(hr, cutting):
        top, bottom, left, right = place.box
        yield hr[top:bottom, left:right]


def _read_whole(source: Source, cutting: Cutting) -> tuple[NDArray[np.uint8], bytes | None, bool]:
    """The pixels, the JPEG that they are stored as (None where tiles are stored), and whether it was made here."""
    if cutting.encoding != "jpeg":
        return read_rgb(source.hr), None, False
    own = own_jpeg(source)
    if own is not None:
        return _decoded(source, own), own, False
    # What is learnt is the pair that is stored: LR of the JPEG, not of the image before it.
    made = encode(read_rgb(source.hr), suffixes("jpeg")[0])
    return decode(made), made, True


class _Place(NamedTuple):
    row: int
    column: int
    box: tuple[int, int, int, int]  # top, bottom, left, right


def _places(hr: NDArray[np.uint8], cutting: Cutting) -> Iterator[_Place]:
    for row, (top, bottom) in enumerate(_spans(hr.shape[0], cutting)):
        for column, (left, right) in enumerate(_spans(hr.shape[1], cutting)):
            yield _Place(row, column, (top, bottom, left, right))


def own_jpeg(source: Source) -> bytes | None:
    """Read a file's bytes where it is a JPEG that a shard can hold as it is: upright, RGB or grey.

    Args:
        source: the image.

    Returns:
        Its bytes, or None where it must be encoded first.

    Raises:
        UserError: it is unreadable or unsuitable.
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
    """Measure how much there is to see in a tile.

    Args:
        tile: uint8 [H, W, 3].

    Returns:
        Mean absolute difference of luma (BT.601, 0..255) between neighbouring pixels, in levels: the mean over
        the neighbours to the right and that over those below, averaged. 0 is uniform; a clear sky has about 1.
    """
    luma = tile.astype(np.int32) @ _LUMA
    means = [float(np.abs(np.diff(luma, axis=axis)).mean()) / 1000 for axis in (0, 1) if luma.shape[axis] > 1]
    return sum(means) / len(means) if means else 0.0


def _spans(length: int, cutting: Cutting) -> list[tuple[int, int]]:
    if cutting.tile is None:
        return [(0, length)]
    if cutting.stride is None or cutting.stride == cutting.tile:
        return list(pairwise(split_side(length, tile=cutting.tile, scale=cutting.scale)))
    return overlapping(length, tile=cutting.tile, stride=cutting.stride, scale=cutting.scale)


def split_side(length: int, *, tile: int, scale: int) -> list[int]:
    """Split a side into the fewest parts that fit, of nearly equal length.

    Args:
        length: pixels, a multiple of `scale`.
        tile: greatest part in pixels, a multiple of `scale`.
        scale: every part is a multiple of it.

    Returns:
        The parts' edges: 0, ..., length, ascending.
    """
    units = length // scale
    parts = -(-units // (tile // scale))
    return [units * i // parts * scale for i in range(parts + 1)]


def overlapping(length: int, *, tile: int, stride: int, scale: int) -> list[tuple[int, int]]:
    """Cover a side with equal tiles that overlap: the fewest at most `stride` apart, spread evenly.

    Args:
        length: pixels, a multiple of `scale`.
        tile: side of a tile in pixels, a multiple of `scale`.
        stride: greatest distance between the beginnings of two tiles in pixels, a multiple of `scale`.
        scale: every edge is a multiple of it.

    Returns:
        (begin, end) of each; one shorter tile where the side is shorter than a tile.
    """
    if length <= tile:
        return [(0, length)]
    free = (length - tile) // scale
    steps = -(-free // (stride // scale))
    return [(free * i // steps * scale, free * i // steps * scale + tile) for i in range(steps + 1)]
