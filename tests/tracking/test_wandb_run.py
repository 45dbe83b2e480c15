"""W&B never stops a run and never loses a step: real runs, a real SDK, a server on loopback, and real kills."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from srgan_dist.tracking.wandb_files import WANDB_RUN, how_to_upload, local_logs, read_address
from tests.conftest import ROOT, Train, environment, metrics, options, run
from tests.tracking.wandb_server import WandbServer

ONLINE: dict[str, Any] = {"tracker.name": "wandb", "train.steps": 4, "train.pretrain_steps": 1, "checkpoint.every": 2}
# Some seconds on any machine: it is killed meanwhile.
LONG = ONLINE | {"train.steps": 4000, "loss.perceptual.weight": 0, "log.images_every": 4000}


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with WandbServer() as server:
        yield server


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """A user who is not logged in to W&B."""
    return {"HOME": str(tmp_path / "home"), "NETRC": str(tmp_path / "none")}


Trainer = subprocess.Popen[str]
Start = Callable[..., Trainer]


@pytest.fixture
def start(shards: Path) -> Iterator[Start]:
    """Start runs without waiting for their ends."""
    trainers: list[Trainer] = []

    def begin(folder: Path, changes: dict[str, Any], **extra: str) -> Trainer:
        arguments = options(changes | {"run.dir": folder, "data.train": shards})
        command = [str(Path(sys.executable).with_name("srgan-dist")), "train", *arguments]
        env = environment(**extra)
        trainers.append(subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True))
        return trainers[-1]

    yield begin
    for trainer in trainers:
        trainer.kill()
        trainer.communicate()


def wait_for_steps(trainer: Trainer, folder: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while not (folder / "metrics.jsonl").exists() or len(metrics(folder)) < count:
        assert time.monotonic() < deadline
        assert trainer.poll() is None
        time.sleep(0.02)


def kill(trainer: Trainer) -> None:
    """Kill it and W&B's process, as a node that dies does."""
    for process in (psutil.Process(trainer.pid), *psutil.Process(trainer.pid).children(recursive=True)):
        process.kill()
    trainer.communicate(timeout=60)


def upload(err: str, **extra: Any) -> None:
    """Paste the command that a run's log names into a shell."""
    command = re.findall(r"upload later with: (wandb sync .*)", err)[-1]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = run("sh", "-c", command, cwd=Path("/"), PATH=path, **extra)
    assert done.code == 0, done.err


def test_the_key_is_malformed(train: Train, tmp_path: Path, home: dict[str, str], server: WandbServer) -> None:
    folder = tmp_path / "a run's"
    done = train(folder, changes=ONLINE, **home, **server.environment | {"WANDB_API_KEY": "wrong"})
    assert done.code == 0, done.err
    assert "W&B: WANDB_API_KEY invalid: API key must have 40+ characters, has 5.: logging offline" in done.err
    assert len(metrics(folder)) == 4
    upload(done.err, **server.environment)
    assert server.only_run.steps() == [1, 2, 3, 4]


def test_the_server_rejects_the_key(train: Train, tmp_path: Path, home: dict[str, str], server: WandbServer) -> None:
    server.status = 401
    done = train(tmp_path / "run", changes=ONLINE, **home, **server.environment)
    assert done.code == 0, done.err
    assert "returned error 401" in done.err
    assert "<no message>" not in done.err
    assert done.err.count("logging offline") == 1


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("WANDB_MODE", "sometimes", "W&B: mode: Input should be 'online', 'offline'"),
        pytest.param(
            "WANDB_BASE_URL", "nonsense", "W&B: base_url: Input should be a valid URL", marks=pytest.mark.slow
        ),
        pytest.param("WANDB_RUN_ID", "a/b", "W&B: Run ID cannot contain the characters", marks=pytest.mark.slow),
    ],
)
def test_a_wrong_variable_costs_wandb_alone(
    train: Train, tmp_path: Path, home: dict[str, str], name: str, value: str, told: str
) -> None:
    done = train(tmp_path / "run", changes=ONLINE, **home, **{name: value})
    assert done.code == 0, done.err
    assert told in done.err
    assert "training continues without it" in done.err
    assert "Traceback" not in done.err
    assert len(metrics(tmp_path / "run")) == 4


def test_a_kill_before_the_first_checkpoint_leaves_one_run(
    train: Train, start: Start, tmp_path: Path, server: WandbServer
) -> None:
    folder, changes = tmp_path / "run", LONG | {"checkpoint.every": 4000}
    trainer = start(folder, changes, **server.environment)
    wait_for_steps(trainer, folder, 3)
    kill(trainer)
    address = read_address(folder)
    assert address
    assert address.project == "srgan-dist"
    done = train(folder, changes=changes | {"train.steps": 5}, **server.environment)
    assert done.code == 0, done.err
    assert server.runs[address.id].steps() == [1, 2, 3, 4, 5]
    assert "starts from scratch" in done.err


