"""``srgan-dist runs``: a table of runs in every state."""

from __future__ import annotations

import json
import os
from pathlib import Path

from srgan_dist.utils.locks import FolderLock
from tests.conftest import call
from tests.records.folders import make_run


def make_folder(folder: Path) -> None:
    """Runs in every state; the later in this list, the earlier it was written to."""
    names = [
        make_run(folder / "stopped", done=4, stopped={"signal": "SIGUSR1", "step": 4}),
        make_run(folder / "sweep/trial-001", result={"steps": 10}),
        make_run(folder / "sweep/trial-000", done=3, failed={"step": 3, "reason": "g/total is nan"}),
        make_run(folder / "goes on", done=5),
        make_run(folder / "killed", done=2),
    ]
    (folder / "half").mkdir()
    (folder / "half/config.yaml").write_text("train: [")
    (names[1] / "run.json").write_text("no JSON")
    for age, run in enumerate([*names, folder / "half"]):
        for path in run.iterdir():
            os.utime(path, (1e9 - age, 1e9 - age))


def test_every_state_has_its_row_and_its_reason(tmp_path: Path) -> None:
    make_folder(tmp_path)
    lock = FolderLock(tmp_path / "goes on")
    lock.acquire()
    done = call("runs", tmp_path, "--json", tmp_path / "runs.json")
    lock.release()
    assert done.code == 0, done.err
    rows = json.loads((tmp_path / "runs.json").read_text())
    assert [(row["name"], row["state"], row["step"]) for row in rows] == [
        ("goes on", "running", 5),
        ("stopped", "preempted", 4),
        ("sweep/trial-001", "finished", 10),
        ("sweep/trial-000", "crashed", 3),
        ("killed", "crashed", 2),
        ("half", "broken", 0),
    ]
    assert rows[0]["seconds_left"] == 180.0
    assert rows[2]["best"]["val/psnr_y"] == {"value": 26.0, "step": 6}
    assert rows[2]["final"]["val/psnr_y"] == 23.0
    table = done.out.splitlines()
    (running,) = (row for row in table if row.lstrip().startswith("goes on"))
    assert running.split() == ["goes", "on", "running", "5/10", "0.05", "25.00"]
    assert "0:03:00" in table[table.index(running) + 1]
    assert "26.00@6" in done.out
    for reason in (
        "stopped: preempted: stopped by SIGUSR1 after step 4",
        "sweep/trial-000: crashed: after step 3: g/total is nan",
        "sweep/trial-001: run.json: is not JSON",
        "killed: crashed: ended without a word after step 2",
        "half: broken: config.yaml:1: not YAML",
    ):
        assert any(row.startswith(reason) for row in table), reason


def test_a_folder_that_is_a_run_is_listed_itself(tmp_path: Path) -> None:
    done = call("runs", make_run(tmp_path / "alone", result={"steps": 10}))
    assert done.out.count("finished") == 1
    assert "alone" in done.out


def test_no_runs_and_no_folder(tmp_path: Path) -> None:
    done = call("runs", tmp_path, "--json", tmp_path / "runs.json")
    assert (done.code, done.out) == (0, f"{tmp_path}: no runs in it\n")
    assert json.loads((tmp_path / "runs.json").read_text()) == []
    done = call("runs", tmp_path / "none")
    assert done.code == 2
    assert done.lines == [
        f"srgan-dist: {tmp_path}/none: cannot be read (No such file or directory): "
        "name the folder that your runs are in"
    ]


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    make_run(tmp_path / "[b]x\x1b[31m", result={"steps": 10})
    assert "[b]x\\x1b[31m" in call("runs", tmp_path).out
