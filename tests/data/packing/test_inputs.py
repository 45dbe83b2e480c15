"""What a pack leaves out: unusable files, small images, flat tiles, and the images held out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from srgan_dist.data.packing.held_out import is_held_out
from srgan_dist.data.packing.pack import pack, summary
from srgan_dist.data.shards.shard_set import open_shards
from srgan_dist.errors import UserError
from srgan_dist.evaluation.test_sets import read_pairs
from srgan_dist.utils.units import parse_bytes
from tests.conftest import call
from tests.imaging.test_read import bad_files

Maker = Callable[..., NDArray[np.uint8]]


@pytest.fixture
def mixed(tmp_path: Path, make_image: Maker) -> Path:
    """Every unsuitable file, and three good ones."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name, data in bad_files(make_image(60, 60)).items():
        (folder / name).write_bytes(data)
    for name in ("a.png", "m.png", "z.jpg"):
        Image.fromarray(make_image(60, 68)).save(folder / name)
    return folder


def keys(folder: Path) -> set[str]:
    shards = open_shards([folder])
    found = set()
    for row in shards.index:
        with shards.shard_paths[row["shard"]].open("rb") as file:
            file.seek(int(row["hr_offset"]) - 512)
            found.add(file.read(100).split(b".")[0].decode().removesuffix("_r00c00"))
    return found


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
@pytest.mark.parametrize("workers", [1, 2])
def test_every_unsuitable_file_is_skipped_and_listed(mixed: Path, tmp_path: Path, encoding: str, workers: int) -> None:
    manifest = pack(mixed, tmp_path / "out", encoding=encoding, on_error="skip", workers=workers)
    assert keys(tmp_path / "out") == {"a", "m", "z"}
    lines = (tmp_path / "out" / "skipped.txt").read_text().splitlines()
    listed = {Path(line.split("\t")[0]).name: line.split("\t")[1] for line in lines}
    bad = set(bad_files(np.zeros((60, 60, 3), dtype=np.uint8)))
    assert set(listed) == bad
    assert all(name in reason for name, reason in listed.items())
    assert (manifest.num_images, manifest.num_skipped) == (3, len(bad))
    assert f"{len(bad)} unusable files left out (skipped.txt)" in summary(manifest)


