"""Sizes, rates and durations as people write them."""

from __future__ import annotations

import re

from srgan_dist.errors import UserError

_BYTES = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "KI": 1024, "MI": 1024**2, "GI": 1024**3}
_BITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}


def parse_bytes(text: str, *, name: str) -> int:
    """Read a number of bytes as people write it.

    Args:
        text: `256MiB`, `1.5GB`, `500M` or plain bytes; with an i in powers of 1024, else of 1000.
        name: of the option, for the message.

    Returns:
        Bytes, >= 1.

    Raises:
        UserError: it is no such number.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]I?|)B?", text.strip().upper())
    size = int(float(match[1]) * _BYTES[match[2]]) if match else 0
    if size < 1:
        raise UserError(f"{name} is {text!r}, expected a size such as 256MiB, 1GB or 500000000")
    return size


def parse_bandwidth(text: str, *, name: str) -> float:
    """Read a bandwidth as people write it.

    Args:
        text: ``200Gb/s`` or ``200Gbit/s`` in bits, ``25GB/s`` in bytes.
        name: of the option, for the message.

    Returns:
        Bytes a second, above 0.

    Raises:
        UserError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGTkmgt]?)(b|bit|B)(?:/s|ps)", text.strip())
    value = float(match[1]) * _BITS[match[2].upper()] / (1 if match[3] == "B" else 8) if match else 0.0
    if not value:
        raise UserError(f"{name} is {text!r}, expected a bandwidth such as 200Gb/s (bits) or 25GB/s (bytes)")
    return value


def parse_seconds(text: str, *, name: str) -> float:
    """Read a duration as people write it.

    Args:
        text: such as ``5us``, ``69ms`` or ``0.2s``.
        name: of the option, for the message.

    Returns:
        Seconds, above 0.

    Raises:
        UserError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(ns|us|ms|s)", text.strip())
    value = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not value:
        raise UserError(f"{name} is {text!r}, expected a duration above 0 such as 5us, 69ms or 0.2s")
    return value


def duration(seconds: float) -> str:
    """Seconds as hours, minutes and seconds: ``0:01:30``."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
