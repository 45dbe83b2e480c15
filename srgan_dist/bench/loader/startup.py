"""Measures the time and memory of opening many samples, with an index whose shards contain no pixels."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from srgan_dist.data.loading.pairs import PairDataset
from srgan_dist.data.shard_format.index_rows import INDEX_NAME, ROW
from srgan_dist.data.shard_format.manifest import MANIFEST_NAME, Manifest, ShardEntry
from srgan_dist.data.shards.shard_set import open_shards
from srgan_dist.utils.files import file_sha256

SIZES = (1_000_000, 10_000_000)
MOST_SECONDS = {1_000_000: 0.2, 10_000_000: 1.5}
MOST_MIB = {1_000_000: 50.0}
_SIDE, _SCALE, _PATCH, _BATCH = 480, 4, 96, 16
_SAMPLES_A_SHARD = 1000
_HEADERS = (512, 128)  # of a member in the tar, and of a .npy file


class StartUp(NamedTuple):
    """The cost of the start of one rank.

    Attributes:
        samples: Number of tiles in the index.
        shards: Number of tars.
        seconds: Time from the paths to the first batch, with the files in the page cache.
        mib: Private memory of the rank afterwards in MiB; pages of the mapped index are shared and not counted.
    """

    samples: int
    shards: int
    seconds: float
    mib: float


def start_up(work: Path, sizes: Sequence[int] = SIZES) -> list[StartUp]:
    """Open sets of several sizes, each in a new process.

    Args:
        work: Folder for one set at a time; 10 million samples take 400 MB.
        sizes: Numbers of samples.

    Returns:
        The costs, in the order of the sizes.
    """
    found = []
    for size in sizes:
        folder = work / f"start-{size}"
        shards = _write_empty_set(folder, size)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            seconds, mib = pool.submit(_open, folder).result()
        found.append(StartUp(size, shards, seconds, mib))
        (folder / INDEX_NAME).unlink()
    return found


def _open(folder: Path) -> tuple[float, float]:
    before = _own_mib()
    started = time.perf_counter()
    dataset = PairDataset(open_shards([folder]), patch_size=_PATCH, seed=0)
    dataset.at(range(_BATCH))
    return time.perf_counter() - started, _own_mib() - before


def _own_mib() -> float:
    memory: Any = psutil.Process().memory_info()
    return float(memory.rss - getattr(memory, "shared", 0)) / 2**20


def _write_empty_set(folder: Path, size: int) -> int:
    """Write an index, a manifest, and empty tars of the right length. Returns the number of tars."""
    folder.mkdir()
    number = np.arange(size)
    lengths = [_HEADERS[1] + side**2 * 3 for side in (_SIDE, _SIDE // _SCALE)]
    spans = [_HEADERS[0] + -(-length // 512) * 512 for length in lengths]
    index = np.zeros(size, dtype=ROW)
    index["shard"], place = np.divmod(number, _SAMPLES_A_SHARD)
    index["height"] = index["width"] = _SIDE
    index["hr_offset"] = place * sum(spans) + _HEADERS[0]
    index["lr_offset"] = index["hr_offset"] + spans[0]
    index["hr_size"], index["lr_size"] = lengths
    np.save(folder / INDEX_NAME, index)
    counts = np.bincount(index["shard"]).tolist()
    shards = tuple(
        ShardEntry(f"shard-{shard:06d}.tar", count * sum(spans) + 1024, "0" * 64, count)
        for shard, count in enumerate(counts)
    )
    for shard in shards:
        with open(folder / shard.name, "wb") as file:
            file.truncate(shard.bytes)  # a sparse file, which takes no space on the disk
    manifest = Manifest(
        scale=_SCALE,
        tile=_SIDE,
        encoding="raw",
        kernel="none",
        num_samples=size,
        num_images=size,
        index_sha256=file_sha256(folder / INDEX_NAME),
        shards=shards,
        created_by="srgan-dist bench",
    )
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return len(shards)
