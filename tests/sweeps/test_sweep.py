"""A sweep of real trainings: killed and started again there are N trials, none twice, and none begins anew."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from srgan_dist.sweeps.sweep import Sweep
from srgan_dist.sweeps.sweep_file import read_sweep
from srgan_dist.utils.locks import FolderLock
from tests.conftest import ROOT, TINY, Finished, cli, environment, metrics

pytestmark = pytest.mark.slow

SHORT: dict[str, Any] = {"loss.perceptual.weight": 0, "train.pretrain_steps": 0, "train.steps": 4, "validate.every": 2}
Write = Callable[..., Path]
LAUNCH = [str(Path(sys.executable).with_name("accelerate")), "launch"]
LAUNCH += ["--config_file", "launch/accelerate/cpu_two_ranks.yaml", "--main_process_port", "0"]


@pytest.fixture
def write(tmp_path: Path, shards: Path, validation: Path) -> Write:
    def writes(
        parameters: dict[str, Any], changes: dict[str, Any] | None = None, *, launched: bool = False, **content: Any
    ) -> Path:
        base = TINY | SHORT | {"run.dir": tmp_path / "sweep", "data.train": shards, "data.validation": validation}
        settings = [f"--{key}={value}" for key, value in (base | (changes or {})).items() if key not in parameters]
        sweep = {
            "program": "train.py",
            "method": "grid",
            "metric": {"name": "val/psnr_y", "goal": "maximize"},
            "parameters": parameters,
            "command": [*(LAUNCH if launched else ["${interpreter}"]), "${program}", *settings, "${args}"],
        }
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({**sweep, **content}))
        return tmp_path / "sweep.yaml"

    return writes


def report(tmp_path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((tmp_path / "sweep/sweep.json").read_text())
    return content


def begin(file: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [str(Path(sys.executable).with_name("srgan-dist")), "sweep", str(file), *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(what: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def end(process: subprocess.Popen[str]) -> Finished:
    out, err = process.communicate(timeout=200)
    return Finished(process.returncode, out, err)


def test_a_sweep_in_parallel_ends_with_a_table(write: Write, tmp_path: Path) -> None:
    file = write(
        {"train.g_per_d": {"values": [1, 2]}, "optimizer.generator.learning_rate": {"values": [0.001, 0.0001]}}
    )
    done = cli("sweep", file, "--parallel", "2")
    assert done.code == 0, done.err
    trials = report(tmp_path)["trials"]
    assert sorted(trial["number"] for trial in trials) == [0, 1, 2, 3]
    assert {trial["state"] for trial in trials} == {"finished"}
    values = [trial["value"] for trial in trials]
    assert values == sorted(values, reverse=True), "the best first"
    for trial in trials:
        folder = tmp_path / "sweep" / trial["folder"]
        assert json.loads((folder / "result.json").read_text())["best"]["psnr_y"]["value"] == trial["value"]
        assert (
            yaml.safe_load((folder / "config.yaml").read_text())["train"]["g_per_d"]
            == trial["parameters"]["train.g_per_d"]
        )
    assert "4 trials, best val/psnr_y (larger is better)" in done.out
    assert done.out.index(trials[0]["folder"]) < done.out.index(trials[3]["folder"])
    again = cli("sweep", file)
    assert again.code == 0
    assert len(report(tmp_path)["trials"]) == 4, "nothing trains twice"
    other = cli("sweep", write({"train.g_per_d": {"values": [1, 2, 3]}}))
    assert other.code == 2
    assert "a sweep that was begun with another" in other.err


def test_killed_and_started_again_it_has_every_trial_once(write: Write, tmp_path: Path) -> None:
    parameters = {"optimizer.generator.learning_rate": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2}}
    long = {"train.steps": 60, "validate.every": 30, "checkpoint.every": 5}
    file, folder = write(parameters, long, method="random"), tmp_path / "sweep"
    process = begin(file, "--trials", "2")
    wait_for(lambda: list(folder.glob("trial-000/checkpoints/step-*")), process)
    process.send_signal(signal.SIGKILL)
    end(process)
    # The training outlives it; here the whole machine goes down.
    for orphan in psutil.process_iter(["cmdline"]):
        if f"--run.dir={folder / 'trial-000'}" in (orphan.info["cmdline"] or ()):
            orphan.kill()
            orphan.wait()
    step = max(int(path.name[5:]) for path in folder.glob("trial-000/checkpoints/step-*"))

    process = begin(file, "--trials", "2")
    wait_for(lambda: f"resumes after step {step}" in (folder / "trial-000.log").read_text(), process)
    process.send_signal(signal.SIGTERM)
    stopped = end(process)
    assert stopped.code == 75, stopped.err
    assert "the same command resumes it" in stopped.err
    done = cli("sweep", file, "--trials", "2")
    assert done.code == 0, done.err
    trials = report(tmp_path)["trials"]
    assert sorted(trial["number"] for trial in trials) == [0, 1]
    assert sorted(path.name for path in folder.glob("trial-*") if path.is_dir()) == ["trial-000", "trial-001"]
    for trial in trials:
        assert [line["step"] for line in metrics(folder / trial["folder"])] == list(range(1, 61))


def test_a_trial_of_two_ranks_that_somebody_stops_goes_on(write: Write, tmp_path: Path) -> None:
    changes, folder = {"train.steps": 40, "validate.every": 40}, tmp_path / "sweep"
    process = begin(write({"train.g_per_d": {"values": [2]}}, changes, launched=True))
    wait_for(lambda: (folder / "trial-000/metrics.jsonl").exists(), process)
    (launcher,) = psutil.Process(process.pid).children()
    launcher.send_signal(signal.SIGTERM)  # which ends before its ranks have saved
    done = end(process)
    assert done.code == 0, done.err
    assert "trial-000 was stopped by another process, and resumes" in done.err
    assert [line["step"] for line in metrics(folder / "trial-000")] == list(range(1, 41))
    assert report(tmp_path)["trials"][0]["state"] == "finished"


def test_a_kill_while_a_trial_is_chosen_loses_none_of_its_values(write: Write, tmp_path: Path) -> None:
    parameters = {"train.g_per_d": {"values": [3]}, "optimizer.generator.learning_rate": {"values": [0.0007]}}
    file, folder = write(parameters), tmp_path / "sweep"
    sweep = Sweep(read_sweep(file), num_trials=None, parallel=1)
    folder.mkdir()
    study = sweep._open()
    trial = study.ask()
    trial.suggest_categorical("train.g_per_d", [3])  # here the kill comes, in the middle of a line
    with (folder / "sweep.journal").open("ab") as journal:
        journal.write(b'{"op_code": 5, "wor')
    done = cli("sweep", file)
    assert done.code == 0, done.err
    (only,) = report(tmp_path)["trials"]
    assert only["parameters"] == {"train.g_per_d": 3, "optimizer.generator.learning_rate": 0.0007}
    config = yaml.safe_load((folder / "trial-000/config.yaml").read_text())
    assert config["train"]["g_per_d"] == 3
    assert config["optimizer"]["generator"]["learning_rate"] == 0.0007


def test_a_trial_that_fails_is_not_the_end_but_a_mistake_in_all_is(write: Write, tmp_path: Path) -> None:
    done = cli("sweep", write({"data.batch_size": {"values": [4, 6]}, "data.micro_batch": {"values": [2, 4]}}))
    assert done.code == 0, done.err  # 6 is no multiple of 4
    failed = [trial for trial in report(tmp_path)["trials"] if trial["state"] == "failed"]
    assert len(failed) == 1
    assert "data.batch_size is 6, not a multiple of data.micro_batch 4" in failed[0]["reason"]

    nowhere = {"run.dir": tmp_path / "other", "data.train": tmp_path / "nowhere"}
    done = cli("sweep", write({"run.seed": {"values": [0, 1, 2, 3, 4]}}, nowhere))
    assert done.code == 1
    assert "all of the first 3 trials failed: " in done.err
    assert "nowhere" in done.err.splitlines()[-1]


def test_a_trial_that_falls_behind_is_stopped_early(write: Write, tmp_path: Path) -> None:
    # The second one learns nothing from weights that are far off.
    parameters = {"optimizer.generator.learning_rate": {"values": [0.002, 0.0019, 1e-12, 1e-13]}}
    changes = {"train.steps": 24, "validate.every": 1, "checkpoint.every": 24, "generator.skip": "none"}
    early = {"type": "hyperband", "min_iter": 2, "eta": 2}
    done = cli("sweep", write(parameters, changes, early_terminate=early), OMP_NUM_THREADS="1")
    assert done.code == 0, done.err
    states = {trial["number"]: trial["state"] for trial in report(tmp_path)["trials"]}
    assert "stopped early" in states.values(), states
    assert states[0] == "finished"


def test_a_training_that_outlives_its_sweep_is_taken_over_at_its_end(write: Write, tmp_path: Path) -> None:
    changes = {"train.steps": 40, "validate.every": 40, "checkpoint.every": 40}
    file, folder = write({"run.seed": {"values": [0]}}, changes), tmp_path / "sweep"
    process = begin(file)
    wait_for((folder / "trial-000.log").exists, process)  # it still loads torch, and holds no folder
    wait_for(lambda: b'"process"' in (folder / "sweep.journal").read_bytes(), process)
    process.send_signal(signal.SIGKILL)
    end(process)
    done = cli("sweep", file)
    assert done.code == 0, done.err
    assert "failed" not in done.err
    assert len(json.loads((folder / "trial-000/run.json").read_text())["starts"]) <= 2
    assert [line["step"] for line in metrics(folder / "trial-000")] == list(range(1, 41))


def test_two_sweeps_in_one_folder(write: Write, tmp_path: Path) -> None:
    file = write({"run.seed": {"values": [0]}})
    lock = FolderLock(tmp_path / "sweep")
    assert lock.acquire() is None
    try:
        done = cli("sweep", file)
    finally:
        lock.release()
    assert done.code == 2
    assert f"where another sweep trains (process {os.getpid()}" in done.err
