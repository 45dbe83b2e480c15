"""A machine without enough shared memory or open files, and folders where no file can be: the real cause, one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from srgan_dist.bench.common.measure import refuse_unwritable
from srgan_dist.errors import UserError
from srgan_dist.utils.files import why_unwritable
from tests.conftest import ROOT, TINY, Finished, Train, cli, environment, options

WORKERS: dict[str, Any] = {"loss.perceptual.weight": 0, "train.steps": 2, "data.workers": 8}


def train_in_shell(before: str, shards: Path, folder: Path) -> Finished:
    """Train with loader workers in a shell that limits itself first."""
    settings = TINY | WORKERS | {"data.train": shards, "run.dir": folder}
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "srgan_dist",
        "train",
        *(f"--{k}={v}" for k, v in settings.items()),
    ]
    done = subprocess.run(
        ["bash", "-c", f'{before} && exec "$@"', "bash", *command],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,  # workers that are left over would keep the process from ending
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def test_too_many_open_files_is_told_and_leaves_no_worker(shards: Path, tmp_path: Path) -> None:
    done = train_in_shell("ulimit -n 24", shards, tmp_path / "run")
    assert done.code == 1, done.err
    assert done.lines[-1] == (
        "srgan-dist: Too many open files; allow more open files (ulimit -n), or lower data.workers, and start again: "
        "the run resumes"
    )
    assert "Traceback" not in done.err


def test_a_full_dev_shm_is_told_and_leaves_no_worker(shards: Path, tmp_path: Path) -> None:
    allowed = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "x", "/mnt"], capture_output=True, check=False)
    if allowed.returncode:
        pytest.skip("no permission to mount a small /dev/shm")
    small = "mount -t tmpfs -o size=4k tmpfs /dev/shm"
    done = train_in_shell(f'set -- unshare -m bash -c \'{small} && exec "$@"\' bash "$@"', shards, tmp_path / "run")
    assert done.code == 1, done.err
    assert done.lines[-1].startswith("srgan-dist: /dev/shm: No space left on device; enlarge it (docker --shm-size")
    assert "Traceback" not in done.err


def test_folders_without_room_for_files_are_known(tmp_path: Path) -> None:
    assert why_unwritable(tmp_path / "new/folder") is None
    assert why_unwritable(Path("/proc/x")) == "/proc: No such file or directory"
    (tmp_path / "file").touch()
    assert why_unwritable(tmp_path / "file/run") == f"{tmp_path}/file: Not a directory"
    assert "File name too long" in (why_unwritable(tmp_path / ("x" * 300)) or "")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize(
    ("folder", "problem"),
    [("/proc/x", "/proc: No such file or directory"), ("/dev/null/run", "/dev/null: Not a directory")],
)
def test_a_folder_that_cannot_be_a_runs_is_told(folder: str, problem: str, shards: Path) -> None:
    done = cli("train", *options({"run.dir": folder, "data.train": shards}))
    assert done.code == 2
    assert done.lines[-1] == f"srgan-dist: run.dir is {folder}, which cannot be written ({problem})"
    assert "Traceback" not in done.err


def test_a_pipe_named_as_the_log_is_told(train: Train, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run/metrics.jsonl")
    done = train(tmp_path / "run", changes={"loss.perceptual.weight": 0})
    assert done.code == 2
    assert done.lines[-1].startswith(
        f"srgan-dist: {tmp_path}/run/metrics.jsonl: cannot be read (is a pipe, not a file)"
    )


def test_a_pipe_that_nobody_reads_is_refused_as_output(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, problem in ((tmp_path / "pipe", "it is a pipe"), (Path("/proc/x"), "/proc: No such file")):
        with pytest.raises(UserError, match=problem):
            refuse_unwritable(path)
    refuse_unwritable(tmp_path / "new.json")
    refuse_unwritable(Path("/dev/null"))
