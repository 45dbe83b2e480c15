"""Names of files and folders that are not as we imagined, through the commands."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from srgan_dist.cli.commands import run_command
from srgan_dist.tracking.console import console, output, progress_report
from tests.cli.test_commands import refused, weights
from tests.conftest import Train, call, photo
from tests.imaging.test_listing import NAMES

__all__ = ["weights"]  # a fixture


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Images of names that are allowed."""
    (tmp_path / "x[").mkdir()
    folder = tmp_path / "x[" / "b][/b]:smile:".replace("/", "-")
    folder.mkdir()
    for number, name in enumerate([*NAMES, b"end[-b].png"]):
        Image.fromarray(photo(64, 72, number)).save(tmp_path / "a.png")
        (tmp_path / "a.png").rename(folder / os.fsdecode(name))
    return folder


def test_images_of_any_name_are_packed_checked_measured_and_upscaled(odd: Path, weights: Path, tmp_path: Path) -> None:
    count = len(NAMES) + 1
    done = call("pack", odd, tmp_path / "out[b]", "--validation-fraction", "0.4")
    assert done.code == 0, done.err
    assert "out[b]: " in done.err
    done = call("check", tmp_path / "out[b]")
    assert done.code == 0, done.out
    done = call("evaluate", weights, odd, "--json", tmp_path / "result.json")
    assert done.code == 0, done.err
    assert len(json.loads((tmp_path / "result.json").read_text())["sets"][0]["images"]) == count
    assert "x[b=1e-4]" in done.out
    assert r"line\nbreak" in done.out
    done.out.encode()
    done = call("upscale", odd, tmp_path / "sr", "--weights", weights)
    assert done.code == 0, done.err
    assert {path.name for path in (tmp_path / "sr").iterdir()} == {os.fsdecode(name) for name in NAMES} | {
        "end[-b].png"
    }


def test_what_cannot_be_used_is_named_in_one_line_and_listed_one_a_line(odd: Path, tmp_path: Path) -> None:
    bad = odd / "bad\n\udcff[b].png"
    bad.write_text("no image")
    refused(call("pack", odd, tmp_path / "out"), r"bad\n\udcff[b].png")
    done = call("pack", odd, tmp_path / "out", "--on-error", "skip")
    assert done.code == 0, done.err
    (line,) = (tmp_path / "out" / "skipped.txt").read_text().splitlines()
    assert r"bad\n\udcff[b].png" in line


def test_the_home_folder_is_understood_by_every_argument(
    images: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").symlink_to(images)
    (tmp_path / "weights").symlink_to(weights)
    for arguments in (
        ("pack", "~/images", "~/shards"),
        ("check", "~/sh*", "--contact-sheet=~/sheet.png"),
        ("check", "~/shards/*.tar"),
        ("evaluate", "~/weights", "~/images", "--json=~/result.json"),
        ("upscale", "~/images", "~/sr", "--weights=~/weights"),
    ):
        done = call(*arguments)
        assert done.code == 0, done.err + done.out
    assert {path.name for path in tmp_path.iterdir()} >= {"shards", "sheet.png", "result.json", "sr"}
    assert not (tmp_path / "~").exists()


def test_a_name_of_251_bytes_is_a_folder_of_shards(images: Path, tmp_path: Path) -> None:
    out = tmp_path / ("p" * 251)
    for _ in range(2):
        assert call("pack", images, out).code == 0
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_the_terminal_shows_names_as_they_are() -> None:
    for stream in (console, output):
        with stream.capture() as shown:
            stream.print("lr[b=1e-4] x[/b] :smile:")
        assert shown.get() == "lr[b=1e-4] x[/b] :smile:\n"
    with progress_report("x[/b].png (1/2)", "tiles[/b]") as report:
        report(1, 2)


def test_folders_that_are_gone_or_forbidden_end_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    refused(call("pack", "/", "out"), "the folder that this was started in is gone")
    monkeypatch.chdir(tmp_path)

    def forbidden() -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/a/b")

    assert run_command(forbidden) == 2


@pytest.mark.parametrize("place", ["/proc/x", "/proc/x/y"])
def test_a_folder_that_cannot_be_made_is_refused_by_every_command(
    images: Path, weights: Path, shards: Path, place: str
) -> None:
    image = next(images.iterdir())
    refused(call("pack", images, place), place, "cannot be written")
    refused(call("pack", place, "out"), place, "does not exist")
    refused(call("upscale", image, f"{place}.png", "--weights", weights), "/proc", "cannot be written")
    refused(call("evaluate", weights, images, f"--json={place}"), place, "cannot be written")
    refused(call("check", shards, f"--contact-sheet={place}.png"), place, "cannot be written")


@pytest.mark.slow
def test_a_run_in_the_folder_where_it_starts_whose_name_has_brackets(train: Train, tmp_path: Path) -> None:
    folder = tmp_path / "x[" / "b] lr[b=1e-4]"
    folder.mkdir(parents=True)
    for changes in ({}, {"run.resume": "never"}):
        folder.mkdir(exist_ok=True)
        done = train(Path(), changes=changes, cwd=folder)
        assert done.code == 0, done.err
        assert f"{folder}/: result.json" in " ".join(done.err.split("\n"))
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name, f"{folder.name}.1"]
    assert (folder / "result.json").exists()
