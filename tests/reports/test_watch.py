"""A run is watched from before its first line to its end, whatever happens to its files meanwhile."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect
import pytest
from rich.console import Console

from srgan_dist.errors import UserError
from srgan_dist.records.run import RunRecord, State, read_run
from srgan_dist.reports.run_view import sparkline, view
from srgan_dist.reports.watch import watch
from srgan_dist.utils.locks import FolderLock
from tests.conftest import call, environment
from tests.records.folders import line, make_run

Event = Callable[[], object]


def watched(folder: Path, *events: Event) -> tuple[RunRecord, list[str]]:
    """Watch a run; after each look, one of the events happens. Returns how it ended, and the lines that were shown."""
    waiting = list(events)

    def sleep(_: float) -> None:
        if waiting:
            waiting.pop(0)()

    out = io.StringIO()
    run = watch(folder, Console(file=out, width=200, markup=False, emoji=False), sleep=sleep)
    assert not waiting, "it ended too early"
    return run, out.getvalue().splitlines()


def append(folder: Path, text: str) -> Event:
    def write() -> None:
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(text)

    return write


def test_from_before_its_beginning_to_its_end(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    lock = FolderLock(folder)

    def finish() -> None:
        make_run(folder, steps=4, done=4, result={"steps": 4})
        lock.release()

    run, lines = watched(
        folder,
        lambda: None,
        lock.acquire,
        lambda: make_run(folder, steps=4, done=1),
        append(folder, line(2, alert="D wins")[:30]),  # half a line
        append(folder, line(2, alert="D wins")[30:]),
        finish,
    )
    assert (run.state, run.step) == (State.FINISHED, 4)
    assert lines[0] == f"{folder}: no run yet; waiting for it to begin"
    assert lines[1].startswith("step 1/4  G 1  PSNR-Y 21.00 (best 21.00 at 1)  0:01:48 left")
    assert lines[2].startswith("step 2/4")
    assert lines[3] == "step 2: D wins"
    assert lines[4].startswith("step 4/4  G 0.25  PSNR-Y 24.00 (best 24.00 at 4)")
    assert len(lines) == 5


def test_one_that_resumes_drops_lines_and_goes_on(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", done=6)
    killed, resumed = FolderLock(folder), FolderLock(folder)
    killed.acquire()

    def finish() -> None:
        make_run(folder, result={"steps": 10})
        resumed.release()

    run, lines = watched(
        folder,
        killed.release,
        lambda: None,  # for a moment it looks as if it had ended
        resumed.acquire,
        lambda: make_run(folder, done=4),
        append(folder, line(5)),
        finish,
    )
    assert run.state == State.FINISHED
    assert [text.split("  ")[0] for text in lines] == [
        "step 6/10",
        "resumed after step 4",
        "step 4/10",
        "step 5/10",
        "step 10/10",
    ]


@pytest.mark.parametrize(
    ("files", "code", "said"),
    [
        ({"result": {"steps": 10}}, 0, "run: finished after 10 steps, PSNR-Y 23.00 dB"),
        ({"stopped": {"signal": "SIGTERM", "step": 10}}, 75, "run: preempted: stopped by SIGTERM after step 10"),
        ({"failed": {"step": 10, "reason": "d/loss is nan"}}, 1, "run: crashed: after step 10: d/loss is nan"),
        ({}, 1, "run: crashed: ended without a word after step 10"),
    ],
)
def test_the_command_ends_as_the_run_did(tmp_path: Path, files: dict[str, Any], code: int, said: str) -> None:
    done = call("watch", make_run(tmp_path / "run", **files))
    assert done.code == code
    assert said in (done.out if code == 0 else done.err)
    assert (len(done.out.splitlines()), len(done.lines)) == ((2, 0) if code == 0 else (1, 1))


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    console = Console(file=io.StringIO())
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: is a file, not a run's folder"):
        watch(tmp_path / "file", console)
    make_run(tmp_path / "runs/a")
    with pytest.raises(UserError, match=r"runs: a run is below it: name one, such as .*runs/a"):
        watch(tmp_path / "runs", console)


def test_trends() -> None:
    assert sparkline([0, 1, 2, 3], width=8, bars="01234567") == "0257"
    assert sparkline([0, 0, 7, 7], width=2, bars="01234567") == "07"
    assert sparkline([5], width=8, bars="01234567") == "0"
    assert sparkline([1e308, -1e308], width=8, bars="01234567") == "00"


def test_a_terminal_without_other_characters_gets_ascii(tmp_path: Path) -> None:
    out = io.StringIO()
    Console(file=out, width=100).print(view(read_run(make_run(tmp_path / "run")), ascii_only=True))
    (trend,) = (text for text in out.getvalue().splitlines() if "G, total" in text)
    assert trend.split()[:4] == ["losses", "G,", "total", "0.1"]
    assert trend.isascii()


@pytest.mark.slow
def test_on_a_terminal_it_is_a_picture_that_changes_until_ctrl_c(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", done=3)
    lock = FolderLock(folder)
    lock.acquire()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    child = pexpect.spawn(
        sys.executable,
        ["-m", "srgan_dist", "watch", str(folder)],
        env=environment(TERM="xterm-256color"),
        dimensions=(40, 100),
        encoding="utf-8",
        timeout=60,
    )
    child.expect("step 3/10")
    child.expect("left")
    child.expect("G, total")
    child.expect("▁")
    append(folder, line(4, alert="the discriminator wins"))()
    child.expect("step 4/10")
    child.expect("step 4: the discriminator wins")
    child.sendintr()
    child.expect(pexpect.EOF)
    assert "\x1b[?25h" in child.before, "the cursor is back"
    assert "Traceback" not in child.before
    assert "interrupted" not in child.before
    child.close()
    assert child.exitstatus == 130
    before[folder / "metrics.jsonl"] += line(4, alert="the discriminator wins").encode()
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    lock.release()


@pytest.mark.slow
def test_on_a_terminal_it_ends_with_the_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", done=3)
    lock = FolderLock(folder)
    lock.acquire()
    command = ["-m", "srgan_dist", "watch", str(folder)]
    child = pexpect.spawn(sys.executable, command, env=environment(TERM="xterm"), encoding="utf-8", timeout=60)
    child.expect("step 3/10")
    (folder / "failed.json").write_text(json.dumps({"step": 4, "reason": "g/total is nan"}))
    lock.release()
    child.expect("srgan-dist: run: crashed: after step 4: g/total is nan")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 1
    assert os.listdir(tmp_path) == ["run"]  # noqa: PTH208
