"""Third-party shards become packed folders: indexed, opened, and read patch by patch."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from srgan_dist.data.checking.check import check_shards
from srgan_dist.data.loading.pairs import PairDataset
from srgan_dist.data.shard_format.manifest import read_manifest
from srgan_dist.data.shards.shard_set import build_index, open_shards
from srgan_dist.errors import UserError
from srgan_dist.imaging.resize import downscale, modcrop
from tests.conftest import call

Pixels = NDArray[np.uint8]
Make = Callable[..., Pixels]


def encoded(pixels: Pixels, suffix: str) -> bytes:
    buffer = io.BytesIO()
    if suffix == "npy":
        np.save(buffer, pixels)
    elif suffix == "jpg":
        Image.fromarray(pixels).save(buffer, "JPEG", quality=97)
    else:
        Image.fromarray(pixels).save(buffer, suffix.upper(), lossless=True)
    return buffer.getvalue()


def decoded(data: bytes) -> Pixels:
    return np.load(io.BytesIO(data)) if data.startswith(b"\x93NUMPY") else np.array(Image.open(io.BytesIO(data)))


def write_tars(folder: Path, members: Mapping[str, bytes], *, shards: int = 2) -> None:
    """Distribute samples over shards, with names as another tool would choose them."""
    keys = sorted({name.split(".")[0] for name in members})
    folder.mkdir(exist_ok=True)
    for number in range(shards):
        with tarfile.open(folder / f"train_{number}.tar", "w", format=tarfile.GNU_FORMAT) as tar:
            for name in sorted(members, key=lambda name: name.split(".")[0]):
                if keys.index(name.split(".")[0]) % shards == number:
                    info = tarfile.TarInfo(name)
                    info.size = len(members[name])
                    tar.addfile(info, io.BytesIO(members[name]))


def write_index(folder: Path, **options: Any) -> list[str]:
    reported: list[str] = []
    check_shards([folder], on_finding=lambda finding: reported.append(str(finding)), write_index=True, **options)
    return reported


def assert_reads(folder: Path, hr: Mapping[str, Pixels], lr: Mapping[str, Pixels], *, scale: int) -> None:
    """Every patch of an epoch is a part of its images, LR and HR at the same place."""
    shards = open_shards([folder])
    patch = 8 * scale
    dataset = PairDataset(shards, patch_size=patch, seed=3)
    keys = [name.split(".")[0] for path in shards.shard_paths for name in _names(path)]
    patches = dataset.order.patches(np.arange(dataset.num_patches))
    batch = dataset.at(range(dataset.num_patches))
    assert set(patches.sample.tolist()) == set(range(len(hr)))
    for place, (sample, top, left) in enumerate(zip(patches.sample, patches.top, patches.left, strict=True)):
        key = keys[sample]
        high = hr[key][top * scale : top * scale + patch, left * scale : left * scale + patch]
        low = lr[key][top : top + patch // scale, left : left + patch // scale]
        np.testing.assert_array_equal(batch.hr[place].permute(1, 2, 0).numpy(), high)
        np.testing.assert_array_equal(batch.lr[place].permute(1, 2, 0).numpy(), low)


def _names(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return [name for name in tar.getnames() if ".lr." not in name and not name.endswith(".json")]


@pytest.mark.parametrize(
    ("suffixes", "encoding"),
    [
        (("npy", "npy"), "raw"),
        (("png", "png"), "png"),
        (("webp", "webp"), "webp"),
        (("jpg", "png"), "jpeg"),
        (("png", "webp"), None),
    ],
)
@pytest.mark.parametrize("scale", [2, 4])
def test_pairs_of_other_packers_are_indexed_and_read(
    make_image: Make, tmp_path: Path, suffixes: tuple[str, str], encoding: str | None, scale: int
) -> None:
    members, hr, lr = {}, {}, {}
    for number in range(5):
        high, key = make_image(64 + 8 * number, 96, number), f"photo-{number}"
        members[f"{key}.hr.{suffixes[0]}"] = encoded(high, suffixes[0])
        hr[key] = decoded(members[f"{key}.hr.{suffixes[0]}"])
        lr[key] = downscale(hr[key], scale)
        members[f"{key}.json"] = b'{"source": "a camera"}'
        members[f"{key}.lr.{suffixes[1]}"] = encoded(lr[key], suffixes[1])
    write_tars(tmp_path / "set", members)
    reported = write_index(tmp_path / "set")
    assert all(": note: " in line for line in reported)
    manifest = read_manifest(tmp_path / "set")
    assert (manifest.scale, manifest.num_samples, manifest.tile) == (scale, 5, 96)
    assert encoding is None or manifest.encoding == encoding
    assert [shard.samples for shard in manifest.shards] == [3, 2]
    assert_reads(tmp_path / "set", hr, lr, scale=scale)
    summary = check_shards([tmp_path / "set"], on_finding=lambda _: None)
    assert (summary.num_faults, summary.num_pairs) == (0, 5)


def test_the_index_equals_that_of_the_packer(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for shard in packed.glob("*.tar"):
        (tmp_path / "set" / shard.name).write_bytes(shard.read_bytes())
    assert write_index(tmp_path / "set") == []
    rows = np.load(tmp_path / "set/index.npy")
    np.testing.assert_array_equal(rows, np.load(packed / "index.npy"))
    np.testing.assert_array_equal(rows, build_index(sorted(packed.glob("*.tar")), scale=4))
    assert open_shards([tmp_path / "set"]).digest == open_shards([packed]).digest
    assert {path.suffix for path in (tmp_path / "set").iterdir()} == {".tar", ".npy", ".json"}  # nothing unfinished


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "npy"])
def test_hr_images_alone_get_their_lr_during_training(make_image: Make, tmp_path: Path, suffix: str) -> None:
    members = {}
    for number in range(4):
        sides = (64 + 4 * number, 92) if suffix == "npy" else (65 + 3 * number, 94)
        members[f"{number:04}.{suffix}"] = encoded(make_image(*sides, number), suffix)
    hr = {name.split(".")[0]: modcrop(decoded(data), 4) for name, data in members.items()}
    write_tars(tmp_path / "set", members)
    assert write_index(tmp_path / "set", scale=4) == []
    assert set(np.load(tmp_path / "set/index.npy")["lr_size"]) == {0}
    assert "made while training" in read_manifest(tmp_path / "set").kernel
    assert_reads(tmp_path / "set", hr, {key: downscale(image, 4) for key, image in hr.items()}, scale=4)
    assert check_shards([tmp_path / "set"], on_finding=lambda _: None).num_faults == 0


def test_lr_members_may_come_before_hr(make_image: Make, tmp_path: Path) -> None:
    hr = make_image(64, 64)
    write_tars(
        tmp_path / "set", {"a.lr.png": encoded(downscale(hr, 4), "png"), "a.hr.png": encoded(hr, "png")}, shards=1
    )
    assert write_index(tmp_path / "set") == []
    assert_reads(tmp_path / "set", {"a": hr}, {"a": downscale(hr, 4)}, scale=4)


def test_no_index_is_written_of_faulty_shards(make_image: Make, tmp_path: Path) -> None:
    write_tars(tmp_path / "set", {"a.hr.png": encoded(make_image(64, 64), "png"), "b.png": b""})
    done = call("check", tmp_path / "set", "--write-index")
    assert done.code == 1
    assert "index.npy and manifest.json were not written" in done.lines[0]
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["train_0.tar", "train_1.tar"]


def test_what_cannot_be_indexed_is_refused(make_image: Make, tmp_path: Path) -> None:
    png, npy = (encoded(make_image(64, 64), suffix) for suffix in ("png", "npy"))
    write_tars(tmp_path / "a", {"a.png": png})
    with pytest.raises(UserError, match="HR images alone do not determine the scale: set it with --scale"):
        write_index(tmp_path / "a")
    write_tars(tmp_path / "b", {"a.png": png, "b.npy": encoded(make_image(64, 64, 1), "npy")})
    with pytest.raises(UserError, match=r"\.npy members beside other images \(png 1, raw 1\)"):
        write_index(tmp_path / "b", scale=4)
    write_tars(tmp_path / "c", {"a.json": b"{}"})
    with pytest.raises(UserError, match="holds no samples"):
        write_index(tmp_path / "c", scale=4)
    with pytest.raises(UserError, match="--write-index is for one folder, got 2"):
        check_shards([tmp_path / "a", tmp_path / "b"], on_finding=lambda _: None, write_index=True)
    (tmp_path / "a/train_0.tar").rename(tmp_path / "a/train_0.data")
    with pytest.raises(UserError, match=r"needs names ending in \.tar"):
        check_shards([tmp_path / "a/train_0.data"], on_finding=lambda _: None, write_index=True)
    write_tars(tmp_path / "d", {"a.npy": npy})
    write_index(tmp_path / "d", scale=4)
    with pytest.raises(UserError, match=r"manifest\.json: exists"):
        write_index(tmp_path / "d", scale=4)
    assert json.loads((tmp_path / "d/manifest.json").read_text())["created_by"].startswith("srgan-dist")