@pytest.mark.slow
def test_what_a_kill_kept_from_the_server_is_sent_again(
    train: Train, start: Start, validation: Path, tmp_path: Path, server: WandbServer
) -> None:
    folder = tmp_path / "run"
    pictures = {"log.images_every": 1, "data.validation": validation}
    trainer = start(folder, LONG | pictures, **server.environment)
    wait_for_steps(trainer, folder, 5)
    kill(trainer)
    received = server.only_run
    sent = len(received.history)
    done = train(folder, changes=LONG | pictures | {"train.steps": 40}, **server.environment)
    assert done.code == 0, done.err
    assert f"W&B: lacks what was logged of steps {sent + 1} to" in done.err
    assert server.only_run is received
    assert received.steps() == [line["step"] for line in metrics(folder)] == list(range(1, 41))
    assert received.steps("samples") == list(range(1, 41))
    assert received.exit_code == 0


@pytest.mark.slow
def test_a_run_that_was_logged_offline_is_sent_whole_when_the_server_is_back(
    train: Train, tmp_path: Path, server: WandbServer
) -> None:
    folder = tmp_path / "run"
    server.status = 503
    done = train(folder, changes=ONLINE | {"train.steps": 2}, WANDB_MODE="offline")
    assert "W&B: WANDB_MODE is offline: logging offline; upload later with: wandb sync" in done.err
    server.status = 200
    again = train(folder, changes=ONLINE, **server.environment)
    assert again.code == 0, again.err
    assert server.only_run.steps() == [1, 2, 3, 4]
    upload(done.err, **server.environment)  # too late, and harmless
    assert server.only_run.steps() == [1, 2, 3, 4]


@pytest.mark.slow
def test_offline_starts_hold_each_step_once(train: Train, start: Start, tmp_path: Path, server: WandbServer) -> None:
    folder, offline = tmp_path / "run", {"WANDB_MODE": "offline"}
    trainer = start(folder, LONG, **offline)
    wait_for_steps(trainer, folder, 5)
    kill(trainer)
    (log,) = folder.glob("wandb/offline-*/run-*.wandb")
    steps = metrics(folder)[-1]["step"]
    assert train(folder, changes=LONG | {"train.steps": steps}, **offline).code == 0
    done = train(folder, changes=LONG | {"train.steps": steps + 2}, **offline)
    assert done.code == 0, done.err
    upload(done.err, **server.environment)
    assert server.only_run.steps() == list(range(1, steps + 3))
    assert log.stat().st_size < 1000  # the fault was there: W&B had not written what it was given


@pytest.mark.slow
def test_the_server_dies_in_the_middle(train: Train, start: Start, tmp_path: Path, server: WandbServer) -> None:
    folder = tmp_path / "run"
    trainer = start(folder, LONG, **server.environment)
    wait_for_steps(trainer, folder, 5)
    server.status = 503
    trainer.send_signal(signal.SIGTERM)
    err = trainer.communicate(timeout=200)[1]
    assert trainer.returncode == 75, err
    step = json.loads((folder / "stopped.json").read_text())["step"]
    assert err.count("W&B: it has not taken everything within 60 s: once W&B answers, the same command") == 1
    server.status = 200
    done = train(folder, changes=LONG | {"train.steps": step}, **server.environment)
    assert done.code == 0, done.err
    assert server.only_run.steps() == list(range(1, step + 1))


def test_a_signal_is_no_failure(start: Start, tmp_path: Path, server: WandbServer) -> None:
    trainer = start(tmp_path / "run", LONG, **server.environment)
    wait_for_steps(trainer, tmp_path / "run", 3)
    trainer.send_signal(signal.SIGTERM)
    err = trainer.communicate(timeout=60)[1]
    assert trainer.returncode == 75, err
    received = server.only_run
    assert received.preempting
    assert received.exit_code == 75
    assert "failed" not in received.summary
    assert received.steps() == [line["step"] for line in metrics(tmp_path / "run")]


def test_a_loss_that_is_not_finite_leaves_its_reason(train: Train, tmp_path: Path, server: WandbServer) -> None:
    changes = ONLINE | {"optimizer.pretrain.learning_rate": 1e38, "train.pretrain_steps": 4, "log.every": 100}
    folder = tmp_path / "run"
    done = train(folder, changes=changes, **server.environment)
    assert done.code == 1
    failed = json.loads((folder / "failed.json").read_text())
    assert "g/pixel is not finite; no optimizer has moved since" in failed["reason"]
    (line,) = metrics(folder)
    assert (line["step"], line["alert"]) == (failed["step"], failed["reason"])
    ((title, text, _),) = server.only_run.alerts
    assert (title, text) == (f"run, step {failed['step']}", failed["reason"])
    assert server.only_run.exit_code == 1
    assert not server.only_run.preempting
    assert server.only_run.summary["failed"] == failed["reason"]
    assert server.only_run.steps("alert") == [failed["step"]]
    changes |= {"optimizer.pretrain.learning_rate": 1e-4, "log.every": 1}
    assert train(folder, changes=changes, **server.environment).code == 0
    assert not (folder / "failed.json").exists()
    assert sorted(len(run.history) for run in server.runs.values()) == [1, 4]  # it did not begin as the failed one did


