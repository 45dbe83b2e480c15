"""Readers of the output that leave, full disks, closed streams: the exit code keeps its meaning."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, TINY, environment

PROGRAM = f"{sys.executable} -m srgan_dist"


def shell(command: str, cwd: Path = ROOT) -> tuple[int, str]:
    """The exit code of a pipeline's first command, and what went through the pipeline."""
    script = f"set -o pipefail; {command}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=240, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("--version | true", 0),
        ("train --help-all | head -1", 0),
        ("check SHARDS | true", 0),
        ("check SHARDS 2>&1 | true", 0),
        ("check /nowhere 2>&1 | true", 2),
        ("train --train.steps=0 2>&1 | true", 2),
        ("check SHARDS/manifest.txt 2>&1 | true", 2),
        ("check SHARDS >&-", 0),
        ("check SHARDS >&- 2>&-", 0),
        ("check /nowhere >&- 2>&-", 2),
        ("check SHARDS > /dev/full 2>&1", 1),
    ],
)
def test_the_exit_code_does_not_depend_on_who_reads(shards: Path, command: str, code: int) -> None:
    found, said = shell(f"{PROGRAM} {command.replace('SHARDS', str(shards))}")
    assert found == code, said
    assert "Traceback" not in said
    assert "Exception ignored" not in said


def test_a_full_disk_below_standard_output_is_one_line(shards: Path) -> None:
    code, said = shell(f"{PROGRAM} check {shards} > /dev/full")
    assert code == 1
    assert said.strip() == ("srgan-dist: standard output: No space left on device; free some space and start again")


@pytest.mark.parametrize("stderr", ["2>&1 | head -1", "2> /dev/full"])
def test_a_run_whose_log_nobody_reads_goes_on_to_its_end(shards: Path, tmp_path: Path, stderr: str) -> None:
    settings = TINY | {"data.train": shards, "run.dir": "run", "loss.perceptual.weight": 0, "train.steps": 3}
    code, _ = shell(f"{PROGRAM} train {' '.join(f'--{k}={v}' for k, v in settings.items())} {stderr}", cwd=tmp_path)
    assert code == 0
    assert (tmp_path / "run/result.json").is_file()


def test_streams_of_the_caller_are_left_alone() -> None:
    from srgan_dist.cli.streams import survive_closed_streams

    before = sys.stdout, sys.stderr
    survive_closed_streams()
    assert (sys.stdout, sys.stderr) == before
    assert os.fstat(1)
