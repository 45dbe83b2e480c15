"""Where a run that repeats another writes, and what it says of the differences."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, cast

import pytest

from srgan_dist.config.load import load_config
from srgan_dist.config.root import Config
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.errors import UserError
from srgan_dist.training.repeat import beside_parent, compare_with_parent
from srgan_dist.utils.provenance import code_state, versions
from tests.records.folders import make_run


class OneRank:
    """Of a `Runtime`, what these functions need."""

    is_main, world_size = True, 1

    def broadcast(self, value: Any) -> Any:
        return value


RUNTIME = cast("Runtime", OneRank())


def again(parent: Path, **run: Any) -> Config:
    config = load_config(parent / "config.yaml")
    return config.model_copy(update={"run": config.run.model_copy(update={"dir": parent} | run)})


def repeat(folder: Path, parent: Path, **options: Any) -> Path:
    """A folder in which an earlier start of the same command trained."""
    make_run(folder, **options)
    (folder / "run.json").write_text(json.dumps({"parent": str(parent)}))
    return folder


def chosen(config: Config, parent: Path) -> str:
    return beside_parent(config, parent, RUNTIME).run.dir.name


def test_the_folder_is_a_free_name_beside_the_run(tmp_path: Path) -> None:
    parent = make_run(tmp_path / "run", result={"steps": 10})
    config = again(parent)
    assert chosen(config, parent) == "run-again"
    repeat(tmp_path / "run-again", parent, result={"steps": 10})
    assert chosen(config, parent) == "run-again-2"
    make_run(tmp_path / "run-again-2", done=3)  # somebody else's
    assert chosen(config, parent) == "run-again-3"
    (tmp_path / "run-again-3").mkdir()
    (tmp_path / "run-again-3/train.log").touch()  # of a start that was refused
    assert chosen(config, parent) == "run-again-3"
    assert chosen(again(parent, dir=tmp_path / "x"), parent) == "x"
    assert beside_parent(config, None, RUNTIME) is config


def test_one_that_broke_off_resumes_unless_it_is_another_experiment(tmp_path: Path) -> None:
    parent = make_run(tmp_path / "run", result={"steps": 10})
    repeat(tmp_path / "run-again", parent, done=3, stopped={"signal": "SIGTERM", "step": 3})
    assert chosen(again(parent), parent) == "run-again"
    assert chosen(again(parent, seed=1), parent) == "run-again-2"


def info(**changes: Any) -> dict[str, Any]:
    code = code_state()
    same = {
        "commit": code.commit,
        "dirty": code.dirty,
        "libraries": versions("torch"),
        "ranks": 1,
        "data_digest": "a" * 64,
    }
    return same | {"starts": [{"step": 0}]} | changes


def compared(parent: Path, facts: dict[str, Any], caplog: pytest.LogCaptureFixture, **run: Any) -> list[str]:
    (parent / "run.json").write_text(json.dumps(facts))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        compare_with_parent(again(parent, **run), parent, RUNTIME, shards="a" * 64)
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"commit": "b" * 40}, "its code was commit bbbbbbbbbbbb"),
        ({"commit": None}, "its code was of an unknown commit"),
        ({"libraries": {"torch": "1.0"}}, "torch was 1.0, this is"),
        ({"ranks": 4}, "ranks were 4, these are 1"),
        ({"starts": [{"step": 500}]}, "it began after step 500, from another run's checkpoint"),
    ],
)
def test_what_differs_is_one_line(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    said: str,
) -> None:
    clean = type(code_state())("c" * 40, dirty=False)
    monkeypatch.setattr("srgan_dist.training.repeat.code_state", lambda: clean)
    parent, same = make_run(tmp_path / "run"), info(commit=clean.commit, dirty=clean.dirty)
    assert compared(parent, same, caplog) == []
    (line,) = compared(parent, same | changes, caplog)
    assert line.startswith(f"numbers may come out other than those of {parent}: ")
    assert said in line


def test_code_that_is_on_no_record_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    dirty = type(code_state())("c" * 40, dirty=True)
    monkeypatch.setattr("srgan_dist.training.repeat.code_state", lambda: dirty)
    (line,) = compared(make_run(tmp_path / "run"), info(commit=dirty.commit, dirty=True), caplog)
    assert "with changes, whose changes" not in line
    assert "the code is commit cccccccccccc with changes that are on no record" in line


def test_other_shards_are_refused_unless_they_are_allowed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parent = make_run(tmp_path / "run")
    with pytest.raises(UserError, match=r"data\.train: shards aaaaaaaa, where .* was trained on shards bbbbbbbb"):
        compared(parent, info(data_digest="b" * 64), caplog)
    compared(parent, info(data_digest="b" * 64), caplog, allow_changes=("data",))
    assert any("does not say which data" in line for line in compared(parent, info(data_digest=None), caplog))
