"""Ranks that are not there, that hang, and that die: told in a line, and nothing is left running."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import ROOT, launch, options, run
from tests.ranks.processes import start, started_like_slurm, wait_for_steps

SCRIPT = ROOT / "tests/ranks/hang.py"


def left_running(folder: Path) -> list[int]:
    """Processes whose command line names the run."""
    return [process.pid for process in psutil.process_iter(["cmdline"]) if str(folder) in str(process.info["cmdline"])]


def changes(shards: Path, folder: Path, **more: Any) -> list[str]:
    return options({"run.dir": folder, "data.train": shards} | {key.replace("__", "."): v for key, v in more.items()})


@pytest.mark.slow
def test_a_rank_that_hangs_is_named(shards: Path, tmp_path: Path) -> None:
    arguments = changes(shards, tmp_path / "run", run__hang_seconds=4)
    done = launch(2, SCRIPT, "1", "sleep", *arguments, PYTHONPATH=str(ROOT), timeout=120)
    assert done.code == 1
    assert "rank 1 at step 2: update_generator gan_step.py:" in done.err  # its first forward settled DDP
    assert re.search(r"rank 0 at step 2: update_generator \S+:\d+ \(backward\)", done.err)
    assert left_running(tmp_path) == []


def test_a_hang_of_one_process_is_told(shards: Path, tmp_path: Path) -> None:
    arguments = changes(shards, tmp_path / "run", run__hang_seconds=4)
    done = run(sys.executable, SCRIPT, "0", "sleep", *arguments, PYTHONPATH=str(ROOT), timeout=60)
    assert done.code == 1
    assert "no step ended within 4 s: rank 0 at step 3: update_generator gan_step.py:" in done.err


@pytest.mark.slow
def test_a_frozen_rank_that_holds_the_store_does_not_keep_the_other(shards: Path, tmp_path: Path) -> None:
    """Rank 0 of two without a launcher, as Slurm starts them: nothing of it answers, not even the ranks' store."""
    folder = tmp_path / "run"
    arguments = changes(shards, folder, run__hang_seconds=4, train__steps=10_000, checkpoint__every=10_000)
    with started_like_slurm(2, arguments) as (first, second):
        wait_for_steps(folder, 3, second)
        first.send_signal(signal.SIGSTOP)
        err = second.communicate(timeout=40)[1]
        assert second.returncode == 1
        assert re.search(r"no step ended within 4 s: rank 1 at step \d+: ", err), err
        assert "no step ended within 4 s: rank 0 has not been heard of" in err, err
    assert left_running(tmp_path) == []


@pytest.mark.slow
def test_a_dead_launcher_does_not_end_the_watchdog(shards: Path, tmp_path: Path) -> None:
    """The launcher holds the store; one rank hangs after the launcher's death, so that no step boundary comes."""
    folder = tmp_path / "run"
    arguments = changes(shards, folder, run__hang_seconds=4, train__steps=10_000, checkpoint__every=10_000)
    process = start(2, arguments)
    wait_for_steps(folder, 3, process)
    ranks = [child for child in psutil.Process(process.pid).children() if str(folder) in str(child.cmdline())]
    assert len(ranks) == 2
    ranks[1].suspend()
    process.kill()
    try:
        psutil.wait_procs(ranks[:1], timeout=40)
        assert not ranks[0].is_running()
    finally:
        for rank in ranks:
            if rank.is_running():
                rank.kill()
    process.communicate(timeout=10)


@pytest.mark.slow
def test_a_rank_that_dies_takes_the_others_along(shards: Path, tmp_path: Path) -> None:
    # The others alone would go on for far longer than the process is given.
    arguments = changes(shards, tmp_path / "run", train__steps=10_000, checkpoint__every=10_000)
    done = launch(2, SCRIPT, "1", "die", *arguments, PYTHONPATH=str(ROOT), timeout=120)
    assert done.code != 0
    assert "Signal 9" in done.err
    assert left_running(tmp_path) == []


@pytest.mark.parametrize("how", ["--cpu", "run.ranks"])
def test_fewer_ranks_than_asked_for(shards: Path, tmp_path: Path, how: str) -> None:
    arguments = changes(shards, tmp_path / "run")
    accelerate = Path(sys.executable).with_name("accelerate")
    if how == "--cpu":  # which starts one process, and does not say so
        done = run(accelerate, "launch", "--cpu", "--num_processes", "2", "train.py", *arguments)
    else:
        done = run(sys.executable, "train.py", *arguments, "--run.ranks=2")
    assert done.code != 0
    assert "2 ranks were asked for, but there is 1: on CPU start with 'accelerate launch --config_file" in done.err
    assert not (tmp_path / "run").exists()
