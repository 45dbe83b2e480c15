"""The time left is that of the phase that is going on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srgan_dist.records.run import RunRecord, State
from srgan_dist.records.time_left import time_left


def running(lines: list[dict[str, Any]], *, steps: int = 100, pretrain_steps: int = 0, **more: Any) -> RunRecord:
    config = {"train.steps": steps, "train.pretrain_steps": pretrain_steps, "data.batch_size": 8}
    step = lines[-1]["step"] if lines else 0
    return RunRecord(Path("run"), "run", State.RUNNING, config=config, metrics=lines, step=step, **more)


@pytest.mark.parametrize(
    ("lines", "pretrain_steps", "expected"),
    [
        ([], 0, "None"),
        ([{"step": 10, "hours": 0.1}], 0, "0:54:00"),
        ([{"step": 10, "hours": 0.1}, {"step": 20, "hours": 0.1 + 10 / 3600}], 0, "0:01:20"),
        ([{"step": 10, "hours": 0.1}], 40, "0:18:00 and 60 GAN steps"),
        ([{"step": 40, "hours": 0.4}], 40, "None"),  # no step of this phase has been timed
        ([{"step": 40, "hours": 0.4}, {"step": 50, "hours": 0.9}], 40, "2:30:00"),
        ([{"step": 10, "perf/images_per_second": 4.0}], 0, "0:03:00"),  # of an earlier version
        ([{"step": 10, "perf/images_per_second": 0}], 0, "None"),
        ([{"step": 10, "hours": 1e308}], 0, "None"),
        ([{"step": 10, "hours": "soon"}], 0, "None"),
        ([{"step": 10, "hours": 2.0}, {"step": 20, "hours": 1.0}], 0, "0:00:00"),
        ([{"step": 120, "hours": 1.0}], 0, "0:00:00"),
    ],
)
def test_by_the_last_lines(lines: list[dict[str, Any]], pretrain_steps: int, expected: str) -> None:
    left = time_left(running(lines, pretrain_steps=pretrain_steps))
    assert str(left) == expected


def test_what_has_ended_has_none(tmp_path: Path) -> None:
    run = RunRecord(tmp_path, "run", State.CRASHED, config={"train.steps": 10}, metrics=[{"step": 5, "hours": 1.0}])
    assert time_left(run) is None
