"""What opening large sets costs, in lines of Python and memory: sparse shards and real indices."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from srgan_dist.data.shard_format.index_rows import ROW
from srgan_dist.data.shard_format.manifest import Manifest, ShardEntry
from srgan_dist.data.shards.shard_set import open_shards
from srgan_dist.errors import UserError
from srgan_dist.utils.files import file_sha256
from tests.conftest import ROOT
from tests.effort import effort

MEMBER = 736_000  # bytes of a pair in the tar


def sparse_set(folder: Path, *, samples: int, shards: int) -> Path:
    """A packed folder whose tars take no space."""
    folder.mkdir()
    per_shard = samples // shards
    index = np.zeros(samples, dtype=ROW)
    index["shard"], place = np.divmod(np.arange(samples), per_shard)
    index["height"] = index["width"] = 480
    index["hr_offset"], index["hr_size"] = place * MEMBER + 512, 691_328
    index["lr_offset"], index["lr_size"] = place * MEMBER + 692_736, 43_200
    np.save(folder / "index.npy", index)
    entries = [ShardEntry(f"shard-{n:06d}.tar", per_shard * MEMBER, "0" * 64, per_shard) for n in range(shards)]
    for entry in entries:
        with open(folder / entry.name, "wb") as file:
            file.truncate(entry.bytes)
    manifest = Manifest(scale=4, tile=480, encoding="raw", kernel="", num_samples=samples, num_images=samples,
                        index_sha256=file_sha256(folder / "index.npy"), shards=tuple(entries),
                        created_by="test")  # fmt: skip
    (folder / "manifest.json").write_text(manifest.to_json())
    return folder


def test_ten_thousand_shards_are_checked_one_by_one_and_not_read(tmp_path: Path) -> None:
    """A look at each shard's size and no more: their digests are wrong here, and their 7 GB would take a minute."""
    fewer = sparse_set(tmp_path / "fewer", samples=1000, shards=1000)
    assert effort(lambda: open_shards([fewer])).lines < 500 * 1000  # 154 a shard, most of them pathlib's
    folder = sparse_set(tmp_path / "set", samples=10_000, shards=10_000)
    assert len(open_shards([folder]).shard_paths) == 10_000
    (folder / "shard-009999.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"shard-009999.tar: shard has 0 bytes, the manifest says 736000"):
        open_shards([folder])


PROGRAM = """
import sys
from srgan_dist.data.shards.shard_set import open_shards
from srgan_dist.data.loading.order import Order
from tests.effort import effort

def memory():
    lines = dict(line.split(":") for line in open("/proc/self/status").read().splitlines())
    return int(lines["VmRSS"].split()[0]) / 1024

def start():
    window = int(sys.argv[1]) or None
    shards = open_shards(sys.argv[2:], window_shards=window)
    order = Order(heights=shards.index["height"], widths=shards.index["width"], patch_size=96, scale=4, seed=0,
                  shard_samples=shards.shard_samples, window_shards=window)
    order.patches(range(16))
    return shards, order

before = memory()
kept = start()
print(memory() - before, effort(start).lines)
"""


@pytest.mark.parametrize(("folders", "window"), [(1, 0), (1, 16), (2, 0)])
def test_a_million_samples_cost_little_memory_and_no_loop_over_them(tmp_path: Path, folders: int, window: int) -> None:
    names = [str(sparse_set(tmp_path / f"set{n}", samples=1_000_000 // folders, shards=100)) for n in range(folders)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(window), *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    megabytes, lines = map(float, done.stdout.split())
    assert lines < 100_000  # of which 200 for each of the 100 shards
    assert megabytes < 52  # 40 of them are the index: mapped, so that ranks share them, or one copy of several
