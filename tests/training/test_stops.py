"""A run that cannot go on stops at a step boundary with everything saved, on all ranks, and says why."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Train, cli, metrics, options
from tests.ranks.processes import left_behind, start, wait_for_steps

LONG: dict[str, Any] = {"train.steps": 4000, "checkpoint.every": 4000, "loss.perceptual.weight": 0}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_shard_that_is_cut_short(shards: Path, tmp_path: Path, ranks: int, workers: int) -> None:
    copy = shutil.copytree(shards, tmp_path / "shards")
    folder = tmp_path / "run"
    process = start(ranks, options(LONG | {"run.dir": folder, "data.train": copy, "data.workers": workers}))
    wait_for_steps(folder, 3, process)
    shard = next(copy.glob("*.tar"))
    whole = shard.read_bytes()
    os.truncate(shard, 1024)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 1, err
    assert re.search(rf"srgan-dist: (rank 1: )?{copy}/.*the shard was cut short, copy it again", err), err
    saved_and_resumes(folder, err, ranks, lambda: shard.write_bytes(whole))
    assert not left_behind(process.pid)


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_log_that_cannot_be_written(shards: Path, tmp_path: Path, ranks: int) -> None:
    """Only rank 0 writes it; the others must not wait for it in their next update."""
    folder = tmp_path / "run"
    process = start(ranks, options(LONG | {"run.dir": folder, "data.train": shards}))
    wait_for_steps(folder, 3, process)
    log = folder / "metrics.jsonl"
    log.rename(folder / "kept")
    log.mkdir()
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 1, err
    assert "Is a directory" in err

    def repair() -> None:
        log.rmdir()
        (folder / "kept").rename(log)

    saved_and_resumes(folder, err, ranks, repair)


def test_a_run_from_another_ones_checkpoint_that_is_stopped_at_once_has_one_of_its_own(
    train: Train, shards: Path, tmp_path: Path
) -> None:
    """Started again by its config.yaml, which says nothing of the other one, it goes on from there."""
    few = {"loss.perceptual.weight": 0, "train.steps": 3}
    assert train(tmp_path / "first", changes=few).code == 0
    source = tmp_path / "first/checkpoints/step-000003"
    changes = {"run.dir": tmp_path / "second", "data.train": shards, "run.resume": source, "train.steps": 4000}
    process = start(1, options(few | changes))
    while not (tmp_path / "second/.lock").exists():
        assert process.poll() is None, process.communicate()[1]
    process.terminate()
    err = process.communicate(timeout=60)[1]
    saved = re.search(r"stopped by a signal after step (\d+) of 4000, with everything saved", err)
    assert saved, err
    step = int(saved[1])
    assert step > 3
    done = cli("train", "--config", tmp_path / "second/config.yaml", f"--train.steps={step + 1}")
    assert f"resumes after step {step} of {step + 1}" in done.err, done.err


def saved_and_resumes(folder: Path, err: str, ranks: int, repair: Any) -> None:
    """The last step that was taken is saved, and a repaired run goes on from there."""
    saved = re.search(r"stopped after step (\d+), with everything saved: rank [01] failed: ", err)
    assert saved, err
    step = int(saved[1])
    assert [path.name for path in (folder / "checkpoints").iterdir()] == [f"step-{step:06d}"]
    if ranks == 2:
        assert (
            f"stopped after step {step}, with everything saved: another rank failed" in err or err.count(saved[0]) > 1
        )
    repair()
    again = start(1, ["--config", str(folder / "config.yaml"), f"--train.steps={step + 2}"])
    assert f"resumes after step {step} of {step + 2}" in again.communicate(timeout=60)[1]
    assert again.returncode == 0
    assert [line["step"] for line in metrics(folder)][-2:] == [step + 1, step + 2]
