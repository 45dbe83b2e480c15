"""Tars with every kind of damage: what is reported, and what is still read."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from srgan_dist.data.shard_format.tar import Member, member_at, walk_tar

NAMES = [f"{number}.{side}.npy" for number in range(4) for side in ("hr", "lr")]


def write(path: Path, names: Iterable[str] = NAMES, *, size: int = 700, pax: bool = True, end: bool = True) -> bytes:
    """A tar of members filled with their own number; each takes 512 + 1024 bytes."""
    buffer = io.BytesIO()
    format_ = tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(bytes([number + 1]) * size))
        stop = buffer.tell()
    data = buffer.getvalue() if end else buffer.getvalue()[:stop]
    path.write_bytes(data)
    return data


def walk(path: Path) -> tuple[list[Member], list[tuple[str, int, str]]]:
    reported: list[tuple[str, int, str]] = []
    with path.open("rb") as file:
        members = list(walk_tar(file, lambda *line: reported.append(line)))
    return members, reported


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    path = tmp_path / "x.tar"
    write(path)
    return path


def test_a_sound_tar_is_read_as_by_tarfile(tar: Path) -> None:
    members, reported = walk(tar)
    assert reported == []
    with tarfile.open(tar) as reference:
        assert [(m.name, m.offset, m.size) for m in members] == [
            (info.name, info.offset_data, info.size) for info in reference
        ]
    assert all(member.is_file and member.header == member.offset - 512 for member in members)


@pytest.mark.parametrize("pax", [True, False], ids=["pax", "gnu"])
def test_long_and_non_ascii_names_are_read_and_members_that_are_no_files_marked(tmp_path: Path, pax: bool) -> None:
    names = ["é" * 30 + ".hr.npy", "folder/" * 30 + "a.hr.npy", "short"]
    write(tmp_path / "x.tar", names, pax=pax)
    members, reported = walk(tmp_path / "x.tar")
    assert reported == []
    assert [member.name for member in members] == names
    with (tmp_path / "x.tar").open("rb") as file:
        assert [member_at(file, member.header) for member in members] == members
        assert member_at(file, members[0].offset) is None
    with tarfile.open(tmp_path / "y.tar", "w") as made:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE):
            info = tarfile.TarInfo("thing")
            info.type = kind
            made.addfile(info)
    assert [member.is_file for member in walk(tmp_path / "y.tar")[0]] == [False, False]


def test_a_tar_truncated_at_a_member_boundary_is_reported(tar: Path) -> None:
    with tar.open("r+b") as file:
        file.truncate(3 * 1536)
    members, reported = walk(tar)
    assert [member.name for member in members] == NAMES[:3]
    assert reported == [
        ("", 4608, "ends without the two blocks of zeros that end a tar: cut short, or its writer was stopped")
    ]


def test_a_tar_truncated_inside_a_header_is_reported(tar: Path) -> None:
    with tar.open("r+b") as file:
        file.truncate(3 * 1536 + 100)
    members, reported = walk(tar)
    assert [member.name for member in members] == NAMES[:3]
    assert reported == [("", 4608, "cut short inside a header: 100 of 512 bytes are there")]


def test_a_tar_truncated_inside_data_is_reported(tar: Path) -> None:
    with tar.open("r+b") as file:
        file.truncate(3 * 1536 + 512 + 123)
    members, reported = walk(tar)
    assert [member.name for member in members] == NAMES[:3]
    (line,) = reported
    assert line[:2] == (NAMES[3], 4608)
    assert line[2].startswith("cut short inside data: 123 of 700 bytes are there")


@pytest.mark.parametrize("place", [0, 3, 7], ids=["first", "middle", "last"])
@pytest.mark.parametrize("byte", [0, 124, 150, 257], ids=["name", "size", "checksum", "magic"])
def test_a_flipped_byte_in_a_header_loses_one_member_only(tar: Path, place: int, byte: int) -> None:
    data = bytearray(tar.read_bytes())
    data[place * 1536 + byte] ^= 2
    tar.write_bytes(data)
    members, reported = walk(tar)
    assert [member.name for member in members] == NAMES[:place] + NAMES[place + 1 :]
    (line,) = reported
    assert line[1] == place * 1536
    assert "checksum is wrong: the header is damaged" in line[2] or "bad checksum" in line[2] or "invalid" in line[2]
    assert ("no other follows" in line[2]) == (place == 7)
    assert (f"the next sound one is at offset {(place + 1) * 1536}" in line[2]) == (place < 7)


def test_a_size_beyond_the_end_loses_one_member_only(tar: Path) -> None:
    info = tarfile.TarInfo(NAMES[2])
    info.size = 10**9
    data = bytearray(tar.read_bytes())
    data[2 * 1536 : 2 * 1536 + 512] = info.tobuf(tarfile.USTAR_FORMAT)
    tar.write_bytes(data)
    members, reported = walk(tar)
    assert [member.name for member in members] == NAMES[:2] + NAMES[3:]
    assert "of 1000000000 bytes are there; the next sound one is at offset 4608" in reported[0][2]


def test_damage_without_a_sound_header_after_it_ends_the_tar(tar: Path) -> None:
    data = bytearray(tar.read_bytes())
    for place in range(5, 8):
        data[place * 1536] ^= 2
    tar.write_bytes(data[: 8 * 1536])
    members, reported = walk(tar)
    assert len(members) == 5
    assert "no other follows" in reported[0][2]
    assert reported[1][2].startswith("ends without the two blocks")


def test_missing_blocks_of_zeros_at_the_end_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    data = write(path, end=False)[: 8 * 1536]
    for extra, words in ((0, "ends without the two blocks"), (512, "only one block of zeros"), (1024, None)):
        path.write_bytes(data + bytes(extra))
        members, reported = walk(path)
        assert len(members) == 8
        assert len(reported) == (words is not None)
        assert all(offset == 8 * 1536 for _, offset, _ in reported)
        assert words is None or words in reported[0][2]


def test_a_hole_and_an_appended_tar_hide_what_follows_from_readers(tar: Path) -> None:
    whole = tar.read_bytes()
    data = bytearray(whole)
    data[3 * 1536 : 5 * 1536] = bytes(2 * 1536)
    tar.write_bytes(data)
    members, reported = walk(tar)
    assert [member.name for member in members] == NAMES[:3] + NAMES[5:]
    assert reported == [
        ("", 4608, "zeros end the tar here for every reader, but another header follows at offset 7680"),
    ]
    tar.write_bytes(whole + whole)
    members, reported = walk(tar)
    assert len(members) == 16
    assert [offset for _, offset, _ in reported] == [8 * 1536]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty (0 bytes)"),
        (b"no tar" * 200, "is not a tar"),
        (b"\n<!DOCTYPE html><html>404</html>", "is a page of HTML"),
        (gzip.compress(bytes(5000), mtime=0), "is compressed (gzip)"),
        (b"PK\x03\x04" + bytes(600), "is a zip file"),
    ],
    ids=["empty", "text", "html", "gzip", "zip"],
)
def test_what_is_no_tar_is_named_by_its_kind(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    members, reported = walk(tmp_path / "x.tar")
    assert members == []
    assert len(reported) == 1
    assert reported[0][1] == 0
    assert words in reported[0][2]
