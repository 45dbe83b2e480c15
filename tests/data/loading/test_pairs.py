"""Patches read from shards: the right pixels, the right errors, and files that stay within limits."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from srgan_dist.data.loading.loader import to_device
from srgan_dist.data.loading.order import digest
from srgan_dist.data.loading.pairs import Batch, PairDataset
from srgan_dist.data.packing.pack import pack
from srgan_dist.data.shards import patch_reader
from srgan_dist.data.shards.patch_reader import PatchReader, ShardError, Tile
from srgan_dist.data.shards.shard_set import ShardSet, open_shards
from srgan_dist.errors import UserError
from srgan_dist.imaging.resize import downscale

Pixels = NDArray[np.uint8]


def member(shards: ShardSet, sample: int, side: str) -> Pixels:
    row = shards.index[sample]
    with shards.shard_paths[row["shard"]].open("rb") as file:
        file.seek(int(row[f"{side}_offset"]))
        array: Pixels = np.load(file)
    return array


def as_images(batch: torch.Tensor) -> Pixels:
    images: Pixels = batch.permute(0, 2, 3, 1).numpy()
    return images


def num_open_files() -> int:
    gc.collect()  # what earlier tests left does not count
    listing = Path("/proc/self/fd")
    return len(list(listing.iterdir())) if listing.is_dir() else 0


def assert_same(one: Batch, other: Batch) -> None:
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b)


def test_patches_are_slices_of_the_tiles(shards: ShardSet) -> None:
    dataset = PairDataset(shards, patch_size=24, seed=3)
    positions = list(range(dataset.num_patches - 20, dataset.num_patches + 20))
    batch = dataset.at(positions)
    patches = dataset.order.patches(positions)
    assert len(set(patches.sample.tolist())) > 8
    for i, (sample, top, left) in enumerate(zip(patches.sample, patches.top, patches.left, strict=True)):
        lr = member(shards, sample, "lr")[top : top + 6, left : left + 6]
        np.testing.assert_array_equal(as_images(batch.lr)[i], lr)
        hr = member(shards, sample, "hr")[top * 4 : top * 4 + 24, left * 4 : left * 4 + 24]
        np.testing.assert_array_equal(as_images(batch.hr)[i], hr)
    assert batch.symmetry.tolist() == patches.symmetry.tolist()
    np.testing.assert_array_equal(batch.digest, digest(patches))


def test_batches_are_channels_last_bytes(shards: ShardSet) -> None:
    batch = PairDataset(shards, patch_size=24, seed=3).at([5, 1, 9])
    assert batch.hr.shape == (3, 3, 24, 24)
    assert batch.lr.shape == (3, 3, 6, 6)
    assert batch.hr.dtype == batch.lr.dtype == batch.symmetry.dtype == torch.uint8
    assert batch.digest.dtype == torch.int64
    assert batch.digest.shape == (3,)
    assert batch.hr.is_contiguous(memory_format=torch.channels_last)
    assert batch.lr.is_contiguous(memory_format=torch.channels_last)


def test_one_position_is_a_batch_of_one(shards: ShardSet) -> None:
    dataset = PairDataset(shards, patch_size=24, seed=3)
    assert_same(dataset.at(7), dataset.at([7]))


def test_lr_is_the_downscaled_hr_before_and_after_the_flips(make_image: Callable[..., Pixels], tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "hr").mkdir()
    Image.fromarray(make_image(160, 200)).save(tmp_path / "hr" / "a.png")
    pack(tmp_path / "hr", tmp_path / "out", tile=160)
    dataset = PairDataset(open_shards([tmp_path / "out"]), patch_size=48, seed=0)
    batch = dataset.at(range(40))
    assert set(batch.symmetry.tolist()) == set(range(8))
    ready = to_device(batch, "cpu")
    for hr, lr in ((batch.hr, batch.lr), (ready.hr * 255, ready.lr * 255)):
        for one, other in zip(as_images(hr.round().byte()), as_images(lr.round().byte()), strict=True):
            # Inside, away from borders that the kernel sees differently, they agree but for rounding.
            inner = downscale(one, 4)[2:-2, 2:-2].astype(int) - other[2:-2, 2:-2]
            assert np.abs(inner).max() <= 1


def test_patch_sizes_are_checked(shards: ShardSet) -> None:
    with pytest.raises(
        UserError, match=r"data\.patch_size is 26, allowed are multiples of the shards' scale 4: take 24"
    ):
        PairDataset(shards, patch_size=26, seed=0)
    with pytest.raises(UserError, match=r"data\.patch_size is 0"):
        PairDataset(shards, patch_size=0, seed=0)
    with pytest.raises(UserError, match=r"\d+ of \d+ tiles are smaller than the 64x64 patch"):
        PairDataset(shards, patch_size=64, seed=0)
    with pytest.raises(UserError, match=r"data\.degradation\.margin is 6, allowed are .* scale 4: take 4"):
        PairDataset(shards, patch_size=24, margin=6, seed=0)
    with pytest.raises(
        UserError,
        match=r"than the 64x64 patch \(data\.patch_size 24 \+ the degradation's margin 40\), .*: "
        r"lower data\.patch_size or data\.degradation\.margin, or pack again with --min-side 64",
    ):
        PairDataset(shards, patch_size=24, margin=40, seed=0)


def test_a_margin_is_read_in_addition_to_the_patch(shards: ShardSet) -> None:
    wide = PairDataset(shards, patch_size=24, margin=8, seed=3)
    assert_same(wide.at(range(20)), PairDataset(shards, patch_size=32, seed=3).at(range(20)))


def test_a_truncated_shard_is_named_while_reading(packed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(packed, tmp_path / "copy")
    shards = open_shards([folder])
    dataset = PairDataset(shards, patch_size=24, seed=0)
    dataset.at(range(40))  # all shards are open by now
    row = shards.index[0]
    os.truncate(folder / "shard-000000.tar", int(row["hr_offset"]) + 200)
    with pytest.raises(ShardError) as caught:
        dataset.at(range(dataset.num_patches))
    message = str(caught.value)
    assert message.startswith(str(folder / "shard-000000.tar"))
    assert "wanted" in message
    assert "got 0" in message or "got 72" in message
    out = np.empty((24, 24, 3), dtype=np.uint8)
    tile = Tile(0, int(row["hr_offset"]), int(row["hr_size"]), int(row["height"]), int(row["width"]))
    start, count = tile.offset + 128, 24 * tile.width * 3
    words = rf"member 'a_r00c00.hr.npy' at offset 512: wanted {count} bytes at {start}, got 72: the shard was cut"
    with pytest.raises(ShardError, match=words):
        PatchReader(shards).read_patch(tile, top=0, left=0, out=out)


def test_what_stands_in_the_place_of_a_header_is_not_printed(packed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(packed, tmp_path / "copy")
    row = open_shards([folder]).index[0]
    tile = Tile(0, 10**9, int(row["hr_size"]), int(row["height"]), int(row["width"]))
    out = np.empty((24, 24, 3), dtype=np.uint8)
    for name, shown in ((b"a\nb\0", r"'a\\nb'"), (b"\0" * 500, r"\(header lost\)")):
        with (folder / "shard-000000.tar").open("r+b") as file:
            file.write(name)
            file.truncate(1000)
        first = tile._replace(offset=512)
        with pytest.raises(ShardError, match=f"member {shown} at offset 512: wanted"):
            PatchReader(open_like(packed, folder)).read_patch(first, top=0, left=0, out=out)
    with pytest.raises(ShardError, match=r"\(header lost\)"):
        PatchReader(open_like(packed, folder)).read_patch(tile._replace(offset=0), top=0, left=0, out=out)


def open_like(packed: Path, folder: Path) -> ShardSet:
    """The shards of a folder that were sound when they were opened."""
    shards = open_shards([packed])
    shards.shard_paths = tuple(folder / path.name for path in shards.shard_paths)
    return shards


def test_a_vanished_shard_is_named_while_reading(packed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(packed, tmp_path / "copy")
    dataset = PairDataset(open_shards([folder]), patch_size=24, seed=0)
    (folder / "shard-000000.tar").unlink()
    with pytest.raises(ShardError, match=r"shard-000000.tar: cannot be read \(No such file or directory\)"):
        dataset.at(range(dataset.num_patches))


def test_a_pickled_dataset_reads_the_same(shards: ShardSet) -> None:
    dataset = PairDataset(shards, patch_size=24, seed=3)
    expected = dataset.at(range(10))
    assert_same(pickle.loads(pickle.dumps(dataset)).at(range(10)), expected)


def test_a_fork_opens_its_own_files(shards: ShardSet) -> None:
    dataset = PairDataset(shards, patch_size=24, seed=3)
    expected = dataset.at(range(10)).hr.numpy().tobytes()
    parents = set(dataset._reader._files.values())
    assert parents
    receiver, sender = multiprocessing.get_context("fork").Pipe(duplex=False)

    def child() -> None:
        found = dataset.at(range(10)).hr.numpy().tobytes()
        sender.send((found, set(dataset._reader._files.values()) & parents))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    sender.close()  # so that recv ends when the child fails
    assert receiver.recv() == (expected, set())
    process.join()
    assert dataset.at(range(10)).hr.numpy().tobytes() == expected
    receiver.close()


def test_few_files_stay_open(shards: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_reader, "_MAX_OPEN", 2)
    gc.collect()  # closes the files that other tests' exceptions still hold
    before = num_open_files()
    dataset = PairDataset(shards, patch_size=24, seed=3)
    assert len(shards.shard_paths) > 2
    batch = dataset.at(range(40))
    assert len(dataset._reader._files) == 2
    del dataset
    after = num_open_files()
    assert after == before
    assert_same(batch, PairDataset(shards, patch_size=24, seed=3).at(range(40)))
