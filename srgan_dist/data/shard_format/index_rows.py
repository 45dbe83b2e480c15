"""The layout of index.npy, one row per sample, and mapping it into memory. shards/README.md specifies it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srgan_dist.data.shard_format.manifest import Manifest
from srgan_dist.data.shard_format.npy import MAX_HEADER, read_npy_header
from srgan_dist.errors import UserError
from srgan_dist.utils.files import check_is_file, file_sha256

INDEX_NAME = "index.npy"
_CHUNK = 1 << 16  # rows processed together: a few MB, which stay in the processor's cache

ROW = np.dtype(
    [
        ("shard", "<u4"),
        ("height", "<u2"),  # of the HR tile, in pixels, a multiple of the scale
        ("width", "<u2"),
        ("hr_offset", "<u8"),  # of the member's data in the tar
        ("lr_offset", "<u8"),
        ("hr_size", "<u4"),  # of the member's data
        ("lr_size", "<u4"),
        ("hr_crc", "<u4"),  # zlib.crc32 of the member's data
        ("lr_crc", "<u4"),
    ]
)
Rows = NDArray[np.void]
MAX_BYTES, MAX_SIDE = 2**32 - 1, 2**16 - 1  # what a row can hold


def max_index_bytes(num_samples: int) -> int:
    """The most bytes that the index of so many samples has."""
    return MAX_HEADER + num_samples * ROW.itemsize


def map_rows(path: Path) -> Rows:
    """Map an index into memory, whatever its rows say.

    Args:
        path: Path of index.npy.

    Returns:
        `ROW` array [n], read-only.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is not an index, or is cut short.
    """
    check_is_file(path)
    with path.open("rb") as file:
        header = read_npy_header(file.read(MAX_HEADER), path.stat().st_size, dtype=ROW)
    if len(header.shape) != 1:
        raise ValueError(f"has shape {header.shape}, expected one dimension")
    if header.shape == (0,):
        return np.empty(0, dtype=ROW)  # no system maps nothing
    # A plain array over the mapping: slicing a numpy.memmap takes several times as long.
    return np.asarray(np.memmap(path, dtype=ROW, mode="r", offset=header.size, shape=header.shape))


def read_index(path: Path, manifest: Manifest) -> Rows:
    """Map an index into memory, after comparing it with its manifest.

    Args:
        path: Path of index.npy.
        manifest: Manifest of the same folder.

    Returns:
        `ROW` array [num_samples], read-only.

    Raises:
        UserError: The index is damaged, or does not match the manifest.
    """
    try:
        index = map_rows(path)
        sha256 = file_sha256(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): copy it again, or pack again") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}: copy it again, or pack again") from error
    if sha256 != manifest.index_sha256:
        raise UserError(
            f"{path}: sha256 is {sha256[:12]}..., the manifest says {manifest.index_sha256[:12]}...: "
            "copy it again, or pack again"
        )
    if len(index) != manifest.num_samples:
        raise UserError(f"{path}: has {len(index)} rows, the manifest says {manifest.num_samples}: pack again")
    _refuse_bad_rows(path, index, manifest)
    return index


def _refuse_bad_rows(path: Path, index: Rows, manifest: Manifest) -> None:
    lengths = np.array([shard.bytes for shard in manifest.shards], dtype=np.uint64)
    samples = np.zeros(lengths.size, dtype=np.int64)
    last = 0
    for start in range(0, len(index), _CHUNK):
        rows = index[start : start + _CHUNK]
        shards = rows["shard"].astype(np.int64)
        if shards.max() >= lengths.size:
            raise UserError(f"{path}: names shard {shards.max()}, the manifest has {lengths.size} shards")
        if shards[0] < last or (shards[1:] < shards[:-1]).any():
            raise UserError(f"{path}: rows are not in the order of the shards, near row {start}: pack again")
        last = int(shards[-1])
        samples += np.bincount(shards, minlength=lengths.size)
        for side in ("hr", "lr"):
            ends = lengths[shards] - np.minimum(rows[f"{side}_size"], lengths[shards])  # a sum could overflow
            beyond = np.flatnonzero((rows[f"{side}_offset"] > ends) | (rows[f"{side}_size"] > lengths[shards]))
            if beyond.size:
                shard = path.parent / manifest.shards[int(shards[beyond[0]])].name
                raise UserError(
                    f"{path}: the {side} of sample {start + beyond[0]} lies beyond the end of {shard}: pack again"
                )
        _refuse_bad_sizes(path, rows, start, manifest)
    wrong = np.flatnonzero(samples != [shard.samples for shard in manifest.shards])
    if wrong.size:
        name, number = manifest.shards[wrong[0]].name, samples[wrong[0]]
        raise UserError(
            f"{path}: has {number} samples of {name}, the manifest says {manifest.shards[wrong[0]].samples}: pack again"
        )


def _refuse_bad_sizes(path: Path, rows: Rows, start: int, manifest: Manifest) -> None:
    heights, widths = rows["height"].astype(np.int64), rows["width"].astype(np.int64)
    wrong = np.minimum(heights, widths) < manifest.scale
    wrong |= (heights % manifest.scale > 0) | (widths % manifest.scale > 0)
    if manifest.encoding == "raw":  # pixels are found by counting from the member's end
        wrong |= heights * widths * 3 > rows["hr_size"]
        wrong |= (rows["lr_size"] > 0) & (heights * widths * 3 // manifest.scale**2 > rows["lr_size"])
    if wrong.any():
        row = int(wrong.argmax())
        sizes = f"{heights[row]}x{widths[row]} in {rows['hr_size'][row]} bytes, lr in {rows['lr_size'][row]}"
        raise UserError(f"{path}: sample {start + row} is {sizes}, impossible at scale {manifest.scale}: pack again")
