"""Encodes images as members of shards, and decodes them."""

from __future__ import annotations

import io
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import assert_never

from srgan_dist.imaging.read import why_unsuitable

Encoding = Literal["raw", "png", "webp", "jpeg"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)

_JPEG_QUALITY = 95  # for sources that are not JPEGs themselves


def suffixes(encoding: Encoding) -> tuple[str, str]:
    """Return the suffixes of the members of a pair.

    Args:
        encoding: Encoding of the shards.

    Returns:
        (HR suffix, LR suffix), without a dot. LR beside JPEG is PNG: the network's input must be lossless.
    """
    match encoding:
        case "raw":
            return "npy", "npy"
        case "png":
            return "png", "png"
        case "webp":
            return "webp", "webp"
        case "jpeg":
            return "jpg", "png"
        case _:
            assert_never(encoding)


def encode(pixels: NDArray[np.uint8], suffix: str) -> bytes:
    """Encode an image.

    Args:
        pixels: uint8 [H, W, 3], RGB.
        suffix: npy, png, webp (lossless), or jpg (quality 95).

    Returns:
        The member's data, the same for the same pixels and library.
    """
    buffer = io.BytesIO()
    pixels = np.ascontiguousarray(pixels)
    if suffix == "npy":
        np.lib.format.write_array(buffer, pixels, version=(1, 0), allow_pickle=False)
    elif suffix == "jpg":
        Image.fromarray(pixels).save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    else:
        Image.fromarray(pixels).save(buffer, format=suffix.upper(), lossless=True)
    return buffer.getvalue()


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode an image file, whose format is detected from its first bytes; an EXIF orientation is not applied.

    Args:
        data: A PNG, WebP or JPEG file, or another that Pillow reads.

    Returns:
        uint8 [H, W, 3], RGB; may be read-only.

    Raises:
        ValueError: The data is damaged, truncated or no image.
    """
    try:
        # Pillow, not torchvision.io: that is 2 % (WebP) to 20 % (JPEG) faster, but deprecated since 0.29.
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except Exception as error:  # decoders raise many types: OSError, SyntaxError, struct.error ...
        raise ValueError(_why(error)) from error


def read_size(data: bytes, suffix: str) -> tuple[int, int]:
    """Read an encoded image's size from its header, and refuse images that a shard may not hold.

    Args:
        data: Data of the member.
        suffix: "npy", or any other suffix for an image file.

    Returns:
        (height, width) in pixels, as `decode` returns them.

    Raises:
        ValueError: The data is no image of 8 bits per channel.
    """
    if suffix == "npy":
        return _npy_size(data)
    try:
        with Image.open(io.BytesIO(data)) as image:
            unsuitable = why_unsuitable(image)
            width, height = image.size
    except Exception as error:
        raise ValueError(f"is not an image ({_why(error)})") from error
    if unsuitable:
        raise ValueError(unsuitable)
    return height, width


def _npy_size(data: bytes) -> tuple[int, int]:
    try:
        image = np.load(io.BytesIO(data), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"is not a .npy array ({_why(error)})") from error
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.flags.c_contiguous:
        raise ValueError(f"is {image.dtype} {image.shape}, expected uint8 (height, width, 3)")
    return int(image.shape[0]), int(image.shape[1])


def _why(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
