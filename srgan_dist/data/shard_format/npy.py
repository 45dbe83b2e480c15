"""Reads headers of .npy files strictly, in the form that NumPy writes, without evaluating or allocating anything."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import numpy as np

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {1: 2, 2: 4, 3: 4}  # of the header's length, by version
MAX_HEADER = 4096  # bytes; NumPy writes 128 before pixels, and 256 before an index
_SHOWN = 40  # characters of a type in a message
# NumPy evaluates the header as Python, which ends in errors of many types, and allocates whatever shape it claims.
_HEADER = re.compile(
    r"\{'descr': (?P<type>'[^']{1,16}'|\[[^][]{1,1024}\]), "
    r"'fortran_order': (?P<fortran>False|True), "
    r"'shape': \((?P<shape>(?:[0-9]{1,15}, ?){0,8}(?:[0-9]{1,15})?)\), ?\} *\n?",
    re.ASCII,
)


class NpyHeader(NamedTuple):
    """The header of a .npy file.

    Attributes:
        type: The text of NumPy's `descr`, the type of the items.
        shape: The shape.
        size: Length of the header, where the items begin, in bytes.
    """

    type: str
    shape: tuple[int, ...]
    size: int


def read_npy_header(start: bytes | memoryview, length: int, *, dtype: np.dtype[np.generic]) -> NpyHeader:
    """Read the header of a .npy file, and compare it with the bytes that are there.

    Args:
        start: The first bytes of the file, at least `MAX_HEADER` or all.
        length: Length of the whole file in bytes.
        dtype: The type that the items must have.

    Returns:
        The header of an array of that type, in C order, whose items are exactly what follows it.

    Raises:
        ValueError: It is another file, or an array of another type, order or length.
    """
    start = bytes(start[:MAX_HEADER])
    if not start.startswith(_MAGIC):
        raise ValueError("is not a .npy array: it does not begin as one")
    count = _LENGTH_BYTES.get(start[6] if len(start) > 7 else 0)
    if count is None or start[7]:
        raise ValueError(
            f"is not a .npy array: its version is {'.'.join(map(str, start[6:8]))}, allowed are 1.0 to 3.0"
        )
    begin = len(_MAGIC) + 2 + count
    size = begin + int.from_bytes(start[begin - count : begin], "little")
    if size > len(start):
        raise ValueError(f"is not a .npy array: its header has {size} bytes, {len(start)} are there")
    text = start[begin:size].decode("latin-1")
    found = _HEADER.fullmatch(text)
    if found is None or not text.removesuffix("\n").isprintable():
        raise ValueError("is not a .npy array: its header is damaged")
    header = NpyHeader(found["type"], tuple(int(side) for side in re.findall("[0-9]+", found["shape"])), size)
    order = ", in Fortran order" if found["fortran"] == "True" else ""
    if header.type not in _descriptions(dtype) or order:
        raise ValueError(f"is {_shown(header)}{order}, expected {_short(str(dtype))} in C order")
    if (expected := math.prod(header.shape) * dtype.itemsize) != length - size:
        raise ValueError(f"is {_shown(header)}, which takes {expected} bytes, {max(length - size, 0)} are there")
    return header


def _descriptions(dtype: np.dtype[np.generic]) -> set[str]:
    """How a header may say a type: of single bytes, some writers give an order of bytes as well."""
    text = repr(np.lib.format.dtype_to_descr(dtype))
    return {text.replace("|", order) for order in "|<>="} if dtype.itemsize == 1 else {text}


def _shown(header: NpyHeader) -> str:
    return f"{_short(header.type)} {header.shape}"


def _short(dtype: str) -> str:
    return dtype.strip("'") if len(dtype) <= _SHOWN else f"{dtype[:_SHOWN]}..."
