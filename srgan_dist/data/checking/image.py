"""Inspects one image in a shard: its format and size, and whether all of it can be decoded."""

from __future__ import annotations

import io
import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srgan_dist.data.shard_format.encodings import decode, read_size, view_npy
from srgan_dist.imaging.read import MEMBER_FORMATS, open_picture, orientation

IMAGE_SUFFIXES = ("npy", "png", "webp", "jpg", "jpeg")
_SUFFIX_OF_FORMAT = {"PNG": "png", "WEBP": "webp", "JPEG": "jpg", "MPO": "jpg"}
_ENCODING_OF_SUFFIX = {"npy": "raw", "png": "png", "webp": "webp", "jpg": "jpeg"}


class ImageHeader(NamedTuple):
    """What an image's first bytes say.

    Attributes:
        height: Height in pixels.
        width: Width in pixels.
        encoding: "raw", "png", "webp" or "jpeg", from its content.
        lossless: Whether its pixels are exactly those that were encoded.
        notes: Oddities that readers of shards ignore, without harm to the pixels.
    """

    height: int
    width: int
    encoding: str
    lossless: bool
    notes: tuple[str, ...] = ()


def read_image_header(data: bytes, suffix: str) -> ImageHeader:
    """Read an image's size and format without decoding it.

    Args:
        data: The member's data.
        suffix: Suffix of the member's name, one of `IMAGE_SUFFIXES`.

    Returns:
        Its header.

    Raises:
        ValueError: It is no image, or not a single frame of 8 bits per channel.
    """
    if not data:
        raise ValueError("is empty (0 bytes), expected an image")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata that is not read, and of sizes, which are refused in our words
        height, width = read_size(data, suffix)
        if suffix == "npy":
            return ImageHeader(height, width, "raw", lossless=True)
        with open_picture(io.BytesIO(data), formats=MEMBER_FORMATS) as image:
            kind, turned = image.format or "", _orientation(image)
    found = _SUFFIX_OF_FORMAT[kind]
    notes = []
    if found != suffix.replace("jpeg", "jpg"):
        notes.append(f"is named .{suffix} but holds {kind}")
    if turned != 1:
        notes.append(f"carries EXIF orientation {turned}, which readers of shards do not apply")
    lossless = found == "png" or (found == "webp" and data[12:16] == b"VP8L")
    return ImageHeader(height, width, _ENCODING_OF_SUFFIX[found], lossless, tuple(notes))


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # Pillow would decode the whole image in search of a chunk behind the pixels
    try:
        return orientation(image)
    except Exception:  # noqa: BLE001 - a malformed EXIF has no orientation, and no reader asks
        return 1


def read_pixels(data: bytes, suffix: str) -> NDArray[np.uint8]:
    """Decode an image completely, and check what decoders do not check.

    Args:
        data: The member's data, with a header that `read_image_header` accepts.
        suffix: Suffix of the member's name.

    Returns:
        uint8 [H, W, 3], RGB, writable.

    Raises:
        ValueError: It cannot be decoded, a checksum inside it is wrong, or some of its pixels are transparent.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if suffix == "npy":
                return view_npy(data).copy()
            lowest = _lowest_alpha(data)
            pixels = np.require(decode(data), requirements="W")
        except Exception as error:  # decoders raise many types: OSError, SyntaxError, struct.error ...
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"cannot be decoded ({reason})") from error
    if lowest != 255:
        raise ValueError(f"has transparent pixels (alpha down to {lowest}), which readers silently drop")
    return pixels


def _lowest_alpha(data: bytes) -> int:
    with open_picture(io.BytesIO(data), formats=MEMBER_FORMATS) as image:
        image.verify()  # Pillow decodes a PNG without checking the checksums of its chunks
    with open_picture(io.BytesIO(data), formats=MEMBER_FORMATS) as image:
        if image.mode not in ("LA", "PA", "RGBA") and "transparency" not in image.info:
            return 255
        return int(np.asarray(image.convert("RGBA"))[..., 3].min())
