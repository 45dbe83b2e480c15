"""A signal at any moment: everything saved, the marker written, no process left, and the run goes on exactly."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Train, metrics, options
from tests.ranks.processes import left_behind, start, wait_for_steps

LONG: dict[str, Any] = {"train.steps": 4000, "checkpoint.every": 4000, "loss.perceptual.weight": 0}


@pytest.mark.parametrize(
    ("ranks", "number", "workers"),
    [
        (1, signal.SIGTERM, 0),
        (1, signal.SIGINT, 2),
        (1, signal.SIGUSR1, 1),
        (1, signal.SIGHUP, 1),  # a terminal that was closed
        pytest.param(2, signal.SIGTERM, 1, marks=pytest.mark.slow),
        pytest.param(2, signal.SIGINT, 0, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_the_run_goes_on(
    train: Train, shards: Path, validation: Path, tmp_path: Path, ranks: int, number: signal.Signals, workers: int
) -> None:
    base = {"data.train": shards, "data.validation": validation, "data.workers": workers}
    folder = tmp_path / "run"
    process = start(ranks, options(base | LONG | {"run.dir": folder}))
    wait_for_steps(folder, 5, process)
    if number == signal.SIGTERM and ranks == 2:
        process.send_signal(number)  # a cluster tells the launcher, which tells the ranks
    else:
        os.killpg(process.pid, number)  # a terminal tells the whole group, loader workers too
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 75 if ranks == 1 else process.returncode != 0, err
    assert "with everything saved" in err
    assert not left_behind(process.pid)
    step = json.loads((folder / "stopped.json").read_text())["step"]
    assert (folder / f"checkpoints/step-{step:06d}/manifest.json").is_file()
    assert [line["step"] for line in metrics(folder)] == list(range(1, step + 1))

    end = {"train.steps": step + 3}
    done = train(folder, ranks=ranks, changes=LONG | end)
    assert done.code == 0, done.err
    assert f"resumes after step {step} of" in done.err
    assert not (folder / "stopped.json").exists()
    assert train(tmp_path / "whole", ranks=ranks, changes=LONG | end).code == 0
    for first, second in zip(metrics(folder), metrics(tmp_path / "whole"), strict=True):
        for key in ("data/digest", "g/total", "grad_norm/g"):
            assert first[key] == second[key], key


def test_a_second_interrupt_stops_at_once(shards: Path, tmp_path: Path) -> None:
    changes = LONG | {"run.dir": tmp_path / "run", "data.train": shards, "data.batch_size": 1024}
    process = start(1, options(changes))
    wait_for_steps(tmp_path / "run", 1, process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert process.returncode in (75, 130), err  # 75: the step ended between the two
    assert "Traceback" not in err
    # The first one alone would have saved after the step.
    assert ("with everything saved" in err) == (process.returncode == 75)
    marker = tmp_path / "run/stopped.json"
    assert marker.exists() or process.returncode == 130
    if marker.exists():  # whatever came between: it says nothing that is not so
        step = json.loads(marker.read_text())["step"]
        assert (tmp_path / f"run/checkpoints/step-{step:06d}/manifest.json").is_file()
    assert not left_behind(process.pid)


def test_too_short_a_lead_is_told_once(train: Train, tmp_path: Path) -> None:
    few = {"loss.perceptual.weight": 0, "train.steps": 8, "checkpoint.every": 1}
    for lead, warnings in ((0.001, 1), (600, 0)):
        done = train(tmp_path / f"lead {lead}", changes=few | {"run.stop_lead": lead})
        assert done.code == 0, done.err
        told = [line for line in done.lines if "run.stop_lead" in line]
        assert len(told) == warnings
    assert train(tmp_path / "lead 600", changes=few | {"run.stop_lead": 0}).code == 2


def test_nohup_is_respected(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = start(1, options(LONG | {"run.dir": folder, "data.train": shards, "data.workers": 1}))
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_for_steps(folder, 3, process)
    os.killpg(process.pid, signal.SIGHUP)
    wait_for_steps(folder, len(metrics(folder)) + 5, process)
    os.killpg(process.pid, signal.SIGTERM)
    assert "with everything saved" in process.communicate(timeout=60)[1]
