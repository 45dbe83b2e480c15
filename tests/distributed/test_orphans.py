"""Processes that are killed leave nothing behind, and nothing of theirs meets the next run."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import ROOT, cli, environment, metrics, options
from tests.ranks.processes import PROGRAMS, left_behind, start, wait_for_steps

LONG: dict[str, Any] = {"train.steps": 4000, "checkpoint.every": 4000, "loss.perceptual.weight": 0}
FEW = LONG | {"train.steps": 3}


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_ranks_save_and_end_when_their_launcher_is_killed(shards: Path, tmp_path: Path, ranks: int) -> None:
    """The same command again, at once, waits for them and resumes where they stopped: no step is lost or repeated."""
    folder = tmp_path / "run"
    arguments = options(LONG | {"run.dir": folder, "data.train": shards, "data.workers": 1})
    first = start(ranks, arguments, launched=True)
    wait_for_steps(folder, 3, first)
    orphans = psutil.Process(first.pid).children(recursive=True)
    assert len(orphans) >= 2 * ranks  # each rank and its loader worker
    first.kill()
    second = start(1, arguments)
    _, alive = psutil.wait_procs(orphans, timeout=30)
    assert not alive
    number = len(metrics(folder))
    wait_for_steps(folder, number + 2, second)
    second.terminate()
    err = second.communicate(timeout=60)[1]
    assert re.search(r"resumes after step (\d+) of 4000", err), err
    steps = [line["step"] for line in metrics(folder)]
    assert steps == list(range(1, len(steps) + 1))
    assert not left_behind(first.pid)
    first.communicate()


def test_a_second_run_in_one_folder_is_refused(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = start(1, options(LONG | {"run.dir": folder, "data.train": shards}))
    wait_for_steps(folder, 3, first)
    for changes in ({}, {"run.seed": 1}, {"run.resume": "never"}):
        done = cli("train", *options(FEW | {"run.dir": folder, "data.train": shards} | changes))
        assert done.code == 2
        holder = rf"process {first.pid} on \S+, since [0-9-]+T[0-9:]+\+00:00"
        message = rf"run.dir is {folder}, where another run trains \({holder}\): "
        assert re.search(message, done.lines[-1]), done.err
    assert first.poll() is None
    first.kill()
    first.communicate()
    # The lock died with its process, although its file is still there.
    assert (folder / ".lock").exists()
    done = cli("train", *options(FEW | {"run.dir": folder, "data.train": shards}))
    assert done.code == 0, done.err
    assert not (folder / ".lock").exists()


def test_a_run_that_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    done = cli("train", *options(FEW | {"run.dir": tmp_path / "a/b/run", "data.train": tmp_path / "missing"}))
    assert done.code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_loader_workers_end_with_a_rank_that_is_killed(shards: Path, tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "run"
    process = start(1, options(LONG | {"run.dir": folder, "data.train": shards, "data.workers": 2}))
    wait_for_steps(folder, 3, process)
    workers = psutil.Process(process.pid).children()
    assert len(workers) == 2
    process.send_signal(number)
    process.communicate()
    assert not psutil.wait_procs(workers, timeout=10)[1]


def test_a_worker_that_is_killed_is_one_line_and_costs_no_step(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = options(LONG | {"run.dir": folder, "data.train": shards, "data.workers": 2})
    process = start(1, arguments)
    wait_for_steps(folder, 3, process)
    psutil.Process(process.pid).children()[0].kill()
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 1, err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("srgan-dist: a loader worker was killed by SIGKILL, perhaps for lack of mem")
    step = metrics(folder)[-1]["step"]
    assert f"stopped after step {step}, with everything saved: rank 0 failed: a loader worker" in err
    done = cli("train", *arguments, f"--train.steps={step + 1}")
    assert f"resumes after step {step} of {step + 1}" in done.err, done.err
    assert not left_behind(process.pid)


def test_packs_workers_end_with_a_pack_that_hangs_up(tmp_path: Path, photos: Path) -> None:
    command = [PROGRAMS / "srgan-dist", "pack", photos, tmp_path / "out", "--workers", "2"]
    process = subprocess.Popen(
        [str(part) for part in command], cwd=ROOT, env=environment(), stderr=subprocess.PIPE, start_new_session=True
    )
    while process.poll() is None and len(psutil.Process(process.pid).children(recursive=True)) < 2:
        pass
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=30)
    others = left_behind(process.pid)
    assert not psutil.wait_procs(others, timeout=10)[1]
