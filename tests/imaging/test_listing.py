"""Folders as people keep them: links, hidden files, many formats, and names of any bytes."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from srgan_dist.errors import UserError
from srgan_dist.imaging.listing import SUFFIXES, list_images
from srgan_dist.imaging.read import read_rgb, read_size

Maker = Callable[..., NDArray[np.uint8]]


def made(folder: Path, *names: str) -> Path:
    """A folder with empty files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def listed(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in list_images(folder)]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was logged since the last call."""
    caplog.set_level(logging.INFO, logger="srgan_dist")

    def lines() -> list[str]:
        found = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return found

    return lines


def test_images_are_sorted_from_all_subfolders_whatever_the_case_of_their_suffix(tmp_path: Path) -> None:
    made(tmp_path, "z.png", "b/y.JPG", "b/a.TIFF", "a.webp", "c.jpeg", "folder.png/d.bmp")
    assert listed(tmp_path) == ["a.webp", "b/a.TIFF", "b/y.JPG", "c.jpeg", "folder.png/d.bmp", "z.png"]


def test_anything_but_a_folder_of_images_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="does not exist"):
        list_images(tmp_path / "absent")
    made(tmp_path, "file.txt", ".hidden.png")
    with pytest.raises(UserError, match="is not a folder"):
        list_images(tmp_path / "file.txt")
    with pytest.raises(
        UserError, match=r"holds no images, expected .*\*\.jp2.*; left out: hidden: 1 \(\.hidden\.png\)"
    ):
        list_images(tmp_path)

    def denied(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(UserError, match=r"cannot be listed \(Permission denied\): let it be read"):
        list_images(tmp_path)


def test_what_is_left_out_is_counted_and_named_by_reason_in_one_line(
    tmp_path: Path, said: Callable[[], list[str]]
) -> None:
    made(tmp_path, "a.png", ".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/a.png", "._a.png", "Thumbs.db")
    made(tmp_path, *(f"{number}.psd" for number in range(5)), "@eaDir/a.png/thumbnail.jpg")
    (tmp_path / "lost.png").symlink_to(tmp_path / "absent")
    os.mkfifo(tmp_path / "pipe.png")
    assert listed(tmp_path) == ["a.png"]
    (line,) = said()
    assert line.startswith(f"{tmp_path}: images: 1; left out: ")
    for words in (
        "hidden: 5 (._a.png, .ipynb_checkpoints, @eaDir, ...)",
        "of other formats: 5 (0.psd, 1.psd, 2.psd, ...)",
        "links that lead nowhere: 1 (lost.png)",
        "neither file nor folder: 1 (pipe.png)",
    ):
        assert words in line
    made(tmp_path / "clean", "a.png")
    list_images(tmp_path / "clean")
    assert said() == []


def test_links_to_files_and_folders_are_followed_and_each_folder_is_listed_once(
    tmp_path: Path, said: Callable[[], list[str]]
) -> None:
    store = made(tmp_path / "store", "x.png", "inner/y.png")
    (store / "inner" / "up").symlink_to(store)  # a circle inside what is linked
    folder = made(tmp_path / "folder", "z/own.png")
    (folder / "a").symlink_to("z")  # the folder itself counts, not this link to it, which sorts before it
    (folder / "linked").symlink_to(store)
    (folder / "file.png").symlink_to(store / "x.png")
    (folder / "here").symlink_to(".")
    (folder / "above").symlink_to("..")
    (folder / "loop.png").symlink_to("loop.png")
    assert listed(folder) == ["file.png", "linked/inner/y.png", "linked/x.png", "z/own.png"]
    (line,) = said()
    assert "links to what is listed anyway: 3 (a, here, linked/inner/up)" in line
    assert "links to a folder around them: 1 (above)" in line
    assert "links that lead nowhere: 1 (loop.png)" in line
    (tmp_path / "whole").symlink_to(store)
    assert listed(tmp_path / "whole") == ["inner/y.png", "x.png"]


@pytest.mark.parametrize("kind", SUFFIXES)
def test_each_format_of_the_list_is_read_under_each_of_its_names(tmp_path: Path, make_image: Maker, kind: str) -> None:
    image = Image.fromarray(make_image(24, 32))
    for suffix in SUFFIXES[kind]:
        mode = {".pgm": "L", ".pbm": "1"}.get(suffix, "RGB")
        image.convert(mode).save(tmp_path / f"a{suffix}", format=kind)
    paths = list_images(tmp_path)
    assert len(paths) == len(SUFFIXES[kind])
    for path in paths:
        assert read_size(path) == (24, 32)
        assert read_rgb(path).shape == (24, 32, 3)


NAMES = [b"\xff\xfe.png", b"line\nbreak.png", b"x[b=1e-4].png", b"*?.png", b"-rf.png", b"a" * 251 + b".png", b" .png"]


def test_any_name_that_the_file_system_allows_is_listed(tmp_path: Path, make_image: Maker) -> None:
    for name in NAMES:
        Image.fromarray(make_image(24, 32)).save(tmp_path / "a.png")
        (tmp_path / "a.png").rename(tmp_path / os.fsdecode(name))
    assert {os.fsencode(path.name) for path in list_images(tmp_path)} == set(NAMES)
    assert {read_size(path) for path in list_images(tmp_path)} == {(24, 32)}


def test_the_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(made(tmp_path / "home", "set/a.png").parent / "home"))
    assert list_images("~/set") == [tmp_path / "home" / "set" / "a.png"]
    monkeypatch.chdir(made(tmp_path / "here", "~nobody-has-this-name/a.png"))
    assert list_images("~nobody-has-this-name") == [Path("~nobody-has-this-name/a.png")]


def deeper(kind: str, picture: Image.Image) -> bytes:
    """A file whose header says that it has more than 8 bits a channel."""
    buffer = io.BytesIO()
    picture.save(buffer, format=kind.split()[0])
    data = bytearray(buffer.getvalue())
    match kind:
        case "JPEG2000":
            start = data.index(b"\xff\x4f\xff\x51") + 42
            data[start : start + 9 : 3] = bytes([15] * 3)
        case "PPM plain":
            data = bytearray(b"P3 1 1 65535 65535 300 0")
        case _:
            data = bytearray(b"P6 %d %d 65535\n" % picture.size + bytes(6 * picture.width * picture.height))
    return bytes(data)


@pytest.mark.parametrize("kind", ["PPM", "PPM plain", "JPEG2000"])
def test_bits_that_would_be_lost_unsaid_are_refused(tmp_path: Path, make_image: Maker, kind: str) -> None:
    path = tmp_path / f"a{SUFFIXES[kind.split()[0]][0]}"
    path.write_bytes(deeper(kind, Image.fromarray(make_image(24, 32))))
    for read in (read_size, read_rgb):
        with pytest.raises(UserError, match=r"has more than 8 bits a channel \(mode RGB\)"):
            read(path)
