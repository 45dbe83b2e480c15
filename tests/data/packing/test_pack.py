"""Packing images: what the shards hold, how pairs are matched, and what is refused."""

from __future__ import annotations

import gc
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset
from numpy.typing import NDArray
from PIL import Image

from srgan_dist.data.packing.pack import pack
from srgan_dist.data.packing.pairing import make_key
from srgan_dist.data.shard_format.manifest import read_manifest
from srgan_dist.errors import UserError
from srgan_dist.imaging.listing import list_images
from srgan_dist.imaging.read import read_rgb
from srgan_dist.imaging.resize import downscale, modcrop

Pixels = NDArray[np.uint8]
Maker = Callable[..., Pixels]


def save(path: Path, image: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def read_with_webdataset(folder: Path) -> dict[str, tuple[Pixels, Pixels]]:
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves closing its files to the collector
        dataset = webdataset.WebDataset(urls, shardshuffle=False).decode()
        samples = {sample["__key__"]: (sample["hr.npy"], sample["lr.npy"]) for sample in dataset}
        del dataset
        gc.collect()
    return samples


def assemble(samples: dict[str, tuple[Pixels, Pixels]], key: str, side: int) -> Pixels:
    tiles = {
        name.removeprefix(f"{key}_r"): pair[side] for name, pair in samples.items() if name[: -len("_r00c00")] == key
    }
    rows = sorted({name[:2] for name in tiles})
    columns = sorted({name[3:] for name in tiles})
    return np.vstack([np.hstack([tiles[f"{row}c{column}"] for column in columns]) for row in rows])


def test_webdataset_reads_tiles_that_make_up_the_whole_image(photos: Path, packed: Path) -> None:
    samples = read_with_webdataset(packed)
    keys = {make_key(path.relative_to(photos)): path for path in list_images(photos)}
    assert list(keys) == ["a", "b_b", "more_c"]
    assert {key[: -len("_r00c00")] for key in samples} == set(keys)
    for key, path in keys.items():
        hr = modcrop(read_rgb(path), 4)
        np.testing.assert_array_equal(assemble(samples, key, 0), hr)
        # LR of the whole image: made tile by tile, its inner borders would differ.
        np.testing.assert_array_equal(assemble(samples, key, 1), downscale(hr, 4))
    for hr, lr in samples.values():
        assert max(hr.shape[:2]) <= 64
        assert hr.shape == (lr.shape[0] * 4, lr.shape[1] * 4, 3)


def test_manifest_describes_the_folder(packed: Path) -> None:
    manifest = read_manifest(packed)
    assert (manifest.scale, manifest.tile, manifest.encoding, manifest.num_images) == (4, 64, "raw", 3)
    assert "bicubic" in manifest.kernel
    assert manifest.num_samples == len(read_with_webdataset(packed)) == sum(s.samples for s in manifest.shards)
    assert len(manifest.shards) > 2
    names = {path.name for path in packed.iterdir()}
    assert names == {"index.npy", "manifest.json", "pack.json"} | {shard.name for shard in manifest.shards}
    assert manifest == read_manifest(packed / "manifest.json")


def test_shards_are_near_the_requested_size(photos: Path, tmp_path: Path) -> None:
    manifest = pack(photos, tmp_path / "out", tile=32, shard_bytes=40_000)
    for shard in manifest.shards:
        assert shard.bytes <= 40_000 + tarfile.RECORDSIZE
    tiny = pack(photos, tmp_path / "tiny", tile=64, shard_bytes=1)
    assert {shard.samples for shard in tiny.shards} == {1}


def test_the_same_images_give_the_same_bytes(photos: Path, packed: Path, tmp_path: Path) -> None:
    pack(photos, tmp_path / "again", scale=4, tile=64, shard_bytes=60_000)
    for path in packed.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_progress_is_reported_per_image(photos: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    (tmp_path / "out").mkdir()  # an empty folder may be there
    pack(photos, tmp_path / "out", on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_keys_are_safe_and_bounded() -> None:
    assert make_key(Path("a/b.c d.png")) == "a_b_c_d"
    assert make_key(Path("\u5bcc\u58eb.png")) == "\u5bcc\u58eb"
    long_keys = {make_key(Path("\u5bcc" * 60 + f"{i}.png")) for i in range(3)}
    assert len(long_keys) == 3
    assert max(len(key.encode()) for key in long_keys) <= 72


@pytest.mark.parametrize(
    "names", ["{}.png", "{}x4.png", "{}_x4.png", "{}LRx4.png", "{}_LR.png", "{}-X4.bmp", "{}x4_lq.webp"]
)
def test_given_lr_images_are_matched_by_name(tmp_path: Path, make_image: Maker, names: str) -> None:
    for i, stem in enumerate(["0001", "sub/0002", "matrix4"]):
        hr = make_image(41, 58, i)
        save(tmp_path / "hr" / f"{stem}.png", hr)
        path = tmp_path / "lr" / names.format(stem)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make_image(10, 14, i + 10)).save(path, lossless=True)
    manifest = pack(tmp_path / "hr", tmp_path / "out", lr_dir=tmp_path / "lr")
    assert "given" in manifest.kernel
    samples = read_with_webdataset(tmp_path / "out")
    for i, key in enumerate(["0001", "sub_0002", "matrix4"]):
        np.testing.assert_array_equal(samples[f"{key}_r00c00"][0], make_image(41, 58, i)[:40, :56])
        np.testing.assert_array_equal(samples[f"{key}_r00c00"][1], make_image(10, 14, i + 10))


def test_names_marked_hr_and_lr_are_matched(tmp_path: Path, make_image: Maker) -> None:
    save(tmp_path / "hr" / "img_001_SRF_4_HR.png", make_image(40, 40))
    save(tmp_path / "lr" / "img_001_SRF_4_LR.png", make_image(10, 10))
    assert pack(tmp_path / "hr", tmp_path / "out", lr_dir=tmp_path / "lr").num_samples == 1


def refused(tmp_path: Path, **arguments: object) -> str:
    """Pack tmp_path/hr, expect a refusal, and that it left nothing behind."""
    before = sorted(tmp_path.rglob("*"))
    options = {"hr_dir": tmp_path / "hr", "out": tmp_path / "out"} | arguments
    with pytest.raises(UserError) as caught:
        pack(**options)  # type: ignore[arg-type]
    assert sorted(tmp_path.rglob("*")) == before
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_every_pairing_fault_is_named(tmp_path: Path, make_image: Maker) -> None:
    for name in ["a", "b", "c", "d", "e"]:
        save(tmp_path / "hr" / f"{name}.png", make_image(40, 48))
    lr = tmp_path / "lr"
    for name in ["a", "c", "cx4", "f", "ex2"]:
        save(lr / f"{name}.png", make_image(10, 12))
    message = refused(tmp_path, lr_dir=lr)
    assert f": 6 faults: {lr / 'ex2.png'} has no HR image; {lr / 'f.png'} has no HR image; " in message
    assert message.endswith(
        f"{tmp_path / 'hr' / 'b.png'} has no LR image; and 3 more (--on-error skip leaves such files out)"
    )


def test_wrong_ratio_is_named(tmp_path: Path, make_image: Maker) -> None:
    save(tmp_path / "hr" / "a.png", make_image(41, 48))
    save(tmp_path / "lr" / "a.png", make_image(12, 12))
    message = refused(tmp_path, lr_dir=tmp_path / "lr")
    lr = tmp_path / "lr" / "a.png"
    assert f"1 fault: {lr} is 12x12, expected 10x12 or, rounded up, 11x12 (hr 41x48 / scale 4)" in message
    save(tmp_path / "hr" / "a.png", make_image(40, 48))
    save(tmp_path / "lr" / "a.png", make_image(11, 12))
    assert f"{lr} is 11x12, expected 10x12 (hr 40x48 / scale 4)" in refused(tmp_path, lr_dir=tmp_path / "lr")


def test_bad_images_are_named(tmp_path: Path, make_image: Maker) -> None:
    assert "does not exist" in refused(tmp_path)
    (tmp_path / "hr").mkdir()
    assert "holds no images" in refused(tmp_path)
    save(tmp_path / "hr" / "good.png", make_image(40, 40))
    save(tmp_path / "hr" / "thin.png", make_image(3, 40))
    (tmp_path / "hr" / "zero.png").touch()
    message = refused(tmp_path)
    assert "2 faults" in message
    assert "thin.png is 3x40, smaller than one LR pixel at scale 4" in message
    assert "zero.png: is empty" in message


def test_an_image_that_breaks_midway_leaves_nothing(tmp_path: Path, make_image: Maker) -> None:
    for i in range(3):
        save(tmp_path / "hr" / f"{i}.png", make_image(40, 40, i))
    last = tmp_path / "hr" / "2.png"
    last.write_bytes(last.read_bytes()[:2000])  # its header is still good
    assert f"{last}: cannot be read as an image" in refused(tmp_path)


def test_an_interrupt_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(photos, tmp_path / "out", on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_two_images_of_one_key_are_refused(tmp_path: Path, make_image: Maker) -> None:
    save(tmp_path / "hr" / "a.b.png", make_image(40, 40))
    save(tmp_path / "hr" / "a_b.bmp", make_image(40, 40))
    assert "a.b.png and" in (message := refused(tmp_path))
    assert "give the same key 'a_b'" in message


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"scale": 0}, "scale is 0, allowed are 1 to 8"),
        ({"scale": 16}, "scale is 16, allowed are 1 to 8"),
        ({"tile": 482}, "tile is 482, allowed are multiples of scale 4 up to 65528: take 480, for example"),
        ({"tile": 0}, "tile is 0"),
        ({"tile": 70_000}, "tile is 70000"),
        ({"shard_bytes": 0}, "shard_bytes is 0"),
    ],
)
def test_numbers_out_of_range_are_refused(photos: Path, tmp_path: Path, numbers: dict[str, int], words: str) -> None:
    assert words in refused(tmp_path, hr_dir=photos, **numbers)


def test_output_folders_that_are_taken_are_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    assert "is a file" in refused(tmp_path, hr_dir=photos, out=tmp_path / "file")
    assert "cannot be written (Not a directory)" in refused(tmp_path, hr_dir=photos, out=tmp_path / "file" / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    assert "is not empty" in refused(tmp_path, hr_dir=photos, out=tmp_path / "full")

    def no_space(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    assert "cannot be written (No space left on device)" in refused(tmp_path, hr_dir=photos)
