"""Every command closes the files that it opens: none is left to the garbage collector, which may come late or never."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Finished, options, photo, run, write_images

# Runs commands in one process, without a collector, and names the files under a folder that are open after each.
SCRIPT = """
import gc, json, os, sys
from srgan_dist.cli.commands import main

def open_files(folder):
    links = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return sorted(link for link in links if link.startswith(folder))

folder, commands = json.loads(sys.argv[1])
gc.disable()
for name, arguments, code in commands:
    try:
        found = main(arguments)
    except SystemExit as stop:
        found = stop.code
    assert found == code, (name, found)
    assert not open_files(folder), (name, open_files(folder))
    print("done", name)
gc.collect()  # what only a cycle still holds warns here
"""


def run_commands(folder: Path, commands: dict[str, tuple[list[object], int]]) -> Finished:
    """Run commands, each with the exit code that it must have; a `ResourceWarning` is written to stderr."""
    listed = [(name, [str(argument) for argument in arguments], code) for name, (arguments, code) in commands.items()]
    flags = ["-X", "dev", "-W", "ignore", "-W", "always::ResourceWarning"]
    return run(sys.executable, *flags, "-c", SCRIPT, json.dumps([str(folder), listed]))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_no_command_leaves_a_file_open(tmp_path: Path, validation: Path) -> None:
    """pack (alone, with workers, stopped by a fault, with faults left out), check, train, evaluate and upscale."""
    images, bad = tmp_path / "images", tmp_path / "bad"
    write_images(images)
    for number in range(6, 18):  # enough for a second worker
        shutil.copy(images / f"{number % 6}.png", images / f"{number}.png")
    shutil.copytree(images, bad)
    Image.fromarray(photo(96, 96)).save(bad / "cut.png")
    (bad / "cut.png").write_bytes((bad / "cut.png").read_bytes()[:5000])
    (bad / "none.png").write_bytes(b"")

    shards, tiles = tmp_path / "shards", ["--tile", 96, "--shard-size", "200KB"]
    training = options({"run.dir": tmp_path / "run", "data.train": shards, "data.validation": validation})
    training += ["--loss.perceptual.weight=0"]
    weights = tmp_path / "run/weights/generator.safetensors"
    commands: dict[str, tuple[list[object], int]] = {
        "pack": (["pack", images, shards, *tiles, "--workers", 1], 0),
        "pack again": (["pack", images, shards, *tiles, "--workers", 1], 0),
        "pack jpeg": (["pack", images, tmp_path / "jpeg", "--encoding", "jpeg", "--workers", 1], 0),
        "pack with workers": (["pack", images, tmp_path / "two", *tiles, "--workers", 2], 0),
        "pack stops": (["pack", bad, tmp_path / "stopped", *tiles, "--workers", 1], 2),
        "pack skips": (["pack", bad, tmp_path / "skipped", *tiles, "--workers", 1, "--on-error", "skip"], 0),
        "check": (["check", shards], 0),
        "train": (["train", *training], 0),
        "evaluate": (["evaluate", weights, validation], 0),
        "upscale": (["upscale", "--weights", weights, validation, tmp_path / "upscaled"], 0),
    }
    done = run_commands(tmp_path, commands)
    assert done.code == 0, done.err
    assert [line for line in done.out.splitlines() if line.startswith("done")] == [f"done {name}" for name in commands]
    assert "ResourceWarning" not in done.err


def test_a_file_left_to_the_collector_is_noticed(tmp_path: Path) -> None:
    """Once by the interpreter's warning, once by the open descriptor."""
    path = tmp_path / "file"
    path.touch()
    leak = f"open({str(path)!r})"
    done = run(sys.executable, "-W", "always::ResourceWarning", "-c", leak)
    assert "ResourceWarning: unclosed file" in done.err
    kept = f"import srgan_dist.cli.commands as cli\nfile = open({str(path)!r})\ncli.main = lambda arguments: 0\n"
    done = run(sys.executable, "-c", kept + SCRIPT, json.dumps([str(tmp_path), [("kept", [], 0)]]))
    assert done.code == 1
    assert f"('kept', ['{path}'])" in done.err
