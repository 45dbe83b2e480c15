"""Opening packed folders: what is read, and which damage is found at the start."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from srgan_dist.data.packing.pack import pack
from srgan_dist.data.shard_format.index_rows import ROW
from srgan_dist.data.shard_format.manifest import read_manifest
from srgan_dist.data.shards.shard_set import build_index, open_shards
from srgan_dist.errors import UserError
from srgan_dist.utils.files import file_sha256


@pytest.fixture
def folder(packed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(packed, tmp_path / "copy")


def change_manifest(folder: Path, **fields: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def write_tar(path: Path, members: dict[str, NDArray[np.generic] | bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            buffer = io.BytesIO()
            if isinstance(content, bytes):
                buffer.write(content)
            else:
                np.save(buffer, content)
            info = tarfile.TarInfo(name)
            info.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(info, buffer)
    return path


def image(height: int, width: int) -> NDArray[np.uint8]:
    return np.zeros((height, width, 3), dtype=np.uint8)


def test_index_points_at_the_members(packed: Path) -> None:
    shards = open_shards([packed])
    assert shards.scale == 4
    assert shards.index.dtype == ROW
    assert len(shards) == len(shards.index) == read_manifest(packed).num_samples
    for row in shards.index:
        data = shards.shard_paths[row["shard"]].read_bytes()
        for side, shrink in (("hr", 1), ("lr", 4)):
            start, size = int(row[f"{side}_offset"]), int(row[f"{side}_size"])
            member = data[start : start + size]
            assert zlib.crc32(member) == row[f"{side}_crc"]
            shape = (row["height"] // shrink, row["width"] // shrink, 3)
            assert np.load(io.BytesIO(member)).shape == shape
            assert data[start - 512 :].split(b"\0")[0].endswith(f".{side}.npy".encode())


def test_index_is_mapped_and_read_only(packed: Path) -> None:
    index = open_shards([packed]).index
    assert isinstance(index.base, np.memmap)
    assert not index.flags.writeable


def test_index_can_be_rebuilt_from_the_tars_alone(packed: Path) -> None:
    shards = open_shards([packed])
    np.testing.assert_array_equal(build_index(shards.shard_paths, scale=4), shards.index)


def test_several_folders_are_one_set(packed: Path, photos: Path, tmp_path: Path) -> None:
    pack(photos, tmp_path / "other", tile=48)
    one, other = open_shards([packed]), open_shards([tmp_path / "other" / "manifest.json"])
    both = open_shards([packed, tmp_path / "other"])
    assert len(both) == len(one) + len(other)
    assert both.shard_paths == one.shard_paths + other.shard_paths
    assert both.shard_encodings == ("raw",) * len(both.shard_paths)
    np.testing.assert_array_equal(both.index["hr_crc"], np.concatenate([one.index["hr_crc"], other.index["hr_crc"]]))
    assert set(both.index["shard"][len(one) :]) == {len(one.shard_paths)}
    digests = {s.digest for s in (one, other, both, open_shards([tmp_path / "other", packed]))}
    assert len(digests) == 4
    assert open_shards([str(packed)]).digest == one.digest


def test_scales_must_agree(packed: Path, photos: Path, tmp_path: Path) -> None:
    pack(photos, tmp_path / "x2", scale=2)
    with pytest.raises(UserError, match=r"x2: scale 2, but .* has scale 4"):
        open_shards([packed, tmp_path / "x2"])


def test_missing_and_unpacked_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no packed folder given"):
        open_shards([])
    with pytest.raises(UserError, match=r"manifest\.json: does not exist, expected a folder made by"):
        open_shards([tmp_path])
    (tmp_path / "manifest.json").write_text("[1, 2")
    with pytest.raises(UserError, match="is not a manifest of packed shards"):
        open_shards([tmp_path])
    (tmp_path / "manifest.json").write_text('{"format_version": 1, "shards": [], "colour": 3}')
    with pytest.raises(UserError, match="is not a manifest of packed shards"):
        open_shards([tmp_path])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"format_version": 2}, "format version 2, this program reads 1"),
        ({"encoding": "zip"}, "encoding is 'zip': input should be 'raw'"),
        ({"scale": 0}, "scale is 0: input should be greater than or equal to 1"),
        ({"num_samples": 3}, "rows, the manifest says 3: pack again"),
        ({"index_sha256": "0" * 64}, "the manifest says 000000000000..."),
        ({"shards": [{"name": "../x.tar", "bytes": 1, "sha256": "", "samples": 1}]}, "shards.0.name is '../x.tar'"),
        ({"scale": "4"}, "scale is '4'"),
        ({"scale": True}, "scale is True"),
        ({"scale": 10**300}, "input should be less than 65536"),
        ({"num_samples": None}, "num_samples is None"),
        ({"num_flat": -1}, "num_flat is -1"),
        ({"index_sha256": 5}, "index_sha256 is 5"),
        ({"encoding": ["raw"]}, "encoding is ['raw']"),
        ({"kernel": {}}, "kernel is {}"),
        ({"shards": None}, "shards is None"),
        ({"shards": {"name": 1}}, "shards is {'name': 1}"),
        ({"shards": [5]}, "shards.0 is 5"),
        ({"shards": [{"name": "a.tar"}]}, "shards.0.bytes is"),
        ({"shards": [{"name": "\0.tar", "bytes": 1, "sha256": "0" * 64, "samples": 1}]}, "shards.0.name is"),
        ({"shards": [{"name": "a.tar", "bytes": 2**64, "sha256": "0" * 64, "samples": 1}]}, "shards.0.bytes is"),
        ({"colour": 3}, "colour is 3: unexpected"),
        ({"shards": []}, "the manifest has 0 shards"),
    ],
)
def test_bad_manifests_are_refused(folder: Path, fields: dict[str, object], words: str) -> None:
    change_manifest(folder, **fields)
    with pytest.raises(UserError) as caught:
        open_shards([folder])
    assert words in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    ["[" * 100_000, "1" * 5000, "\xff", '{"format_version": 1e999}', "NaN", "null"],
    ids=["deep", "digits", "not UTF-8", "infinite", "NaN", "null"],
)
def test_a_manifest_that_is_no_json_object_is_refused(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"is not a manifest of packed shards|format version inf"):
        open_shards([folder])


def test_a_manifest_of_600_megabytes_is_refused_unread(folder: Path) -> None:
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate(600 << 20)
    with pytest.raises(UserError, match="has more than 33554432 bytes"):
        open_shards([folder])


def test_a_truncated_shard_is_found_at_the_start(folder: Path) -> None:
    shard = folder / "shard-000001.tar"
    size = shard.stat().st_size
    with shard.open("r+b") as file:
        file.truncate(size - 512)
    with pytest.raises(UserError, match=rf"shard-000001.tar: shard has {size - 512} bytes, the manifest says {size}"):
        open_shards([folder])
    shard.unlink()
    with pytest.raises(UserError, match=r"shard-000001.tar: shard cannot be found \(No such file"):
        open_shards([folder])


def test_a_damaged_index_is_found_at_the_start(folder: Path) -> None:
    path = folder / "index.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"index.npy: sha256 is [0-9a-f]{12}\.\.\., the manifest says"):
        open_shards([folder])
    path.write_bytes(data[:50])
    with pytest.raises(
        UserError, match=r"index.npy: is not a .npy array: its header has 320 bytes, 50 are there: copy it again"
    ):
        open_shards([folder])


def test_an_index_that_points_beyond_its_shard_is_refused(folder: Path) -> None:
    size = read_manifest(folder).shards[0].bytes
    shards = [shard._asdict() for shard in read_manifest(folder).shards]
    shards[0]["bytes"] = 5120
    with (folder / "shard-000000.tar").open("r+b") as file:
        file.truncate(5120)
    assert size > 5120
    change_manifest(folder, shards=shards)
    with pytest.raises(UserError, match=r"the hr of sample \d+ lies beyond the end of .*shard-000000.tar"):
        open_shards([folder])


def rewrite_index(folder: Path, index: NDArray[np.void]) -> None:
    np.save(folder / "index.npy", index)
    change_manifest(folder, index_sha256=file_sha256(folder / "index.npy"))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("hr_offset", 2**64 - 16, "the hr of sample 2 lies beyond the end of"),
        ("lr_size", 2**32 - 1, "the lr of sample 2 lies beyond the end of"),
        ("hr_size", 3, "sample 2 is .* in 3 bytes"),
        ("lr_size", 3, "sample 2 is .*, lr in 3, impossible at scale 4"),
        ("height", 0, "sample 2 is 0x"),
        ("width", 2, "sample 2 is .*x2 in"),
        ("width", 65532, "sample 2 is .*x65532 in"),
    ],
)
def test_an_index_of_impossible_sizes_is_refused(folder: Path, field: str, value: int, words: str) -> None:
    index = open_shards([folder]).index.copy()
    index[field][2] = value
    rewrite_index(folder, index)
    with pytest.raises(UserError, match=words):
        open_shards([folder])


def test_an_index_that_is_not_in_the_order_of_the_shards_is_refused(folder: Path) -> None:
    rewrite_index(folder, open_shards([folder]).index[::-1].copy())
    with pytest.raises(UserError, match=r"index.npy: rows are not in the order of the shards, near row 0: pack again"):
        open_shards([folder])


def test_an_index_with_other_numbers_of_samples_than_the_manifest_is_refused(folder: Path) -> None:
    shards = [shard._asdict() for shard in read_manifest(folder).shards]
    shards[1]["samples"] += 1
    change_manifest(folder, shards=shards)
    number = shards[1]["samples"]
    words = rf"index.npy: has {number - 1} samples of shard-000001.tar, the manifest says {number}: pack again"
    with pytest.raises(UserError, match=words):
        open_shards([folder])


def test_the_index_is_checked_in_chunks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srgan_dist.data.shard_format.index_rows._CHUNK", 2)
    shards = open_shards([folder])
    index = shards.index.copy()
    index["lr_offset"][3] = 10**9
    rewrite_index(folder, index)
    with pytest.raises(UserError, match=r"the lr of sample 3 lies beyond the end of"):
        open_shards([folder])
    index = shards.index.copy()
    index[[1, 2]] = index[[2, 1]]
    index["shard"] = np.where(np.arange(len(index)) < 2, 1, index["shard"])  # in order within the first chunk
    rewrite_index(folder, index)
    with pytest.raises(UserError, match=r"not in the order of the shards, near row 2"):
        open_shards([folder])


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (
            {"a.hr.npy": image(96, 96), "a.lr.npy": image(25, 24)},
            "'a.lr.npy' at offset 29184 is 25x24, expected 24x24",
        ),
        ({"a.hr.npy": image(98, 96), "a.lr.npy": image(24, 24)}, "(hr 98x96 / scale 4)"),
        ({"a.hr.npy": image(8, 8)}, "ends after member 'a.hr.npy' at offset 512, expected 'a.lr.npy'"),
        (
            {"a.hr.npy": image(8, 8), "b.hr.npy": image(8, 8)},
            "member 'b.hr.npy' at offset 1536, expected 'a.lr.npy'",
        ),
        ({"a.lr.npy": image(2, 2)}, "member 'a.lr.npy' at offset 512, expected a name ending in .hr.npy"),
        ({"a.hr.npy": np.zeros((8, 8, 3))}, "is <f8 (8, 8, 3), expected uint8 in C order"),
        ({"a.hr.npy": np.asfortranarray(image(8, 8))}, "expected uint8"),
        ({"a.hr.npy": image(8, 8)[..., 0]}, "is uint8 (8, 8)"),
        ({"a.hr.npy": b"something else"}, "not a .npy array"),
    ],
)
def test_build_index_refuses_members_that_are_no_pairs(
    tmp_path: Path, members: dict[str, NDArray[np.generic] | bytes], words: str
) -> None:
    shard = write_tar(tmp_path / "x.tar", members)
    with pytest.raises(UserError) as caught:
        build_index([shard], scale=4)
    assert words in str(caught.value)
    assert str(shard) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_build_index_refuses_a_file_that_is_no_tar(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(UserError, match=r"x\.tar: cannot be read as a tar"):
        build_index([tmp_path / "x.tar"], scale=4)
