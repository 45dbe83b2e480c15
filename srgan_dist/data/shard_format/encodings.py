"""Encodes images as members of shards, and decodes them."""

from __future__ import annotations

import io
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import assert_never

from srgan_dist.data.shard_format.npy import read_npy_header
from srgan_dist.imaging.read import MEMBER_FORMATS, TooManyPixels, open_picture, why_unsuitable

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


def decode(data: bytes, *, below: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Decode an image file, whose format is detected from its first bytes; an EXIF orientation is not applied.

    Args:
        data: A PNG, WebP or JPEG file.
        below: (height, width) that the image must be smaller than; None where its size is not known.

    Returns:
        uint8 [H, W, 3], RGB; may be read-only.

    Raises:
        ValueError: The data is damaged, truncated, no image, or too large, in which case nothing is decoded.
    """
    try:
        # Pillow, not torchvision.io: that is 2 % (WebP) to 20 % (JPEG) faster, but deprecated since 0.29.
        with open_picture(io.BytesIO(data), formats=MEMBER_FORMATS) as image:
            if below and not (image.height < below[0] and image.width < below[1]):
                raise ValueError(f"is {image.height}x{image.width}, expected less than {below[0]}x{below[1]}")
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except Exception as error:  # decoders raise many types: OSError, SyntaxError, struct.error ...
        raise ValueError(_why(error)) from error


def view_npy(data: bytes) -> NDArray[np.uint8]:
    """View the pixels of a .npy member that `read_size` accepts.

    Args:
        data: Data of the member.

    Returns:
        uint8 [H, W, 3], read-only.
    """
    height, width = _npy_size(data)
    return np.frombuffer(data, dtype=np.uint8)[-height * width * 3 :].reshape(height, width, 3)


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
        with open_picture(io.BytesIO(data), formats=MEMBER_FORMATS) as image:
            unsuitable = why_unsuitable(image)
            width, height = image.size
    except TooManyPixels:
        raise
    except Exception as error:
        raise ValueError(f"is not an image ({_why(error)})") from error
    if unsuitable:
        raise ValueError(unsuitable)
    if min(height, width) < 1:
        raise ValueError(f"is {height}x{width}, without pixels")
    return height, width


def _npy_size(data: bytes) -> tuple[int, int]:
    shape = read_npy_header(data, len(data), dtype=np.dtype(np.uint8)).shape
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ValueError(f"is uint8 {shape}, expected uint8 (height, width, 3)")
    return shape[0], shape[1]


def _why(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
