"""One sample of a shard: reading its images, and whether they belong together."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from srgan_dist.data.checking.image import Header, read_header, read_pixels
from srgan_dist.data.checking.pairs import compare, is_turned
from srgan_dist.data.checking.samples import Half
from srgan_dist.data.checking.tar import Member, read_at
from srgan_dist.imaging.resize import modcrop

_MAX_BYTES, _MAX_SIDE = 2**32 - 1, 2**16 - 1  # what a row of the index can hold


class Part(NamedTuple):
    """One image of a sample as it was found.

    Attributes:
        member: where it lies.
        crc: zlib.crc32 of its data.
        header: what its first bytes say.
        pixels: uint8 [H, W, 3]; None where they were not asked for, or are damaged.
    """

    member: Member
    crc: int
    header: Header
    pixels: NDArray[np.uint8] | None


class Looked(NamedTuple):
    """A sample whose images could be read.

    Attributes:
        shard: path of its tar.
        key: its key.
        hr: the HR image.
        lr: the LR image; None where it is to be made on the fly.
        scale: HR pixels per LR pixel; None where nothing says it.
    """

    shard: Path
    key: str
    hr: Part
    lr: Part | None
    scale: int | None


class Remark(NamedTuple):
    """Something to tell about an image of a sample; a note, where it is no fault."""

    member: Member
    what: str
    is_fault: bool = True


def read_part(file: BinaryIO, half: Half, *, look: bool, tell: Callable[[Remark], None]) -> Part | int:
    """Read one image of a sample.

    Args:
        file: the tar.
        half: where it lies.
        look: whether to decode its pixels.
        tell: called with each remark.

    Returns:
        The image; where not even its size can be told, the zlib.crc32 of its data.
    """
    member = half.member
    if member.size > _MAX_BYTES:
        tell(Remark(member, f"has {member.size} bytes, the index can say {_MAX_BYTES}"))
        return 0
    data = read_at(file, member.offset, member.size)
    crc = zlib.crc32(data)
    try:
        header = read_header(data, half.suffix)
    except ValueError as error:
        tell(Remark(member, str(error)))
        return crc
    if max(header.height, header.width) > _MAX_SIDE:
        tell(Remark(member, f"is {header.height}x{header.width}, the index can say {_MAX_SIDE} a side"))
    for note in header.notes:
        tell(Remark(member, note, is_fault=False))
    try:
        return Part(member, crc, header, read_pixels(data, half.suffix) if look else None)
    except ValueError as error:
        tell(Remark(member, str(error)))
        return Part(member, crc, header, None)


def kind_remarks(hr: Part, lr: Part | None, encoding: str) -> Iterator[Remark]:
    """Compare the kinds of a sample's images with the encoding that a manifest says.

    Args:
        hr: the HR image.
        lr: the LR image, if there is one.
        encoding: raw, png, webp or jpeg.

    Yields:
        What disagrees.
    """
    lr_encoding = "png" if encoding == "jpeg" else encoding  # see codec.suffixes
    for part, expected in ((hr, encoding), (lr, lr_encoding)):
        if part and part.header.encoding != expected:
            # Readers tell image files apart by their first bytes, but raw pixels need the manifest's word.
            misread = "raw" in (part.header.encoding, expected)
            what = f"holds {part.header.encoding}, the manifest's {encoding} expects {expected}"
            yield Remark(part.member, what, is_fault=misread)


def pair_remarks(hr: Part, lr: Part | None, *, scale: int | None, any_kernel: bool) -> Iterator[Remark]:
    """Tell whether an HR and an LR image belong together.

    Args:
        hr: the HR image.
        lr: the LR image; None where it is to be made on the fly.
        scale: HR pixels per LR pixel; None where nothing says it.
        any_kernel: see `check_pairs.compare`.

    Yields:
        Wrong sizes; else, where both were decoded, what `compare` says.
    """
    high = hr.header[:2]
    if scale and hr.header.encoding == "raw" and (high[0] % scale or high[1] % scale):
        # Rows of raw tiles are found by their width; other images are read as if cut.
        yield Remark(hr.member, f"is {high[0]}x{high[1]}, not a multiple of scale {scale}")
    if scale and min(high) < scale:
        yield Remark(hr.member, f"is {high[0]}x{high[1]}, smaller than one LR pixel at scale {scale}")
        return
    if lr is None:
        return
    low = lr.header[:2]
    if scale is None:
        yield Remark(lr.member, f"is {low[0]}x{low[1]}, hr {high[0]}x{high[1]}: no whole ratio")
        return
    expected = (high[0] // scale, high[1] // scale)
    if low != expected:
        what = f"is {low[0]}x{low[1]}, expected {expected[0]}x{expected[1]} (hr {high[0]}x{high[1]} / scale {scale})"
        if low == expected[::-1] and hr.pixels is not None and lr.pixels is not None:
            turned = is_turned(modcrop(hr.pixels, scale), lr.pixels, scale=scale)
            what += ": likeliest HR turned by 90 degrees" if turned else ""
        yield Remark(lr.member, what)
    elif hr.pixels is not None and lr.pixels is not None:
        lossless = hr.header.lossless and lr.header.lossless
        cut = modcrop(hr.pixels, scale)
        verdict = compare(cut, lr.pixels, scale=scale, lossless=lossless, any_kernel=any_kernel)
        if verdict and (verdict.fault or verdict.note):
            yield Remark(lr.member, verdict.fault or verdict.note, is_fault=bool(verdict.fault))
