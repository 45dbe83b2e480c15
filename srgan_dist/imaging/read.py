"""Reads image files as 8-bit RGB, or refuses them by name."""

from __future__ import annotations

import os
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from srgan_dist.errors import UserError
from srgan_dist.imaging.listing import SUFFIXES

# Pillow detects some fifty formats by their first bytes, whatever the name, and starts Ghostscript for one of them.
FILE_FORMATS = tuple(SUFFIXES)
MEMBER_FORMATS = ("PNG", "JPEG", "WEBP")  # of members of shards
MAX_PIXELS = "SRGAN_DIST_MAX_PIXELS"  # in the environment, so that it serves every command and its processes alike
_BAND = 512  # rows that are copied at a time
_PLAIN_MODES = ("1", "L", "P", "RGB")
_ALPHA_MODES = ("LA", "PA", "RGBA")
_SIXTEEN_BIT = re.compile(r"(?!BGR)[A-Za-z]+;16")  # "BGR;16" is the 5-6-5 bit layout of BMP
_EXIF_ORIENTATION = 0x0112
_PNG_TEXT = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")  # chunks that may hold the orientation


class TooManyPixels(ValueError):
    """An image is larger than is allowed; the message says how to allow it."""


def open_picture(file: IO[bytes], *, formats: tuple[str, ...]) -> Image.Image:
    """Read an image's header, if it is of a format that is meant, and not so large that it may be an attack.

    The limit is that of Pillow, `PIL.Image.MAX_IMAGE_PIXELS`, 89 million unless a program has changed it, or what the
    environment's SRGAN_DIST_MAX_PIXELS says.

    Args:
        file: The file, which the caller closes after the image.
        formats: `FILE_FORMATS` or `MEMBER_FORMATS`.

    Returns:
        The image; its pixels are not read yet.

    Raises:
        UserError: SRGAN_DIST_MAX_PIXELS is not a whole number.
        TooManyPixels: The image is larger than the limit.
        Exception: It is damaged or of another format; Pillow's decoders raise many types.
    """
    limit = _max_pixels()
    try:
        image = Image.open(file, formats=formats)
    except UnidentifiedImageError:
        raise ValueError(
            f"it is no {', '.join(formats[:-1])} or {formats[-1]} file, or its header is damaged"
        ) from None
    except Image.DecompressionBombError as error:  # more than twice the limit
        raise TooManyPixels(_too_many(re.findall(r"[0-9]+", str(error))[0], limit)) from None
    if limit is not None and (pixels := image.width * image.height) > limit:
        image.close()
        raise TooManyPixels(_too_many(pixels, limit))
    return image


def _max_pixels() -> int | None:
    if text := os.environ.get(MAX_PIXELS):
        if not re.fullmatch("[1-9][0-9]{0,17}", text):
            raise UserError(f"{MAX_PIXELS} is {text!r}, allowed is a whole number of 1 or more")
        Image.MAX_IMAGE_PIXELS = int(text)  # beyond twice its own limit, Pillow refuses by itself
    return Image.MAX_IMAGE_PIXELS


def _too_many(pixels: int | str, limit: int | None) -> str:
    return f"has {pixels} pixels, allowed are {limit}: if you trust it and have the memory, set {MAX_PIXELS}={pixels}"


def read_size(path: str | Path) -> tuple[int, int]:
    """Read an image's size from its header; refuses images that `read_rgb` refuses because of their header.

    Args:
        path: Image file.

    Returns:
        (height, width) in pixels, after the EXIF orientation.

    Raises:
        UserError: The file is unreadable, or of a kind that is not 8-bit RGB or grey.
    """
    with open_image(Path(path)) as image:
        if image.format == "PNG" and _has_text_behind_pixels(Path(path)):
            image.load()  # also reads the chunks behind the pixels
        width, height = image.size  # of a TIFF, Pillow gives the upright one
        turned = orientation(image) in (5, 6, 7, 8) and image.format != "TIFF"
        return (width, height) if turned else (height, width)


def read_rgb(path: str | Path) -> NDArray[np.uint8]:
    """Read an image as 8-bit RGB, turned upright by its EXIF orientation.

    Grey and palette images become RGB; an alpha channel is dropped only where it is opaque everywhere.

    Args:
        path: Image file.

    Returns:
        uint8 [H, W, 3], C-contiguous and writable.

    Raises:
        UserError: The file is empty, truncated or unreadable, or is 16-bit, CMYK, animated or transparent.
    """
    with open_image(Path(path)) as image:
        ImageOps.exif_transpose(image, in_place=True)
        upright = image if image.mode == "RGB" and "transparency" not in image.info else _opaque(image, path)
        return pixel_array(upright)


def _opaque(image: Image.Image, path: str | Path) -> Image.Image:
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        lowest, _ = image.getchannel("A").getextrema()
        if lowest != 255:
            raise UserError(
                f"{path}: has transparent pixels (alpha down to {lowest}), allowed are opaque images: "
                "flatten it onto a background first"
            )
    return image.convert("RGB")