def test_unsuitable_files_stop_a_pack_by_default(mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"faults: .*\(--on-error skip leaves such files out\)") as caught:
        pack(mixed, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mixed"]


def test_an_image_that_breaks_late_stops_and_can_then_be_skipped(tmp_path: Path, make_image: Maker) -> None:
    (tmp_path / "hr").mkdir()
    for number in range(6):
        Image.fromarray(make_image(60, 68, number)).save(tmp_path / "hr" / f"{number}.png")
    bad = tmp_path / "hr" / "4.png"
    bad.write_bytes(bad.read_bytes()[:3000])  # its header is still good
    with pytest.raises(UserError, match=r"4\.png: cannot be read as an image"):
        pack(tmp_path / "hr", tmp_path / "out", shard_bytes=20_000)
    shards = {path.name: path.stat().st_ino for path in (tmp_path / "out.partial").glob("*.tar")}
    assert len(shards) == 3  # the fourth is not known to be full
    manifest = pack(tmp_path / "hr", tmp_path / "out", shard_bytes=20_000, on_error="skip")
    assert (manifest.num_images, manifest.num_skipped, manifest.num_samples) == (5, 1, 5)
    assert {name: (tmp_path / "out" / name).stat().st_ino for name in shards} == shards


def test_pairs_without_partner_are_skipped(tmp_path: Path, make_image: Maker) -> None:
    for side, names, size in (("hr", "abc", (40, 48)), ("lr", "bcd", (10, 12))):
        (tmp_path / side).mkdir()
        for name in names:
            Image.fromarray(make_image(*size)).save(tmp_path / side / f"{name}.png")
    Image.fromarray(make_image(40, 48)).save(tmp_path / "hr" / "b.bmp")
    Image.fromarray(make_image(11, 12)).save(tmp_path / "lr" / "c.png")
    Image.fromarray(make_image(40, 48)).save(tmp_path / "hr" / "e.png")
    Image.fromarray(make_image(10, 12)).save(tmp_path / "lr" / "e.png")
    manifest = pack(tmp_path / "hr", tmp_path / "out", lr_dir=tmp_path / "lr", on_error="skip")
    assert keys(tmp_path / "out") == {"b", "e"}
    reasons = (tmp_path / "out" / "skipped.txt").read_text()
    for words in ("a.png has no LR", "d.png has no HR", "give the same key 'b'", "c.png is 11x12, expected 10x12"):
        assert words in reasons
    assert manifest.num_skipped == 4


def test_a_pack_without_any_tile_is_refused(mixed: Path, tmp_path: Path, photos: Path) -> None:
    for name in ("a.png", "m.png", "z.jpg"):
        (mixed / name).unlink()
    with pytest.raises(UserError, match=r"no tile is left, \d+ files are unusable, such as"):
        pack(mixed, tmp_path / "out", on_error="skip")
    with pytest.raises(UserError, match=r"no tile is left, \d+ have less detail than 200"):
        pack(photos, tmp_path / "out", min_detail=200)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mixed"]


def test_flat_tiles_are_left_out_and_counted(tmp_path: Path, make_image: Maker) -> None:
    (tmp_path / "hr").mkdir()
    image = make_image(64, 192)
    image[:, 64:128] = 200
    Image.fromarray(image).save(tmp_path / "hr" / "a.png")
    Image.fromarray(np.full((64, 64, 3), 9, dtype=np.uint8)).save(tmp_path / "hr" / "flat.png")
    manifest = pack(tmp_path / "hr", tmp_path / "out", tile=64, min_detail=0.5)
    assert (manifest.num_samples, manifest.num_flat) == (2, 2)
    assert "2 flat tiles left out" in summary(manifest)
    assert keys(tmp_path / "out") == {"a", "a_r00c02"}
    assert pack(tmp_path / "hr", tmp_path / "all", tile=64).num_samples == 4


def test_a_stride_below_the_tile_gives_overlapping_tiles(tmp_path: Path, make_image: Maker) -> None:
    (tmp_path / "hr").mkdir()
    Image.fromarray(make_image(64, 128)).save(tmp_path / "hr" / "a.png")
    pack(tmp_path / "hr", tmp_path / "out", tile=64, stride=32)
    index = open_shards([tmp_path / "out"]).index
    assert list(zip(index["height"].tolist(), index["width"].tolist(), strict=True)) == [(64, 64)] * 3


def test_held_out_images_are_copies_of_their_files(tmp_path: Path, make_image: Maker) -> None:
    (tmp_path / "hr" / "sub").mkdir(parents=True)
    for number in range(20):
        Image.fromarray(make_image(40, 48, number)).save(tmp_path / "hr" / "sub" / f"{number}.png")
    manifest = pack(tmp_path / "hr", tmp_path / "out", validation_fraction=0.3)
    held_out = sorted((tmp_path / "out" / "validation").rglob("*.png"))
    assert 0 < len(held_out) == manifest.num_validation < 20
    assert manifest.num_images == 20 - len(held_out)
    assert {path.stem for path in held_out} == {str(n) for n in range(20) if is_held_out(f"sub_{n}", 0.3)}
    assert not {f"sub_{path.stem}" for path in held_out} & keys(tmp_path / "out")
    for path in held_out:
        assert path.read_bytes() == (tmp_path / "hr" / "sub" / path.name).read_bytes()
    assert len(list(read_pairs(tmp_path / "out" / "validation", scale=4))) == len(held_out)


def test_a_given_lr_image_is_held_out_with_its_hr_image(tmp_path: Path, make_image: Maker) -> None:
    for side, size in (("hr", (40, 48)), ("lr", (10, 12))):
        (tmp_path / side).mkdir()
        for number in range(12):
            Image.fromarray(make_image(*size, number)).save(tmp_path / side / f"{number}.png")
    manifest = pack(tmp_path / "hr", tmp_path / "out", lr_dir=tmp_path / "lr", validation_fraction=0.4)
    pairs = list(read_pairs(tmp_path / "out" / "validation", scale=4))
    assert len(pairs) == manifest.num_validation > 0
    for pair in pairs:
        given = np.array(Image.open(tmp_path / "lr" / f"{pair.name}.png"))
        np.testing.assert_array_equal(pair.lr[0].permute(1, 2, 0).numpy(), given)


def test_the_split_depends_on_the_key_alone() -> None:
    names = [f"image_{number}" for number in range(4000)]
    chosen = {name for name in names if is_held_out(name, 0.05)}
    assert 140 < len(chosen) < 260
    assert chosen <= {name for name in names if is_held_out(name, 0.1)}
    assert [n for n in range(60) if is_held_out(f"image_{n}", 0.05)] == GOLDEN
    assert not any(is_held_out(name, 0.0) for name in names)


GOLDEN = [15, 28]


def test_a_fraction_that_chooses_no_image_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--validation-fraction 0.0001 chooses none of 3 images: raise it"):
        pack(photos, tmp_path / "out", validation_fraction=0.0001)


@pytest.mark.parametrize(
    ("text", "size"),
    [("256MiB", 2**28), ("1GB", 10**9), ("1.5 KiB", 1536), ("500m", 5 * 10**8), ("4096", 4096), ("7B", 7)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_bytes(text, name="--shard-size") == size


@pytest.mark.parametrize("text", ["", "MiB", "-5MB", "12 parsecs", "1e9", "0", "0.2B"])
def test_nonsense_sizes_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--shard-size is .*, expected a size such as 256MiB"):
        parse_bytes(text, name="--shard-size")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--encoding", "gif"], "encoding is 'gif', allowed are raw, png, webp, jpeg"),
        (["--encoding", "jpeg", "--tile", "480"], "jpeg keeps images whole"),
        (["--encoding", "webp", "--tile", "20000"], "up to 16376"),
        (["--stride", "960"], "stride is 960, allowed are multiples of scale 4 up to the tile, 480"),
        (["--stride", "30"], "stride is 30"),
        (["--min-detail", "-1"], "min_detail is -1.0"),
        (["--validation-fraction", "1"], "validation_fraction is 1.0"),
        (["--shard-size", "big"], "--shard-size is 'big'"),
        (["--workers", "0"], "workers is 0"),
        (["--on-error", "cry"], "on_error is 'cry', allowed are stop and skip"),
    ],
)
def test_bad_options_are_reported_in_one_line(photos: Path, tmp_path: Path, options: list[str], words: str) -> None:
    done = call("pack", photos, tmp_path / "out", *options)
    assert done.code == 2
    assert len(done.lines) == 1
    assert words in done.err
    assert list(tmp_path.iterdir()) == []


def test_the_command_passes_on_every_option(mixed: Path, tmp_path: Path) -> None:
    options = ["--encoding", "webp", "--tile", "32", "--stride", "16", "--min-side", "40", "--min-detail", "0.25"]
    options += ["--shard-size", "100KB", "--workers", "2", "--on-error", "skip", "--validation-fraction", "0.4"]
    shutil.copy(mixed / "a.png", mixed / "b.png")
    shutil.copy(mixed / "a.png", mixed / "c.png")
    done = call("pack", mixed, tmp_path / "out", *options)
    assert done.code == 0, done.err
    assert "unusable files left out" in done.err
    assert "images held out in validation/" in done.err
    assert json.loads((tmp_path / "out" / "pack.json").read_text())["options"] == {
        "encoding": "webp",
        "lr": "made",
        "min_detail": 0.25,
        "min_side": 40,
        "scale": 4,
        "shard_bytes": 100_000,
        "stride": 16,
        "tile": 32,
        "validation_fraction": 0.4,
    }