def test_log_lines_arrive_as_what_they_are(train: Train, tmp_path: Path, server: WandbServer) -> None:
    done = train(tmp_path / "run", changes=ONLINE | {"log.images_every": 2}, **server.environment)
    assert done.code == 0, done.err
    received = server.only_run
    text = "\n".join(received.lines)
    assert "INFO:srgan_dist:step 4/4" in text
    assert "ERROR" not in text
    assert received.steps("samples") == [2, 4]
    assert received.steps() == [1, 2, 3, 4]  # a picture is in its step's row
    assert len(received.history) == 4
    assert received.facts["displayName"] == "run"


def test_the_variables_of_wandb_are_honoured(train: Train, tmp_path: Path, server: WandbServer) -> None:
    variables = {
        "WANDB_NAME": "my name",
        "WANDB_PROJECT": "theirs",
        "WANDB_RUN_GROUP": "group",
        "WANDB_ENTITY": "team",
        "WANDB_NOTES": "notes",
        "WANDB_JOB_TYPE": "job",
        "WANDB_TAGS": "a,b",
        "WANDB_RUN_ID": "mine",
        "WANDB_DIR": str(tmp_path / "elsewhere"),
    }
    done = train(tmp_path / "run", changes=ONLINE | {"tracker.tags": "c"}, **server.environment, **variables)
    assert done.code == 0, done.err
    facts = server.runs["mine"].facts
    assert [facts[key] for key in ("displayName", "project", "groupName", "entity", "notes", "jobType")] == [
        "my name",
        "theirs",
        "group",
        "team",
        "notes",
        "job",
    ]
    assert sorted(facts["tags"]) == ["a", "b", "c"]
    assert list((tmp_path / "elsewhere/wandb").glob("run-*-mine"))
    address = read_address(tmp_path / "run")
    assert address
    assert (address.id, address.project, address.entity) == ("mine", "theirs", "team")
    others = {"WANDB_PROJECT": "other", "WANDB_RUN_GROUP": "other", "WANDB_RESUME": "never"}
    changes = ONLINE | {"tracker.group": "ours", "train.steps": 5}
    done = train(tmp_path / "run", changes=changes, **server.environment, **others)
    assert "W&B: tracker.group=ours is used, not W&B's setting other" in done.err
    assert "W&B: the run began in team/theirs and stays there; other is for new runs" in done.err
    assert "W&B: WANDB_RESUME=never is for new runs; this one resumes its own" in done.err
    assert server.only_run.steps() == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_steps_that_are_taken_differently_begin_another_run(train: Train, tmp_path: Path, server: WandbServer) -> None:
    folder = tmp_path / "run"
    assert train(folder, changes=ONLINE | {"checkpoint.every": 3}, **server.environment).code == 0
    (first,) = server.runs
    changes = ONLINE | {"run.resume": folder / "checkpoints/step-000003", "train.ema_decay": 0.5, "train.steps": 5}
    done = train(folder, changes=changes | {"run.allow_changes": "train.ema_decay"}, **server.environment)
    assert done.code == 0, done.err
    assert server.runs.pop(first).steps() == [1, 2, 3, 4]
    assert server.only_run.steps() == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_each_trial_of_a_sweep_has_its_folder(train: Train, tmp_path: Path, server: WandbServer) -> None:
    for trial, channels in (("t1", 8), ("t2", 12)):
        agents = {"WANDB_SWEEP_ID": "s1", "WANDB_RUN_ID": trial, "WANDB_PROJECT": "of-the-sweep"}
        done = train(
            tmp_path / "runs", changes=ONLINE | {"generator.channels": channels}, **server.environment, **agents
        )
        assert done.code == 0, done.err
        assert f"{tmp_path}/runs/{trial}/: result.json" in done.err
        assert len(metrics(tmp_path / "runs" / trial)) == 4
    assert {key: run.facts["sweep"] for key, run in server.runs.items()} == {"t1": "s1", "t2": "s1"}
    assert not (tmp_path / "runs/checkpoints").exists()


@pytest.mark.parametrize("content", ["", "[]", '{"id": 3}', '{"id": ""}', '{"id": "a", "more": 1}', "9" * 20_000])
def test_a_damaged_record_of_the_run_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / WANDB_RUN).write_text(content)
    assert read_address(tmp_path) is None


def test_what_was_online_is_not_uploaded_twice(tmp_path: Path) -> None:
    for name in ("run-20261126_235959-a[1]", "offline-run-20261126_120000-a[1]", "offline-run-20261126_120000-b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"run-{name.rpartition('-')[2]}.wandb").touch()
    first, second = local_logs(tmp_path, "a[1]")
    assert not first.is_online
    assert second.is_online
    assert shlex.split(how_to_upload([first]))[-1] == str(first.path.parent)
    assert "the same command sends what W&B lacks" in how_to_upload([first, second])
    assert first.last_step() == 0
