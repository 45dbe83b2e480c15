"""Trackers: W&B online against a local server, offline without a key, never a prompt, never a hang."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pexpect
import psutil
import pytest

from srgan_dist.errors import UserError
from srgan_dist.tracking.run_logger import RunLogger
from tests.conftest import ROOT, Train, environment, metrics, options
from tests.tracking.wandb_server import KEY

WANDB: dict[str, Any] = {
    "tracker.name": "wandb",
    "tracker.project": "sr",
    "tracker.group": "g",
    "tracker.tags": "one",
    "train.steps": 3,
    "train.pretrain_steps": 1,
    "log.images_every": 3,
    "checkpoint.every": 1,
}


def resume_lines(folder: Path, content: bytes, *, step: int) -> bytes:
    """What is left of a metrics.jsonl when a run resumes after a step and logs the next one."""
    (folder / "metrics.jsonl").write_bytes(content)
    alone: Any = SimpleNamespace(is_main_process=True, trackers=[])
    logger = RunLogger(folder=folder, accelerator=alone, num_steps=9)
    logger.start(step=step, tracker_id=None)
    logger.metrics(step + 1, {"g/total": 0.5})
    logger.close()
    return (folder / "metrics.jsonl").read_bytes()


ONE, TWO, THREE = (b'{"step": %d, "g/total": 1.5}\n' % step for step in (1, 2, 3))
NEXT = rb'\{"step": 3, "time": "\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "g/total": 0\.5\}\n'
LINES: dict[str, tuple[bytes, bytes, str]] = {
    "of later steps": (ONE + TWO + THREE, ONE + TWO, ""),
    "without the last newline": (ONE + TWO[:-1], ONE + TWO, ""),
    "with a bad byte": (ONE + TWO.replace(b"g/", b"\xff/") + THREE, ONE + TWO.replace(b"g/", b"\xff/"), "line 2"),
    "that are foreign": (
        ONE + b"a note\n" + TWO + b'{"n": 1}\n',
        ONE + b"a note\n" + TWO + b'{"n": 1}\n',
        "2 lines, the first is line 2",
    ),
    "cut off after the step": (ONE + TWO + THREE[:-9], ONE + TWO, ""),
    "cut off before the step": (ONE + TWO + THREE[:4], ONE + TWO + THREE[:4] + b"\n", "line 3"),
    "of zeros": (ONE + b"\0" * 99, ONE + b"\0" * 99 + b"\n", "line 2"),
    "with Windows' ends": (ONE.replace(b"\n", b"\r\n") + TWO, ONE.replace(b"\n", b"\r\n") + TWO, ""),
    "that are blank": (ONE + b"\n" + TWO, ONE + b"\n" + TWO, ""),
    "of no file yet": (b"", b"", ""),
}


@pytest.mark.parametrize("name", LINES)
def test_a_resume_drops_lines_of_later_steps_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    before, kept, warned = LINES[name]
    after = resume_lines(tmp_path, before, step=2)
    assert after.startswith(kept)
    assert re.fullmatch(NEXT, after.removeprefix(kept))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    told = f"{tmp_path}/metrics.jsonl: {warned}: not a record of a step; kept as it is"
    assert warnings == ([told] if warned else [])


def test_metrics_that_cannot_be_read_at_all_are_the_users_to_move(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    alone: Any = SimpleNamespace(is_main_process=True, trackers=[])
    with pytest.raises(UserError, match=r"metrics\.jsonl: cannot be read \(is a folder, not a file\): move it away"):
        RunLogger(folder=tmp_path, accelerator=alone, num_steps=9).start(step=2, tracker_id=None)


def records(folder: Path) -> list[dict[str, Any]]:
    """The records of the only offline run below a folder, by W&B's own reader."""
    (log,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    wandb = Path(sys.executable).with_name("wandb")
    done = subprocess.run(
        [wandb, "leet", "inspect", "--json", log], capture_output=True, text=True, check=True, env=environment()
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_without_a_key_it_logs_offline_and_says_so(train: Train, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "NETRC": str(tmp_path / "none")}
    done = train(tmp_path / "run", changes=WANDB, **home)
    assert done.code == 0, done.err
    assert "W&B: no API key" in done.err
    assert done.err.count("logging offline") == 1
    text = json.dumps(records(tmp_path / "run"))
    for name in ("g/total", "d/loss", "val/psnr_y", "perf/images_per_second", "samples", "val/images", "d/fake_scores"):
        assert name in text
    pictures = list((tmp_path / "run").glob("wandb/offline-run-*/files/media/images/*.png"))
    assert pictures


def test_with_a_server_that_does_not_answer_the_run_is_logged_offline(train: Train, tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound but not listening: refused at once
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        done = train(tmp_path / "run", changes=WANDB, WANDB_API_KEY=KEY, WANDB_BASE_URL=url)
    assert done.code == 0, done.err
    assert "W&B: 127.0.0.1 does not answer" in done.err
    assert list((tmp_path / "run").glob("wandb/offline-run-*"))


def test_tensorboard_gets_scalars_and_pictures(train: Train, tmp_path: Path) -> None:
    done = train(tmp_path / "run", changes=WANDB | {"tracker.name": "tensorboard"})
    assert done.code == 0, done.err
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logs = sorted({path.parent for path in (tmp_path / "run").rglob("events.out.tfevents.*")})
    log = logs[0]  # below it, one folder for the hyper-parameters
    events = EventAccumulator(str(log))
    events.Reload()
    assert {"g/total", "val/psnr_y"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("g/total")] == [1, 2, 3]
    assert "samples" in " ".join(events.Tags()["images"])


@pytest.mark.slow
def test_in_tensorboard_no_step_is_there_twice(train: Train, tmp_path: Path) -> None:
    """Resumed at an earlier checkpoint, the run takes the later steps again."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, changes = tmp_path / "run", WANDB | {"tracker.name": "tensorboard", "train.steps": 4}
    assert train(folder, changes=changes).code == 0
    done = train(folder, changes=changes | {"run.resume": folder / "checkpoints/step-000002"})
    assert done.code == 0, done.err
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("g/total")] == [1, 2, 3, 4]


def test_on_a_terminal_there_is_a_bar(shards: Path, validation: Path, tmp_path: Path) -> None:
    base = {"run.dir": tmp_path / "run", "data.train": shards, "data.validation": validation}
    child = pexpect.spawn(
        str(Path(sys.executable).with_name("srgan-dist")),
        ["train", *options(base)],
        cwd=str(ROOT),
        env={**environment(), "TERM": "xterm-256color"},
        dimensions=(30, 160),
        encoding="utf-8",
        timeout=120,
    )
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0, child.before
    screen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", child.before)
    assert "6/6" in screen
    assert "img/s" in screen
    assert "PSNR-Y" in screen
    assert "after pretraining" in screen  # the table at the end
    assert len(metrics(tmp_path / "run")) == 6


def test_without_a_terminal_there_are_plain_lines(train: Train, tmp_path: Path) -> None:
    done = train(tmp_path / "run")
    assert done.code == 0, done.err
    assert "\r" not in done.err
    assert "\x1b" not in done.err
    lines = [line for line in done.lines if re.search(r"step \d/6", line)]
    assert len(lines) == 6
    left = [re.search(r"(\S+ and )?\S+( GAN)?( steps)? left$", line) for line in lines]
    assert all(left)
    assert {re.sub(r"\d:\d\d:\d\d", "T", match[0]) for match in left if match} == {
        "T and 4 GAN steps left",
        "4 steps left",
        "T left",
    }


def test_a_run_outlives_wandbs_own_process(train: Train, shards: Path, tmp_path: Path) -> None:
    few = {"loss.perceptual.weight": 0, "log.images_every": 4000, "train.steps": 4000, "checkpoint.every": 4000}
    changes = {"run.dir": tmp_path / "run", "data.train": shards} | few
    trainer = subprocess.Popen(
        [Path(sys.executable).with_name("srgan-dist"), "train", *options(WANDB | changes)],
        cwd=ROOT,
        env=environment(HOME=str(tmp_path)),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 90
    while not (tmp_path / "run/metrics.jsonl").exists() or len(metrics(tmp_path / "run")) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = psutil.Process(trainer.pid).children(recursive=True)
    assert any("wandb" in process.name() for process in children)
    for process in (psutil.Process(trainer.pid), *children):  # as Slurm does with every process of a step
        process.terminate()
    err = trainer.communicate(timeout=60)[1]
    assert trainer.returncode == 75, err
    assert "Traceback" not in err
    assert err.count("W&B: lost its process") == 1
    step = json.loads((tmp_path / "run/stopped.json").read_text())["step"]
    assert [line["step"] for line in metrics(tmp_path / "run")] == list(range(1, step + 1))
    done = train(tmp_path / "run", changes=WANDB | few | {"train.steps": step + 1}, HOME=str(tmp_path))
    assert done.code == 0, done.err
    names = {path.name for path in (tmp_path / "run").glob("wandb/offline-run-*/run-*.wandb")}
    assert len(names) == 1, names
