"""PNG files of 16 bits a channel with colour or alpha, for which Pillow has no mode."""

from __future__ import annotations

import struct
import zlib
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray

_BAND = 64  # rows that are filtered at a time
_INCH = 0.0254  # metres
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels


def decode_png16(data: bytes) -> NDArray[np.uint16]:
    """Decode a PNG of 16 bits a channel.

    Args:
        data: The file.

    Returns:
        uint16 [H, W, C]: grey, grey and alpha, RGB or RGBA; a transparent colour is not applied.

    Raises:
        RuntimeError: It is damaged.
    """
    # Imported here, as it takes a second, and such files are rare.
    from torchvision.io import ImageReadMode, decode_png

    decoded = decode_png(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.UNCHANGED)
    pixels: NDArray[np.uint16] = np.ascontiguousarray(decoded.permute(1, 2, 0).numpy())
    return pixels


def write_png16(
    file: IO[bytes],
    pixels: NDArray[np.uint16],
    *,
    icc_profile: bytes | None,
    dpi: tuple[float, float] | None,
    exif: bytes | None,
) -> None:
    """Write a PNG of 16 bits a channel.

    Args:
        file: Where to.
        pixels: uint16 [H, W, C]: grey, grey and alpha, RGB or RGBA.
        icc_profile: Colour profile.
        dpi: Pixels an inch, horizontally and vertically.
        exif: EXIF, with or without its JPEG prefix.

    Source:
        W3C, Portable Network Graphics, third edition.
    """
    height, width, channels = pixels.shape
    file.write(b"\x89PNG\r\n\x1a\n")
    _chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPES[channels], 0, 0, 0))
    if icc_profile:
        _chunk(file, b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc_profile))
    if dpi:
        _chunk(file, b"pHYs", struct.pack(">IIB", *(round(value / _INCH) for value in dpi), 1))
    if exif:
        _chunk(file, b"eXIf", exif.removeprefix(b"Exif\0\0"))
    packer = zlib.compressobj()
    above = np.zeros((1, width * channels * 2), dtype=np.uint8)
    for top in range(0, height, _BAND):
        rows = pixels[top : top + _BAND].astype(">u2").reshape(-1, width * channels).view(np.uint8)
        filtered = _paeth(rows, np.concatenate([above, rows[:-1]]), step=2 * channels)
        above = rows[-1:]
        if packed := packer.compress(np.pad(filtered, ((0, 0), (1, 0)), constant_values=4).tobytes()):
            _chunk(file, b"IDAT", packed)
    _chunk(file, b"IDAT", packer.flush())
    _chunk(file, b"IEND", b"")


def _chunk(file: IO[bytes], kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


def _paeth(rows: NDArray[np.uint8], above: NDArray[np.uint8], *, step: int) -> NDArray[np.uint8]:
    """Filter 4 of PNG: the difference of each byte to the neighbour that is nearest to left + up - corner."""
    up = above.astype(np.int16)
    left, corner = (np.pad(part.astype(np.int16), ((0, 0), (step, 0)))[:, :-step] for part in (rows, above))
    to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    nearest = np.where(to_up <= to_corner, up, corner)
    predicted = np.where((to_left <= to_up) & (to_left <= to_corner), left, nearest)
    return (rows - predicted).astype(np.uint8)
