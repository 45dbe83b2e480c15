"""`srgan-dist check` on damaged shards: each fault is reported at its place."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from srgan_dist.data.checking.check import check_shards
from srgan_dist.data.checking.report import Finding, Summary
from srgan_dist.data.packing.held_out import is_held_out
from srgan_dist.data.packing.pack import pack
from srgan_dist.data.shards.shard_set import open_shards
from srgan_dist.errors import UserError
from srgan_dist.imaging.resize import downscale
from tests.conftest import call

Pixels = NDArray[np.uint8]


def encoded(pixels: NDArray[np.generic] | Image.Image, suffix: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    if suffix == "npy":
        np.save(buffer, np.asarray(pixels))
    else:
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        image.save(buffer, {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[suffix], **options)
    return buffer.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes] | list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items() if isinstance(members, Mapping) else members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def check(*paths: Path, **options: Any) -> tuple[list[Finding], Summary]:
    found: list[Finding] = []
    summary = check_shards(paths, on_finding=found.append, **options)
    assert summary.num_faults == sum(finding.is_fault for finding in found)
    assert all("\n" not in str(finding) for finding in found)
    return found, summary


def offset_of(shard: Path, name: str) -> int:
    with tarfile.open(shard) as tar:
        return tar.getmember(name).offset_data


@pytest.fixture(scope="session")
def pairs(make_image: Callable[..., Pixels]) -> dict[str, bytes]:
    """The members of four sound PNG pairs."""
    members = {}
    for number in range(4):
        hr = make_image(96, 128, number)
        members[f"{number}.hr.png"] = encoded(hr, "png")
        members[f"{number}.lr.png"] = encoded(downscale(hr, 4), "png")
    return members


@pytest.fixture
def folder(packed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(packed, tmp_path / "copy")


# --- sound shards ---


def test_packed_folders_have_no_findings(packed: Path) -> None:
    found, summary = check(packed)
    assert found == []
    manifest = json.loads((packed / "manifest.json").read_text())
    assert summary.num_shards == len(manifest["shards"]) > 1
    assert summary.num_pairs == summary.num_inspected == manifest["num_samples"]
    assert summary.num_bytes == sum(shard["bytes"] for shard in manifest["shards"])
    assert check(packed / "manifest.json")[1].num_pairs == summary.num_pairs
    assert check(packed / "shard-000000.tar")[1].num_shards == 1


@pytest.mark.parametrize("encoding", ["png", "webp", "jpeg"])
def test_packed_folders_of_other_encodings_are_sound(photos: Path, tmp_path: Path, encoding: Any) -> None:
    pack(photos, tmp_path / "shards", encoding=encoding)
    found, summary = check(tmp_path / "shards")
    assert [finding for finding in found if finding.is_fault] == []
    kinds = {"hr " + encoding, "lr " + ("png" if encoding == "jpeg" else encoding)}
    assert set(summary.encodings) == kinds


def test_sound_tars_without_a_manifest_have_no_findings(pairs: dict[str, bytes], tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", dict(list(pairs.items())[:4]))
    write_tar(tmp_path / "b.tar", dict(list(pairs.items())[4:]))
    for paths in ([tmp_path], [tmp_path / "a.tar", tmp_path / "b.tar"], [tmp_path / "[ab].tar"]):
        found, summary = check(*paths)
        assert found == []
        assert (summary.num_shards, summary.num_pairs) == (2, 4)


def test_hr_images_alone_are_sound(make_image: Callable[..., Pixels], tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {f"{n}.jpg": encoded(make_image(61, 83, n), "jpg") for n in range(3)})
    found, summary = check(tmp_path)
    assert found == []
    assert (summary.num_single, summary.num_pairs) == (3, 0)


# --- damaged tars ---


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        (lambda offset: offset - 512, "ends without the two blocks of zeros"),
        (lambda offset: offset - 400, "cut short inside a header: 112 of 512 bytes are there"),
        (lambda offset: offset + 99, "cut short inside data: 99 of"),
    ],
    ids=["boundary", "header", "data"],
)
def test_a_truncated_tar_costs_only_the_pair_that_is_cut(
    pairs: dict[str, bytes], tmp_path: Path, cut: Callable[[int], int], words: str
) -> None:
    shard = write_tar(tmp_path / "x.tar", pairs)
    with shard.open("r+b") as file:
        file.truncate(cut(offset_of(shard, "2.lr.png")))
    found, summary = check(shard)
    assert summary.num_pairs == 2
    assert [finding.member for finding in found][-1] == "2.hr.png"
    assert "LR half is missing" in found[-1].what
    assert len(found) == 2
    assert words in found[0].what


def test_a_truncated_packed_shard_disagrees_with_its_manifest(folder: Path) -> None:
    shard = folder / "shard-000001.tar"
    size = shard.stat().st_size
    with shard.open("r+b") as file:
        file.truncate(size // 1536 // 2 * 512)
    found, _ = check(folder)
    lines = [finding.what for finding in found if finding.shard == shard]
    assert f"has {size // 1536 // 2 * 512} bytes, the manifest says {size}" in lines
    assert any("expects a sample here, none was found" in line for line in lines)
    assert any("samples, the manifest says" in line for line in lines)
    assert {finding.shard for finding in found} == {shard}


def test_a_flipped_byte_in_a_header_loses_one_member(pairs: dict[str, bytes], tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "x.tar", pairs)
    at = offset_of(shard, "1.hr.png") - 512
    data = bytearray(shard.read_bytes())
    data[at + 130] ^= 1
    shard.write_bytes(data)
    found, summary = check(shard)
    assert summary.num_pairs == 3
    assert [(finding.member, finding.offset) for finding in found] == [
        ("1.hr.png", at),
        ("1.lr.png", offset_of(write_tar(tmp_path / "y", pairs), "1.lr.png")),
    ]
    assert "checksum is wrong" in found[0].what
    assert "HR half is missing: no member '1.hr.png'" in found[1].what


@pytest.mark.parametrize("side", ["hr", "lr"])
def test_a_flipped_byte_in_data_disagrees_with_index_and_manifest(folder: Path, side: str) -> None:
    shard = folder / "shard-000000.tar"
    index = np.load(folder / "index.npy")
    row = index[1]
    at = int(row[f"{side}_offset"]) + int(row[f"{side}_size"]) - 2000 // (1 if side == "hr" else 10)
    data = bytearray(shard.read_bytes())
    data[at] ^= 1
    shard.write_bytes(data)
    found, _ = check(folder)
    assert len(found) == 2
    assert "sha256 is" in found[0].what
    assert "the file has changed" in found[0].what
    assert found[1].member.endswith(f".{side}.npy")
    assert found[1].offset == row[f"{side}_offset"]
    assert f"row 1 of index.npy says {row[f'{side}_crc']:08x}" in found[1].what


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_data_that_cannot_be_decoded_is_a_fault(make_image: Callable[..., Pixels], tmp_path: Path, suffix: str) -> None:
    hr = make_image(96, 128)
    data = bytearray(encoded(hr, suffix))
    if suffix == "png":
        data[len(data) // 2] ^= 4
    else:
        del data[len(data) // 2 :]
    lr = encoded(downscale(hr, 4), "png")
    shard = write_tar(tmp_path / "x.tar", {f"a.hr.{suffix}": bytes(data), "a.lr.png": lr})
    found, _ = check(shard)
    assert [(finding.member, finding.offset) for finding in found] == [(f"a.hr.{suffix}", 512)]
    assert ("is not an image (" if suffix == "webp" else "cannot be decoded (") in found[0].what


def test_a_wrong_checksum_inside_a_png_is_a_fault(pairs: dict[str, bytes], tmp_path: Path) -> None:
    data = bytearray(pairs["0.hr.png"])
    data[-13] ^= 1  # the last byte of the CRC of the last IDAT chunk
    Image.open(io.BytesIO(data)).load()
    found, _ = check(write_tar(tmp_path / "x.tar", pairs | {"0.hr.png": bytes(data)}))
    assert [finding.member for finding in found] == ["0.hr.png"]
    assert "cannot be decoded (" in found[0].what


def test_a_flipped_byte_of_raw_pixels_is_found_without_an_index(
    make_image: Callable[..., Pixels], tmp_path: Path
) -> None:
    hr = make_image(96, 128)
    lr = downscale(hr, 4)
    hr[50, 60, 0] ^= 0x80
    found, _ = check(write_tar(tmp_path / "x.tar", {"a.hr.npy": encoded(hr, "npy"), "a.lr.npy": encoded(lr, "npy")}))
    assert len(found) == 1
    assert "LR pixel (12, 15) is" in found[0].what


# --- keys and halves ---


def test_a_missing_half_is_named_with_its_place(pairs: dict[str, bytes], tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "x.tar", {name: data for name, data in pairs.items() if name != "2.lr.png"})
    (finding,), summary = check(shard)
    assert str(finding) == (
        f"{shard}: member '2.hr.png' at offset {offset_of(shard, '2.hr.png')}: LR half is missing: no member '2.lr.png'"
    )
    assert summary.num_pairs == 3


def test_halves_that_are_not_adjacent_are_a_fault(pairs: dict[str, bytes], tmp_path: Path) -> None:
    names = sorted(pairs, key=lambda name: (name.endswith("lr.png"), name))
    shard = write_tar(tmp_path / "x.tar", {name: pairs[name] for name in names})
    found, summary = check(shard)
    assert [finding.member for finding in found] == [f"{n}.hr.png" for n in range(4)]
    assert all("halves are not adjacent" in finding.what for finding in found)
    assert summary.num_pairs == summary.num_inspected == 4


def test_lr_before_hr_and_other_members_are_no_fault(pairs: dict[str, bytes], tmp_path: Path) -> None:
    members = [("0.lr.png", pairs["0.lr.png"]), ("0.json", b"{}"), ("0.hr.png", pairs["0.hr.png"])]
    members += [(f"{n}.json", b"{}") for n in range(1, 9)]
    found, summary = check(write_tar(tmp_path / "x.tar", members))
    assert [(finding.is_fault, finding.what) for finding in found] == [
        (False, "belongs to no pair"),
        (False, "8 more such notes: belongs to no pair"),
    ]
    assert ": note: " in str(found[0])
    assert (summary.num_pairs, summary.num_faults) == (1, 0)


def test_keys_with_dots_are_a_fault(pairs: dict[str, bytes], tmp_path: Path) -> None:
    members = {"a.v2.hr.png": pairs["0.hr.png"], "a.v2.lr.png": pairs["0.lr.png"], "b.v2.png": pairs["1.hr.png"]}
    members |= {"c.png": pairs["2.hr.png"], "c.mask.png": pairs["3.hr.png"]}
    found, summary = check(write_tar(tmp_path / "x.tar", members))
    assert [finding.member for finding in found if finding.is_fault] == ["a.v2.hr.png", "a.v2.lr.png", "b.v2.png"]
    assert "key contains a dot: WebDataset reads key 'a', field 'v2.hr.png'" in found[0].what
    assert [finding.member for finding in found if not finding.is_fault] == ["c.mask.png"]
    assert summary.num_pairs == 1


def test_a_key_twice_in_one_shard_is_a_fault(pairs: dict[str, bytes], tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "x.tar", [*pairs.items(), ("1.hr.png", pairs["1.hr.png"])])
    (finding,), summary = check(shard)
    assert finding.member == "1.hr.png"
    assert finding.offset == offset_of(shard, "1.hr.png")  # tarfile gives the last one
    assert "occurs twice, first at offset" in finding.what
    assert summary.num_pairs == 4


def test_a_key_twice_across_shards_is_a_fault(pairs: dict[str, bytes], tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", pairs)
    write_tar(tmp_path / "b.tar", {"3.hr.png": pairs["0.hr.png"], "3.lr.png": pairs["0.lr.png"]})
    found, _ = check(tmp_path)
    first = offset_of(tmp_path / "a.tar", "3.hr.png")
    assert [str(finding) for finding in found] == [
        f"{tmp_path / 'b.tar'}: member '3.hr.png' at offset 512: has the same key as '3.hr.png' at offset {first} of "
        f"{tmp_path / 'a.tar'}",
        f"{tmp_path / 'b.tar'}: member '3.hr.png' at offset 512: note: has the same pixels as '0.hr.png' at offset "
        f"512 of {tmp_path / 'a.tar'}",
    ]


def test_the_same_image_under_two_keys_is_a_note(make_image: Callable[..., Pixels], tmp_path: Path) -> None:
    image = make_image(96, 96)
    flat = np.full((96, 96, 3), 9, dtype=np.uint8)
    members = {"a.png": encoded(image, "png"), "b.png": encoded(flat, "png"), "c.png": encoded(flat, "png")}
    members |= {"d.webp": encoded(image, "webp", lossless=True), "e1.png": encoded(image, "png")}
    shard = write_tar(tmp_path / "x.tar", members)
    found, summary = check(shard, scale=4)
    assert [(finding.member, finding.what.partition(" at ")[0], finding.is_fault) for finding in found] == [
        ("d.webp", "has the same pixels as 'a.png'", False),
        ("e1.png", "has the same pixels as 'a.png'", False),
    ]
    assert summary.num_notes == 2
    done = call("check", shard, "--scale", "4")
    assert done.code == 0
    assert "member 'd.webp' at offset " in done.out


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_an_image_in_training_and_in_validation_is_a_fault(
    make_image: Callable[..., Pixels], tmp_path: Path, encoding: str
) -> None:
    source, out = tmp_path / "images", tmp_path / "out"
    source.mkdir()
    suffix = "jpg" if encoding == "jpeg" else "png"
    names = [f"{number:02d}.{suffix}" for number in range(12)]
    held_out = [name for name in names if is_held_out(name[:2], 0.3)]
    kept = [name for name in names if name not in held_out]
    for number, name in enumerate(names):
        (source / name).write_bytes(encoded(make_image(66, 101, number), suffix))
    cut: dict[str, Any] = {"stride": 48, "tile": 64} if encoding == "raw" else {}
    pack(source, out, encoding=encoding, validation_fraction=0.3, **cut)
    assert check(out)[1].num_faults == 0
    shutil.copy(out / "validation" / held_out[1], source / kept[2])
    shutil.rmtree(out)
    pack(source, out, encoding=encoding, validation_fraction=0.3, **cut)
    (finding,), _ = check(out)
    assert finding.shard == out / "validation" / held_out[1]
    assert finding.what.startswith(f"is for validation, and has the same pixels as '{kept[2][:2]}")
    assert str(finding).endswith(f"{out / 'shard-000000.tar'}, which is trained on")
    assert call("check", out).code == 1
    (out / "validation" / held_out[0]).write_bytes(b"")
    found, _ = check(out)
    assert [finding.shard.name for finding in found] == held_out[:2]
    assert "empty" in found[0].what


# --- pixels ---


def rgba(pixels: Pixels, lowest: int) -> Image.Image:
    image = Image.fromarray(pixels).convert("RGBA")
    image.putpixel((3, 3), (*pixels[3, 3].tolist(), lowest))
    return image


@pytest.mark.parametrize(
    ("make", "suffix", "words"),
    [
        (lambda x: rgba(x, 40), "png", "has transparent pixels (alpha down to 40)"),
        (lambda x: Image.fromarray(x[..., 0].astype(np.uint16) * 257), "png", "more than 8 bits a channel"),
        (lambda x: x.astype(np.uint16), "npy", "is <u2 (96, 96, 3), expected uint8"),
        (lambda x: x[..., 0], "npy", "is uint8 (96, 96), expected"),
        (lambda x: Image.fromarray(x).convert("CMYK"), "jpg", "has colour mode CMYK"),
    ],
    ids=["alpha", "png16", "npy16", "npy2d", "cmyk"],
)
def test_unsuitable_images_are_a_fault(
    make_image: Callable[..., Pixels], tmp_path: Path, make: Callable[[Pixels], Any], suffix: str, words: str
) -> None:
    hr = make_image(96, 96)
    lr_suffix = "npy" if suffix == "npy" else "png"
    members = {f"a.hr.{suffix}": encoded(make(hr), suffix), f"a.lr.{lr_suffix}": encoded(downscale(hr, 4), lr_suffix)}
    (finding,), _ = check(write_tar(tmp_path / "x.tar", members))
    assert (finding.member, finding.offset) == (f"a.hr.{suffix}", 512)
    assert words in finding.what


def test_an_opaque_alpha_channel_is_no_fault(make_image: Callable[..., Pixels], tmp_path: Path) -> None:
    hr = make_image(96, 96)
    members = {"a.hr.png": encoded(rgba(hr, 255), "png"), "a.lr.png": encoded(downscale(hr, 4), "png")}
    assert check(write_tar(tmp_path / "x.tar", members))[1].num_faults == 0


def test_wrong_suffixes_and_orientations_are_notes(make_image: Callable[..., Pixels], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    members = {"a.png": encoded(make_image(96, 96), "jpg"), "b.jpg": encoded(make_image(96, 96, 1), "jpg", exif=exif)}
    found, summary = check(write_tar(tmp_path / "x.tar", members))
    assert [finding.what for finding in found] == [
        "is named .png but holds JPEG",
        "carries EXIF orientation 6, which readers of shards do not apply",
    ]
    assert summary.num_faults == 0


def test_a_wrong_ratio_of_hr_to_lr_is_a_fault(
    pairs: dict[str, bytes], make_image: Callable[..., Pixels], tmp_path: Path
) -> None:
    small = encoded(make_image(25, 32), "png")
    rotated = encoded(np.ascontiguousarray(np.rot90(downscale(make_image(96, 128, 2), 4))), "png")
    shard = write_tar(tmp_path / "x.tar", pairs | {"0.lr.png": small, "2.lr.png": rotated})
    found, _ = check(shard)
    assert [str(finding) for finding in found] == [
        f"{shard}: member '0.lr.png' at offset {offset_of(shard, '0.lr.png')}: is 25x32, expected 24x32 "
        "(hr 96x128 / scale 4)",
        f"{shard}: member '2.lr.png' at offset {offset_of(shard, '2.lr.png')}: is 32x24, expected 24x32 "
        "(hr 96x128 / scale 4): most likely HR rotated by 90 degrees",
    ]
    assert (
        "no whole ratio"
        in check(write_tar(tmp_path / "y.tar", dict(list(pairs.items())[:1]) | {"0.lr.png": small}))[0][0].what
    )
    assert "expected 48x64" in check(shard, scale=2)[0][-1].what


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda hr: hr[::4, ::4], "most likely the nearest pixel (top left of each square)"),
        (lambda hr: downscale(np.roll(hr, 12, 0), 4), "most likely HR shifted by (+2."),
        (lambda hr: downscale(hr, 4)[:, ::-1], "most likely HR mirrored left-right"),
    ],
    ids=["kernel", "shift", "mirror"],
)
def test_lr_that_is_not_the_downscale_is_a_fault(
    pairs: dict[str, bytes],
    make_image: Callable[..., Pixels],
    tmp_path: Path,
    make: Callable[[Pixels], Pixels],
    words: str,
) -> None:
    bad = encoded(np.ascontiguousarray(make(make_image(96, 128, 1))), "png")
    (finding,), _ = check(write_tar(tmp_path / "x.tar", pairs | {"1.lr.png": bad}))
    assert finding.member == "1.lr.png"
    assert words in finding.what


# --- index and manifest ---


def change_index(folder: Path, change: Callable[[NDArray[np.void]], Any]) -> None:
    index = np.load(folder / "index.npy")
    changed = change(index)
    np.save(folder / "index.npy", index if changed is None else changed)


def set_field(field: str, value: int) -> Callable[[NDArray[np.void]], None]:
    def change(index: NDArray[np.void]) -> None:
        index[field][2] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_field("lr_offset", 512), ["row 2 of index.npy says lr_offset 512, found"]),
        (set_field("hr_size", 99), ["row 2 of index.npy says hr_size 99, found"]),
        (set_field("lr_crc", 0), ["row 2 of index.npy says 00000000"]),
        (set_field("width", 4), ["is of hr", "is of hr"]),
        (set_field("hr_offset", 77), ["no row for its data", "row 2 of index.npy expects a sample here, none was"]),
        (lambda index: index[:-1], ["rows, the manifest says", "has no row for its data"]),
        (lambda index: index[::-1], ["not in the order of the shards"]),
        (lambda index: index[[1, 0, *range(2, len(index))]], ["row 0 of index.npy is not in the order of the members"]),
    ],
    ids=["offset", "size", "crc", "width", "hr-offset", "row-lost", "reversed", "swapped"],
)
def test_an_index_that_disagrees_with_the_shards_is_named_by_row(
    folder: Path, change: Callable[[NDArray[np.void]], Any], words: list[str]
) -> None:
    change_index(folder, change)
    found, _ = check(folder)
    assert "sha256 is" in found[0].what
    assert found[0].shard == folder / "index.npy"
    assert len(found) == len(words) + 1, list(map(str, found))
    for finding, part in zip(found[1:], words, strict=True):
        assert part in finding.what


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "does not begin as one"),
        (b"\x93NUMPY\x01\x00", "its header has"),
        (encoded(np.zeros((4, 4), np.uint8), "npy"), "is |u1 (4, 4), expected [('shard'"),
    ],
    ids=["empty", "cut", "other"],
)
def test_an_index_that_is_none_is_a_fault_beside_those_of_the_shards(folder: Path, content: bytes, words: str) -> None:
    (folder / "index.npy").write_bytes(content)
    (folder / "shard-000000.tar").write_bytes(bytes(1024))
    found, _ = check(folder)
    assert found[0].shard == folder / "index.npy"
    assert words in found[0].what
    assert any(finding.shard.name == "shard-000000.tar" for finding in found)


@pytest.mark.parametrize("name", ["manifest.json", "index.npy", "shard-000001.tar"])
def test_a_pipe_in_the_place_of_a_file_does_not_stop_the_check(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    check(folder)
    with pytest.raises(UserError, match=name):
        open_shards([folder])


def test_a_damaged_header_of_raw_pixels_is_a_fault_at_its_member(
    make_image: Callable[..., Pixels], tmp_path: Path
) -> None:
    sound = encoded(make_image(96, 128), "npy")
    lr = encoded(downscale(make_image(96, 128), 4), "npy")
    claims = {
        "header": sound.replace(b"'descr'", b"'desc\0'"),
        "quote": sound.replace(b"'|u1'", b"'|u1 "),
        "huge": sound.replace(b"(96, 128, 3), }", b"(999999999999, 999, 3), }")[: len(sound) + 10],
        "none": sound.replace(b"(96, 128, 3), }  ", b"(0, 0, 3), }     "),
        "long": sound + b"\0",
        "short": sound[:-1],
    }
    members = {
        name: data for key, hr in claims.items() for name, data in ((f"{key}.hr.npy", hr), (f"{key}.lr.npy", lr))
    }
    found, summary = check(write_tar(tmp_path / "x.tar", members))
    assert [finding.member for finding in found] == [f"{key}.hr.npy" for key in claims]
    assert summary.num_pairs == 0


@pytest.mark.parametrize(
    "plan",
    [
        "[" * 10_000,
        "[]",
        '{"inputs": 1}',
        '{"inputs": "x", "options": {"tile": "y"}}',
        '{"inputs": "x", "options": {"tile": 7}}',
    ],
)
def test_a_damaged_plan_of_a_pack_does_not_stop_the_check(photos: Path, tmp_path: Path, plan: str) -> None:
    pack(photos, tmp_path / "shards", validation_fraction=0.4)
    (tmp_path / "shards/pack.json").write_text(plan)
    found, _ = check(tmp_path / "shards")
    assert [finding.shard.name for finding in found] == ["pack.json"] * ("tile" in plan)


def test_a_manifest_that_disagrees_with_the_shards_is_a_fault(folder: Path) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["shards"][0]["sha256"] = "0" * 64
    manifest["shards"][1]["samples"] += 1
    path.write_text(json.dumps(manifest))
    (folder / "shard-000002.tar").unlink()
    (folder / "extra.tar").write_bytes((folder / "shard-000000.tar").read_bytes())
    found, _ = check(folder)
    lines = [str(finding) for finding in found]
    assert "shard-000000.tar: sha256 is" in lines[1]
    assert "extra.tar: note: is not in manifest.json" in lines[0]
    assert any("shard-000001.tar: has" in line and "samples, the manifest says" in line for line in lines)
    assert any("shard-000002.tar: cannot be read (No such file or directory)" in line for line in lines)
    path.write_text("{")
    found, _ = check(folder)
    assert found[0].shard == path
    assert "is not a manifest of packed shards" in found[0].what


def test_an_encoding_that_disagrees_with_the_manifest_is_a_fault(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"encoding": "jpeg"}))
    found, _ = check(folder)
    assert "holds raw, the manifest's jpeg expects jpeg" in found[0].what
    assert "holds raw, the manifest's jpeg expects png" in found[1].what


def test_one_check_names_every_kind_of_fault_at_once(
    pairs: dict[str, bytes], make_image: Callable[..., Pixels], tmp_path: Path
) -> None:
    members = list(pairs.items())
    members[1] = ("0.lr.png", encoded(make_image(25, 32), "png"))
    members[3] = ("1.lr.png", b"no image")
    members[7] = ("3.lr.png", encoded(np.ascontiguousarray(make_image(96, 128, 3)[::4, ::4]), "png"))
    shard = write_tar(tmp_path / "x.tar", members)
    data = bytearray(shard.read_bytes())
    data[offset_of(shard, "2.lr.png") - 512] ^= 1
    shard.write_bytes(data[: -(-(offset_of(shard, "3.lr.png") + len(members[7][1])) // 512) * 512])
    whole = [str(finding) for finding in check(shard, scale=4)[0]]
    for part in ("expected 24x32", "is not an image", "checksum is wrong", "nearest pixel", "ends without", "missing"):
        assert sum(part in line for line in whole) == 1, whole
    assert len(whole) == 6


# --- the command ---


def test_sampling_inspects_some_pixels_and_all_headers(pairs: dict[str, bytes], tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "x.tar", pairs)
    _, summary = check(shard, sample=2)
    assert (summary.num_pairs, summary.num_inspected) == (4, 2)
    for name in ("0.hr.png", "2.hr.png"):
        data = bytearray(shard.read_bytes())
        data[offset_of(shard, name) + len(pairs[name]) // 2] ^= 4
        shard.write_bytes(data)
    assert check(shard, sample=9)[1].num_faults == 2
    assert {check(shard, sample=n)[1].num_faults for n in range(1, 4)} <= {0, 1, 2}


def test_a_pair_of_a_scale_beyond_the_sheets_crops_is_drawn(make_image: Callable[..., Pixels], tmp_path: Path) -> None:
    members = {"a.hr.png": encoded(make_image(400, 600), "png"), "a.lr.png": encoded(make_image(2, 3), "png")}
    check(write_tar(tmp_path / "x.tar", members), contact_sheet=tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").exists()
    (tmp_path / "full.png").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"full.png: cannot be written \(No space left on device\)"):
        check(tmp_path / "x.tar", contact_sheet=tmp_path / "full.png")


def test_the_command_prints_a_summary_and_fails_on_a_fault(folder: Path, tmp_path: Path) -> None:
    done = call("check", folder, "--contact-sheet", tmp_path / "sheet.png")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("4 shards, ") or "shards, " in lines[0]
    assert lines[1].startswith("HR height ")
    assert "encodings: hr raw" in lines[2]
    assert lines[3].startswith("0 faults, 0 notes; ")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 3 * 48
    shard = folder / "shard-000000.tar"
    data = bytearray(shard.read_bytes())
    data[0] ^= 1
    shard.write_bytes(data)
    done = call("check", folder)
    assert done.code == 1
    assert len(done.lines) == 1
    assert "not sound" in done.lines[0]
    assert any(
        line.startswith(f"{shard}: ") and "at offset 0: checksum is wrong" in line for line in done.out.splitlines()
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing"], "missing: does not exist, expected packed folders"),
        (["*.tar"], "*.tar: matches nothing"),
        (["https://host/a.tar"], "is not on this machine"),
        (["."], "holds no .tar files"),
        (["{folder}", "--sample", "0"], "--sample is 0"),
        (["{folder}", "--scale", "0"], "--scale is 0"),
        (["{folder}", "--contact-sheet", "no/where.png"], "there is no folder no"),
        (["{folder}", "--contact-sheet", "sheet.xyz"], "expected a name ending in"),
        (["{folder}", "--write-index"], "exists, --write-index is for shards without"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("check", *(argument.format(folder=packed) for argument in arguments))
    assert done.code == 2
    assert len(done.lines) == 1
    assert words in done.lines[0]


def test_a_users_mistake_is_no_finding(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        check(tmp_path / "nothing")
    assert call("check").code == 2
