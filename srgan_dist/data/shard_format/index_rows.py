"""The layout of index.npy, one row per sample, and mapping it into memory. shards/README.md specifies it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srgan_dist.data.shard_format.manifest import Manifest
from srgan_dist.errors import UserError
from srgan_dist.utils.files import file_sha256

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
        sha256 = file_sha256(path)
        # A plain array over the mapping: slicing a numpy.memmap takes several times as long.
        index: Rows = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}): pack again") from error
    if sha256 != manifest.index_sha256:
        raise UserError(
            f"{path}: sha256 is {sha256[:12]}..., the manifest says {manifest.index_sha256[:12]}...: "
            "copy it again, or pack again"
        )
    if index.dtype != ROW or index.shape != (manifest.num_samples,):
        raise UserError(
            f"{path}: has shape {index.shape} and type {index.dtype}, expected ({manifest.num_samples},) and "
            f"{ROW}: pack again"
        )
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
            beyond = np.flatnonzero(rows[f"{side}_offset"] + rows[f"{side}_size"] > lengths[shards])
            if beyond.size:
                shard = path.parent / manifest.shards[int(shards[beyond[0]])].name
                raise UserError(
                    f"{path}: the {side} of sample {start + beyond[0]} lies beyond the end of {shard}: pack again"
                )
    wrong = np.flatnonzero(samples != [shard.samples for shard in manifest.shards])
    if wrong.size:
        name, number = manifest.shards[wrong[0]].name, samples[wrong[0]]
        raise UserError(
            f"{path}: has {number} samples of {name}, the manifest says {manifest.shards[wrong[0]].samples}: pack again"
        )
