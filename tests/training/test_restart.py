"""A job that Slurm or torchrun starts again goes on with its own run; a person who says never means it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from srgan_dist.config.load import load_config
from srgan_dist.distributed.launch import JobStart, job_start
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.training.restart import STARTED, after_restart, record_start
from tests.conftest import Train, metrics, options

NAMES = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "TORCHELASTIC_RUN_ID")


class OneRank:
    """What this asks of the ranks."""

    is_main = True

    def broadcast(self, value: Any) -> Any:
        return value


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def wish(folder: Path, resume: str) -> str:
    """What run.resume becomes."""
    config = load_config(None, options({"run.dir": folder, "run.resume": resume}))
    return after_restart(config, cast("Runtime", OneRank())).run.resume


def checkpoint(folder: Path, step: int) -> None:
    (folder / f"checkpoints/step-{step:06d}").mkdir(parents=True)


@pytest.mark.parametrize(
    ("first", "second", "goes_on"),
    [
        ({"SLURM_JOB_ID": "7"}, {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}, True),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}, {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "3"}, True),
        ({"SLURM_JOB_ID": "7"}, {"SLURM_JOB_ID": "7"}, False),  # twice in one script, or by hand in an allocation
        ({"SLURM_JOB_ID": "7"}, {"SLURM_JOB_ID": "8", "SLURM_RESTART_COUNT": "1"}, False),  # another's run
        ({}, {"SLURM_JOB_ID": "8", "SLURM_RESTART_COUNT": "1"}, False),
        ({}, {}, False),
        (
            {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"},
            {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", "SLURM_RESTART_COUNT": "1"},
            True,
        ),
        ({"TORCHELASTIC_RUN_ID": "none"}, {"TORCHELASTIC_RUN_ID": "none"}, True),  # of the same launcher
        ({}, {"TORCHELASTIC_RUN_ID": "none"}, False),
    ],
)
def test_only_the_same_job_goes_on(
    tmp_path: Path, env: pytest.MonkeyPatch, first: dict[str, str], second: dict[str, str], goes_on: bool
) -> None:
    for name, value in first.items():
        env.setenv(name, value)
    record_start(tmp_path, step=5)
    for name in NAMES:
        env.delenv(name, raising=False)
    for name, value in second.items():
        env.setenv(name, value)
    assert wish(tmp_path, "never") == ("auto" if goes_on else "never")
    # A path is taken until there is something of its own.
    other = str(tmp_path / "other/checkpoints/step-000005")
    checkpoint(tmp_path, 5)
    assert wish(tmp_path, other) == other
    checkpoint(tmp_path, 8)
    assert wish(tmp_path, other) == ("auto" if goes_on else other)


def test_another_launcher_is_another_start(env: pytest.MonkeyPatch) -> None:
    env.setenv("TORCHELASTIC_RUN_ID", "none")
    now = job_start()
    assert now.launcher
    assert not now.is_restart_of(now._replace(launcher="elsewhere 1 2"))
    assert not JobStart(None, 0, None).is_restart_of(JobStart(None, 0, None))


def test_after_a_restart_the_first_start_is_remembered(tmp_path: Path, env: pytest.MonkeyPatch) -> None:
    env.setenv("SLURM_JOB_ID", "7")
    record_start(tmp_path, step=5)
    env.setenv("SLURM_RESTART_COUNT", "1")
    record_start(tmp_path, step=8)
    assert json.loads((tmp_path / STARTED).read_text()) == {
        "step": 5,
        "slurm_job": "7",
        "slurm_restarts": 1,
        "launcher": None,
    }
    assert wish(tmp_path, "never") == "never"  # a second run in the same start of the script


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"step": "x"}', '{"step": 1, "slurm_job": "7", "y": 1}', "9" * 2000]
)
def test_a_damaged_record_is_none(tmp_path: Path, env: pytest.MonkeyPatch, content: str) -> None:
    env.setenv("SLURM_JOB_ID", "7")
    env.setenv("SLURM_RESTART_COUNT", "1")
    (tmp_path / STARTED).write_text(content)
    assert wish(tmp_path, "never") == "never"


@pytest.mark.slow
@pytest.mark.usefixtures("env")
def test_a_requeued_job_that_says_never_loses_nothing(train: Train, tmp_path: Path) -> None:
    run, never = tmp_path / "run", {"run.resume": "never"}
    assert train(run, changes=never | {"train.steps": 3}, SLURM_JOB_ID="7").code == 0
    done = train(run, changes=never, SLURM_JOB_ID="7", SLURM_RESTART_COUNT="1")
    assert done.code == 0, done.err
    assert "this job was started again and resumes: run.resume=never was for its first start" in done.err
    assert "resumes after step 3" in done.err
    assert [line["step"] for line in metrics(run) if "g/total" in line] == list(range(1, 7))
    assert not (tmp_path / "run.1").exists()
    done = train(run, changes=never | {"train.steps": 2}, SLURM_JOB_ID="8")
    assert "starts from scratch; the previous run was moved to" in done.err
