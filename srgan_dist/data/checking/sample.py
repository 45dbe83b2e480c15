"""Reads the images of one sample, and checks that they belong together."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from srgan_dist.data.checking.image import ImageHeader, read_image_header, read_pixels
from srgan_dist.data.checking.pairs import compare, is_rotated
from srgan_dist.data.checking.samples import Half
from srgan_dist.data.shard_format.index_rows import MAX_BYTES, MAX_SIDE
from srgan_dist.data.shard_format.tar import Member, read_at
from srgan_dist.imaging.resize import modcrop


class SampleImage(NamedTuple):
    """One image of a sample, as read from the tar.

    Attributes:
        member: Where it is stored.
        crc: zlib.crc32 of its data.
        header: What its first bytes say.
        pixels: uint8 [H, W, 3]; None where they were not decoded, or are damaged.
    """

    member: Member
    crc: int
    header: ImageHeader
    pixels: NDArray[np.uint8] | None


class InspectedSample(NamedTuple):
    """A sample whose images could be read.

    Attributes:
        shard: Path of its tar.
        key: Its key.
        hr: The HR image.
        lr: The LR image; None where it is made during training.
        scale: HR pixels per LR pixel; None where it is unknown.
    """

    shard: Path
    key: str
    hr: SampleImage
    lr: SampleImage | None
    scale: int | None


class Remark(NamedTuple):
    """A finding about an image of a sample, before it is known in which shard.

    Attributes:
        member: Where the image is stored.
        what: What is wrong.
        is_fault: Whether it makes the data unsound; otherwise it is a note.
    """

    member: Member
    what: str
    is_fault: bool = True


def read_sample_image(
    file: BinaryIO, half: Half, *, inspect: bool, report: Callable[[Remark], None]
) -> SampleImage | int:
    """Read one image of a sample.

    Args:
        file: The tar.
        half: Where it is stored.
        inspect: Whether to decode its pixels.
        report: Called with each remark.

    Returns:
        The image; where not even its size can be read, or no index can hold it, the zlib.crc32 of its data.
    """
    member = half.member
    if member.size > MAX_BYTES:
        report(Remark(member, f"has {member.size} bytes, the index can hold {MAX_BYTES}"))
        return 0
    data = read_at(file, member.offset, member.size)
    crc = zlib.crc32(data)
    try:
        header = read_image_header(data, half.suffix)
    except ValueError as error:
        report(Remark(member, str(error)))
        return crc
    if max(header.height, header.width) > MAX_SIDE:
        report(Remark(member, f"is {header.height}x{header.width}, the index can hold {MAX_SIDE} a side"))
        return crc
    for note in header.notes:
        report(Remark(member, note, is_fault=False))
    try:
        return SampleImage(member, crc, header, read_pixels(data, half.suffix) if inspect else None)
    except ValueError as error:
        report(Remark(member, str(error)))
        return SampleImage(member, crc, header, None)


def kind_remarks(hr: SampleImage, lr: SampleImage | None, encoding: str) -> Iterator[Remark]:
    """Compare the encodings of a sample's images with that of the manifest.

    Args:
        hr: The HR image.
        lr: The LR image, if there is one.
        encoding: "raw", "png", "webp" or "jpeg".

    Yields:
        Each difference.
    """
    lr_encoding = "png" if encoding == "jpeg" else encoding  # see encodings.suffixes
    for part, expected in ((hr, encoding), (lr, lr_encoding)):
        if part and part.header.encoding != expected:
            # Readers detect image files by their first bytes, but raw pixels only from the manifest.
            misread = "raw" in (part.header.encoding, expected)
            what = f"holds {part.header.encoding}, the manifest's {encoding} expects {expected}"
            yield Remark(part.member, what, is_fault=misread)


def pair_remarks(hr: SampleImage, lr: SampleImage | None, *, scale: int | None, any_kernel: bool) -> Iterator[Remark]:
    """Check that an HR and an LR image belong together.

    Args:
        hr: The HR image.
        lr: The LR image; None where it is made during training.
        scale: HR pixels per LR pixel; None where it is unknown.
        any_kernel: LR was degraded on purpose; see `pairs.compare`.

    Yields:
        Wrong sizes; otherwise, where both were decoded, the outcome of `compare`.
    """
    high = hr.header[:2]
    if scale and hr.header.encoding == "raw" and (high[0] % scale or high[1] % scale):
        # Rows of raw tiles are located by their width; other images are read as if cropped.
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
            rotated = is_rotated(modcrop(hr.pixels, scale), lr.pixels, scale=scale)
            what += ": most likely HR rotated by 90 degrees" if rotated else ""
        yield Remark(lr.member, what)
    elif hr.pixels is not None and lr.pixels is not None:
        lossless = hr.header.lossless and lr.header.lossless
        cut = modcrop(hr.pixels, scale)
        verdict = compare(cut, lr.pixels, scale=scale, lossless=lossless, any_kernel=any_kernel)
        if verdict and (verdict.fault or verdict.note):
            yield Remark(lr.member, verdict.fault or verdict.note, is_fault=bool(verdict.fault))
