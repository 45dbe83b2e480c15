"""Bits a channel, where Pillow reads more than 8 of them as 8 and does not say so."""

from __future__ import annotations

from typing import IO, Any

from PIL import Image

_HEADER = 1 << 16  # bytes in which the mark below stands
_SIZE_MARK = b"\xff\x4f\xff\x51"  # JPEG 2000: begin of the codestream, then its sizes
_DEPTH_OF_FIRST = 42  # bytes from there to the first channel's depth, less one, with its sign in the highest bit


def loses_depth(file: IO[bytes], image: Image.Image) -> bool:
    """Whether an image has more than 8 bits a channel, although its mode says 8.

    Of PNG and TIFF the raw mode tells. An AVIF file of 10 bits is read as 8, which is what a screen shows of it.

    Args:
        file: The image's file, whose position stays.
        image: The opened image; its pixels are not read.
    """
    if image.format == "PPM":
        tiles: list[Any] = getattr(image, "tile", [])
        return image.mode == "RGB" and any(isinstance(args, tuple) and args[1] > 255 for *_, args in tiles)
    if image.format != "JPEG2000":
        return False
    position = file.tell()
    file.seek(0)
    header = file.read(_HEADER)
    file.seek(position)
    sizes = header.find(_SIZE_MARK)
    depth = header[sizes + _DEPTH_OF_FIRST] if 0 <= sizes < len(header) - _DEPTH_OF_FIRST else 7
    return image.mode.startswith(("RGB", "LA")) and depth & 0x7F > 7
