"""A run's folder is read in whatever state it is, and never fatal."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from srgan_dist.config.root import Config
from srgan_dist.records.read import read_lines
from srgan_dist.records.run import State, Value, find_runs, read_run
from srgan_dist.utils.locks import FolderLock
from tests.conftest import ROOT
from tests.records.folders import make_run

OLD = ROOT / "tests/fixtures/run-v0.1/run"


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    folder = make_run(tmp_path / "held", done=4)
    script = "import sys, time; from pathlib import Path; from srgan_dist.utils.locks import FolderLock\n"
    script += "lock = FolderLock(Path(sys.argv[1])); lock.acquire(); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield folder
        process.kill()


def test_a_run_that_trains(held: Path) -> None:
    run = read_run(held)
    assert (run.state, run.reason, run.step, run.planned_steps) == (State.RUNNING, None, 4, 10)
    assert FolderLock(held).acquire() is not None, "reading it has not taken its lock"


@pytest.mark.parametrize(
    ("files", "done", "state", "reason"),
    [
        ({"result": {"steps": 10}}, 10, State.FINISHED, None),
        ({"stopped": {"signal": "SIGTERM", "step": 4}}, 4, State.PREEMPTED, "stopped by SIGTERM after step 4"),
        ({"failed": {"step": 4, "reason": "d/loss is nan"}}, 4, State.CRASHED, "after step 4: d/loss is nan"),
        ({}, 4, State.CRASHED, "ended without a word after step 4"),
        ({"result": {"steps": 4}}, 6, State.CRASHED, "ended without a word after step 6"),  # was done, then prolonged
        ({"result": {"steps": 10}}, 6, State.CRASHED, "ended without a word after step 6"),  # then from a checkpoint
        ({"failed": {"step": 4, "reason": "a\n\x1b[31mb"}}, 4, State.CRASHED, r"after step 4: a \x1b[31mb"),
        ({"failed": {"step": 10**500}}, 4, State.CRASHED, "after step 4: ?"),
    ],
    ids=("finished", "stopped", "failed", "killed", "prolonged", "resumed", "odd reason", "huge step"),
)
def test_how_it_ended(tmp_path: Path, files: dict[str, Any], done: int, state: State, reason: str | None) -> None:
    run = read_run(make_run(tmp_path / "run", done=done, **files))
    assert run.state == state
    assert run.reason == reason if reason is None else reason in (run.reason or "")


def test_a_lock_that_a_killed_run_left_is_no_run_that_trains(tmp_path: Path) -> None:
    (make_run(tmp_path / "run", done=3) / ".lock").write_text('{"host": "n1", "process": 1, "since": "2026"}')
    assert read_run(tmp_path / "run").state == State.CRASHED


def test_best_and_last(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run"))
    assert run.final("val/psnr_y") == Value(23.0, 10)
    assert run.best("val/psnr_y") == Value(26.0, 6)
    assert run.best("val/perceptual") is None
    assert run.hours == 0.1
    assert run.config["train.steps"] == 10
    assert run.config["loss.adversarial.kind"]


def test_a_run_of_an_earlier_version() -> None:
    run = read_run(OLD)
    assert run.step == 7
    assert run.info == {}
    assert run.images == {}
    assert run.best("val/perceptual")
    assert not run.problems


def test_secrets_of_the_configuration_stay_in_its_file(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    sources = {"train": ["https://me:hunter2@host/shards"]}
    (folder / "config.yaml").write_text(Config(data=sources).to_yaml())
    assert read_run(folder).config["data.train"] == ["https://***@host/shards"]


def test_numbers_that_are_none(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", done=0)
    values = ("NaN", "1e999", "-Infinity", "9" * 400, "true", '"24"', "null")
    lines = (f'{{"step": {step}, "val/psnr_y": {value}}}\n' for step, value in enumerate(values))
    (folder / "metrics.jsonl").write_text("".join(lines) + '{"step": 9, "val/psnr_y": 20}')
    run = read_run(folder)
    assert run.best("val/psnr_y") == run.final("val/psnr_y") == Value(20.0, 9)
    assert run.metrics[0]["val/psnr_y"] is None


def test_of_a_long_file_the_end_is_read(tmp_path: Path) -> None:
    path, problems = make_run(tmp_path / "run", done=1000) / "metrics.jsonl", list[str]()
    lines = read_lines(path, problems, max_bytes=1000)
    assert lines[-1]["step"] == 1000
    assert [line["step"] for line in lines] == list(range(lines[0]["step"], 1001))
    assert problems == ["metrics.jsonl: has more than 1000 bytes; only its end is read"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.jsonl", b'{"step": 1}\n\xff\xfe\n[1]\n{"step": "2"}\n' + b"[" * 100_000 + b'\n{"step": 3'),
        ("val.jsonl", b"nothing\n"),
        ("config.yaml", b"train: [\n"),
        ("config.yaml", b"\xff\xfe\x00"),
        ("result.json", b"[1, 2]"),
        ("run.json", b"[" * 100_000),
        ("failed.json", b'{"step'),
        ("stopped.json", b"x" * 20_000_000),
        ("samples", b"no folder"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_cannot_be_read_is_named_and_left_out(tmp_path: Path, name: str, content: bytes) -> None:
    folder = make_run(tmp_path / "run", result={"steps": 10})
    (folder / name).write_bytes(content)
    run = read_run(folder)
    assert run.state != State.BROKEN
    (problem,) = run.problems
    assert name in problem
    assert "\n" not in problem


def test_files_that_are_none(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    for name in ("metrics.jsonl", "val.jsonl", "run.json"):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
    assert len(read_run(folder).problems) == 3


def test_folders_that_are_no_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for name, said in (("file", "is a file"), ("empty", "not a run's folder"), ("none", "does not exist")):
        run = read_run(tmp_path / name)
        assert run.state == State.BROKEN
        assert said in (run.reason or "")


def test_crops_by_image_and_step(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    for name in ("baby/hr.webp", "baby/step-000010.webp", "baby/step-000005.webp", "baby/.step-000015.webp.tmp"):
        (folder / "samples" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "samples" / name).touch()
    (folder / "samples/step-000005.png").touch()
    (image,) = read_run(folder).images.values()
    assert list(image.steps) == [5, 10]
    assert image.hr == folder / "samples/baby/hr.webp"
    assert image.lr is None


def test_runs_below_a_folder(tmp_path: Path) -> None:
    for name in ("b", "a", "sweep/trial-001", "sweep/trial-000"):
        make_run(tmp_path / name)
    shutil.copytree(tmp_path / "a", tmp_path / "a/checkpoints/run within")
    (tmp_path / "empty").mkdir()
    (tmp_path / "sweep/again").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to("x" * 300)  # to a name that no file system takes
    found = find_runs(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "a",
        "b",
        "sweep/trial-000",
        "sweep/trial-001",
    ]
    assert find_runs(tmp_path / "a") == [tmp_path / "a"]
    assert find_runs(tmp_path / "none") == []