def pixel_array(image: Image.Image) -> NDArray[Any]:
    """Copy an image's pixels; NumPy's own way takes three times the memory on its way.

    Args:
        image: Of 8 bits a channel, or I;16.

    Returns:
        uint8 or uint16 [H, W, C], or [H, W] of one channel; writable.
    """
    first = np.asarray(image.crop((0, 0, image.width, 1)))
    pixels = np.empty((image.height, *first.shape[1:]), dtype=first.dtype.newbyteorder("="))
    for top in range(0, image.height, _BAND):
        bottom = min(top + _BAND, image.height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return pixels


def orientation(image: Image.Image) -> int:
    """Read the EXIF orientation of an image.

    Args:
        image: An opened image; its pixels are not read.

    Returns:
        The orientation, from 1 (upright, also if there is none) to 8.
    """
    # The base class's method, as that of PNG images decodes the whole image to find EXIF behind the pixels.
    return int(Image.Image.getexif(image).get(_EXIF_ORIENTATION, 1))


def frames_problem(image: Image.Image) -> str | None:
    """Explain why an opened image is not a single picture, or return None."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # MPO: a camera's JPEG with previews behind the photograph
        return f"is animated or has pages ({frames} frames), allowed is one: extract it first"
    return None


def raw_modes(image: Image.Image) -> list[str]:
    """How the pixels stand in an opened image's file, such as ``RGB;16B``; empty after they were read."""
    tiles: list[Any] = getattr(image, "tile", [])  # of files alone
    return [str(args if isinstance(args, str) else args[0]) for *_, args in tiles if args]


def has_sixteen_bits(image: Image.Image) -> bool:
    """Whether an opened image has more than 8 bits a channel; Pillow silently reads those of RGB as 8."""
    named = image.mode.startswith("I;16") or any(_SIXTEEN_BIT.match(mode) for mode in raw_modes(image))
    return named or _depth_of_header(image) > 8


def _depth_of_header(image: Image.Image) -> int:
    """Bits a channel of formats whose raw mode does not say it; 8 for the others, and after the pixels were read."""
    tiles: list[Any] = getattr(image, "tile", [])
    file: IO[bytes] | None = getattr(image, "fp", None)
    if image.format == "PPM" and tiles and tiles[0][0] in ("ppm", "ppm_plain"):
        return int(tiles[0][3][1]).bit_length()  # the largest value
    if image.format == "JPEG2000" and tiles and file:
        position = file.tell()
        file.seek(0)
        _, found, size = file.read(1 << 16).partition(b"\xff\x4f\xff\x51")  # ISO 15444-1: SOC and SIZ
        file.seek(position)
        return (size[38] & 127) + 1 if found and len(size) > 38 else 8
    return 8


def why_unsuitable(image: Image.Image) -> str | None:
    """Explain from an image's header why it is not a single picture of 8 bits a channel.

    Args:
        image: An opened image whose pixels were not read yet.

    Returns:
        What it is, what is allowed and what to do; None if it is suitable.
    """
    if problem := frames_problem(image):
        return problem
    if image.mode.startswith(("I", "F")) or has_sixteen_bits(image):
        return f"has more than 8 bits a channel (mode {image.mode}), allowed are 8: convert it first"
    if image.mode not in _PLAIN_MODES + _ALPHA_MODES:
        allowed = ", ".join(_PLAIN_MODES + _ALPHA_MODES)
        return f"has colour mode {image.mode}, allowed are {allowed}: convert it to RGB first"
    return None


@contextmanager
def open_image(
    path: Path, *, unsuitable: Callable[[Image.Image], str | None] = why_unsuitable
) -> Iterator[Image.Image]:
    """Open an image file; any exception inside the context is reported as an unreadable file.

    Args:
        path: Image file.
        unsuitable: Says what is wrong with an opened image; by default what is not of 8 bits a channel is.

    Yields:
        The image with its header read, but not its pixels, and not turned upright.

    Raises:
        UserError: The file is empty, truncated, unreadable or unsuitable.
    """
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: is empty (0 bytes), expected an image")
        with warnings.catch_warnings():
            # Of metadata that is not read, and of sizes, which are refused in our words.
            warnings.simplefilter("ignore")
            with path.open("rb") as file, open_picture(file, formats=FILE_FORMATS) as image:
                if problem := unsuitable(image):
                    raise UserError(f"{path}: {problem}")
                yield image
    except UserError:
        raise
    except TooManyPixels as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # decoders raise many types: OSError, SyntaxError, struct.error, ...
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: cannot be read as an image ({reason}): replace or remove it") from error


def _has_text_behind_pixels(png: Path) -> bool:
    with png.open("rb") as file:
        file.seek(8)  # the signature
        seen_pixels = False
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if seen_pixels and kind in _PNG_TEXT:
                return True
            seen_pixels |= kind == b"IDAT"
            file.seek(length + 4, 1)  # the content and its checksum
    return False
