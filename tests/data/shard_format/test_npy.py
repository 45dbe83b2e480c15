"""Headers of .npy files: what NumPy writes is read, and nothing else, whatever it claims."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from srgan_dist.data.shard_format.encodings import read_size, view_npy
from srgan_dist.data.shard_format.index_rows import ROW, map_rows
from srgan_dist.data.shard_format.npy import read_npy_header

U1 = np.dtype(np.uint8)


def saved(array: np.typing.NDArray[np.generic], version: tuple[int, int] = (1, 0)) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=version)
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 0), (480, 480, 3), (1, 2, 3, 4, 5), (65535, 1, 3)])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_what_numpy_writes_is_read(shape: tuple[int, ...], version: tuple[int, int]) -> None:
    data = saved(np.ones(shape, dtype=np.uint8), version)
    header = read_npy_header(data, len(data), dtype=U1)
    assert header.shape == shape
    assert data[header.size :] == b"\1" * int(np.prod(shape))


@pytest.mark.parametrize("order", "<>=")
def test_single_bytes_may_have_an_order(order: str) -> None:
    data = saved(np.ones((4, 5, 3), dtype=np.uint8)).replace(b"'|u1'", f"'{order}u1'".encode())
    assert read_npy_header(data, len(data), dtype=U1).shape == (4, 5, 3)


def test_no_bit_of_a_header_ends_in_anything_but_a_value_error() -> None:
    pixels = np.arange(6 * 5 * 3, dtype=np.uint8).reshape(6, 5, 3)
    sound = saved(pixels)
    read, reasons = 0, list[str]()
    for bit in range(8 * 128):
        data = bytearray(sound)
        data[bit // 8] ^= 1 << bit % 8
        try:
            height, width = read_size(bytes(data), "npy")
            assert view_npy(bytes(data)).tobytes() == pixels.tobytes()
            assert height * width == 30
            read += 1
        except ValueError as error:
            reasons.append(str(error))
    assert read + len(reasons) == 1024
    assert read < 16  # the minor differences that mean nothing
    assert "".join(reasons).isprintable()


def test_no_bit_of_an_index_header_ends_in_anything_but_a_value_error(tmp_path: Path) -> None:
    path = tmp_path / "index.npy"
    sound = saved(np.zeros(3, dtype=ROW))
    reasons: set[str] = set()
    for bit in range(8 * 320):
        data = bytearray(sound)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            assert len(map_rows(path)) == 3
        except ValueError as error:
            reasons.add(str(error))
    assert 1 < len(reasons) < 2560
    assert "".join(reasons).isprintable()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 4, 3)), r"is <f8 \(4, 4, 3\), expected uint8 in C order"),
        (np.asfortranarray(np.zeros((4, 4, 3), np.uint8)), r"is \|u1 \(4, 4, 3\), in Fortran order, expected"),
        (np.zeros((0, 0, 3), np.uint8), r"is uint8 \(0, 0, 3\), expected uint8 \(height, width, 3\)"),
        (np.zeros((4, 4), np.uint8), r"is uint8 \(4, 4\), expected"),
        (np.zeros((4, 4, 4), np.uint8), r"is uint8 \(4, 4, 4\), expected"),
    ],
)
def test_other_arrays_are_no_pixels(array: np.typing.NDArray[np.generic], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_size(saved(array), "npy")


def test_a_claimed_size_is_compared_with_the_bytes_before_anything_is_allocated() -> None:
    data = saved(np.zeros((10, 10, 3), dtype=np.uint8))
    claimed = data.replace(b"(10, 10, 3), }      ", b"(990000, 999999, 3)}")
    with pytest.raises(ValueError, match="its header is damaged"):
        read_size(claimed, "npy")
    claimed = data.replace(b"(10, 10, 3), }        ", b"(990000, 999999, 3), }")
    with pytest.raises(ValueError, match="takes 2969997030000 bytes, 300 are there"):
        read_size(claimed, "npy")
    for other in (data[:-1], data + b"\0"):  # readers find pixels by counting from the end
        with pytest.raises(ValueError, match=r"takes 300 bytes, (299|301) are there"):
            read_size(other, "npy")
    with pytest.raises(ValueError, match=r"its header is damaged|does not begin as one"):
        read_size(b"", "npy")


def test_an_empty_index_is_one_without_rows(tmp_path: Path) -> None:
    (tmp_path / "index.npy").write_bytes(saved(np.zeros(0, dtype=ROW)))
    assert len(map_rows(tmp_path / "index.npy")) == 0
    (tmp_path / "index.npy").write_bytes(b"")
    with pytest.raises(ValueError, match="does not begin as one"):
        map_rows(tmp_path / "index.npy")
