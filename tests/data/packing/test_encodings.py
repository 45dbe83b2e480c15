"""Every encoding, from images to patches; the webdataset library reads the shards too."""

from __future__ import annotations

import gc
import io
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from numpy.typing import NDArray
from PIL import Image

from srgan_dist.data.loading.pairs import PairDataset
from srgan_dist.data.packing.pack import pack
from srgan_dist.data.shard_format.manifest import read_manifest
from srgan_dist.data.shards.patch_reader import ShardError
from srgan_dist.data.shards.shard_set import open_shards
from srgan_dist.imaging.read import read_rgb
from srgan_dist.imaging.resize import downscale, modcrop

Pixels = NDArray[np.uint8]
Maker = Callable[..., Pixels]


def read_with_webdataset(folder: Path, hr: str, lr: str) -> dict[str, tuple[Pixels, Pixels]]:
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves closing its files to the collector
        dataset = webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8")
        samples = {sample["__key__"]: (sample[f"hr.{hr}"], sample[f"lr.{lr}"]) for sample in dataset}
        del dataset
        gc.collect()
    return samples


@pytest.fixture(scope="module")
def folders(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("encodings")
    for encoding in ("raw", "png", "webp"):
        pack(photos, out / encoding, encoding=encoding, tile=64, shard_bytes=60_000)
    return {encoding: out / encoding for encoding in ("raw", "png", "webp")}


@pytest.fixture(scope="module")
def jpegs(make_image: Maker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jpegs")
    for number, (height, width) in enumerate([(121, 163), (64, 130), (90, 53)]):
        Image.fromarray(make_image(height, width, number)).save(folder / f"{number}.jpg", quality=90)
    return folder


@pytest.mark.parametrize("encoding", ["png", "webp"])
def test_webdataset_reads_lossless_shards(folders: dict[str, Path], encoding: str) -> None:
    raw = read_with_webdataset(folders["raw"], "npy", "npy")
    found = read_with_webdataset(folders[encoding], encoding, encoding)
    assert list(found) == list(raw)
    for key in raw:
        np.testing.assert_array_equal(found[key][0], raw[key][0])
        np.testing.assert_array_equal(found[key][1], raw[key][1])
    sizes = {name: sum(shard.bytes for shard in read_manifest(folders[name]).shards) for name in ("raw", encoding)}
    assert sizes[encoding] < sizes["raw"]


@pytest.mark.parametrize("encoding", ["png", "webp"])
def test_patches_are_those_of_raw_shards(folders: dict[str, Path], encoding: str) -> None:
    raw = PairDataset(open_shards([folders["raw"]]), patch_size=24, seed=3)
    other = PairDataset(open_shards([folders[encoding]]), patch_size=24, seed=3)
    for one, two in zip(raw.at(range(64)), other.at(range(64)), strict=True):
        assert torch.equal(one, two)


def test_jpeg_shards_hold_the_sources_own_bytes(jpegs: Path, tmp_path: Path) -> None:
    manifest = pack(jpegs, tmp_path / "out", encoding="jpeg")
    assert (manifest.encoding, manifest.tile, manifest.num_samples, manifest.num_reencoded) == ("jpeg", 160, 3, 0)
    shards = open_shards([tmp_path / "out"])
    data = shards.shard_paths[0].read_bytes()
    for number, row in enumerate(shards.index):
        start = int(row["hr_offset"])
        assert data[start : start + int(row["hr_size"])] == (jpegs / f"{number}.jpg").read_bytes()
    samples = read_with_webdataset(tmp_path / "out", "jpg", "png")
    dataset = PairDataset(shards, patch_size=24, seed=1)
    batch, patches = dataset.at(range(40)), dataset.order.patches(range(40))
    for i, (sample, top, left) in enumerate(zip(patches.sample, patches.top, patches.left, strict=True)):
        image = modcrop(read_rgb(jpegs / f"{sample}.jpg"), 4)
        np.testing.assert_array_equal(samples[str(sample)][1], downscale(image, 4))
        hr, lr = batch.hr[i].permute(1, 2, 0).numpy(), batch.lr[i].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(hr, image[top * 4 : top * 4 + 24, left * 4 : left * 4 + 24])
        np.testing.assert_array_equal(lr, downscale(image, 4)[top : top + 6, left : left + 6])


def test_other_files_are_encoded_as_jpeg_and_counted(photos: Path, jpegs: Path, tmp_path: Path) -> None:
    shutil.copytree(jpegs, tmp_path / "mixed")
    shutil.copy(photos / "a.png", tmp_path / "mixed" / "a.png")
    manifest = pack(tmp_path / "mixed", tmp_path / "out", encoding="jpeg")
    assert (manifest.num_samples, manifest.num_reencoded) == (4, 1)


@pytest.mark.parametrize("encoding", ["raw", "png", "jpeg"])
def test_missing_lr_is_made_from_the_whole_image(photos: Path, jpegs: Path, tmp_path: Path, encoding: str) -> None:
    pack(jpegs if encoding == "jpeg" else photos, tmp_path / "out", encoding=encoding)
    dataset = PairDataset(open_shards([tmp_path / "out"]), patch_size=24, seed=1)
    expected = dataset.at(range(60))
    without = open_shards([tmp_path / "out"])
    without.index = without.index.copy()
    without.index["lr_size"] = without.index["lr_offset"] = 0
    found = PairDataset(without, patch_size=24, seed=1).at(range(60))
    assert torch.equal(found.hr, expected.hr)
    assert torch.equal(found.lr, expected.lr)


def damage(folder: Path, offset: int, data: bytes) -> None:
    with (folder / "shard-000000.tar").open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_members_that_cannot_be_decoded_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["png"], tmp_path / "copy")
    row = open_shards([folder]).index[0]
    damage(folder, int(row["hr_offset"]) + 60, b"\0" * 400)
    dataset = PairDataset(open_shards([folder]), patch_size=24, seed=0)
    with pytest.raises(
        ShardError, match=r"shard-000000.tar: member 'a_r00c00.hr.png' at offset 512: cannot be decoded"
    ):
        dataset.at(range(dataset.num_patches))


def test_members_of_another_size_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["png"], tmp_path / "copy")
    row = open_shards([folder]).index[0]
    small = io.BytesIO()
    Image.new("RGB", (20, 20)).save(small, format="PNG")
    damage(folder, int(row["hr_offset"]), small.getvalue())
    dataset = PairDataset(open_shards([folder]), patch_size=24, seed=0)
    with pytest.raises(ShardError, match=rf"is 20x20, the index says {row['height']}x{row['width']}: pack again"):
        dataset.at(range(dataset.num_patches))


def test_a_manifest_may_lack_the_counts(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["png"], tmp_path / "copy")
    content = json.loads((folder / "manifest.json").read_text())
    for name in ("num_skipped", "num_small", "num_flat", "num_reencoded", "num_validation"):
        del content[name]
    (folder / "manifest.json").write_text(json.dumps(content))
    assert open_shards([folder]).shard_encodings[0] == "png"
