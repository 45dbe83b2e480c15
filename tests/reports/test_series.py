"""The curves of a run: nothing that was logged is lost or made up, however many rows there are."""

from __future__ import annotations

import math
from typing import Any

import pytest

from srgan_dist.reports.series import curves, rows_for, series
from srgan_dist.utils import strict_json
from tests.reports.runs import rows


def test_a_short_run_keeps_every_row() -> None:
    lines = rows(30)
    found = series(lines)
    assert found["step"] == [row["step"] for row in lines]
    assert found["images"] == [row["images"] for row in lines]
    assert found["values"]["g/total"] == pytest.approx([row["g/total"] for row in lines], rel=1e-4)
    assert [value is not None for value in found["values"]["val/psnr_y"]] == [at % 10 == 9 for at in range(30)]


def test_a_long_run_keeps_every_validation_and_the_extremes_of_every_curve() -> None:
    lines = rows(20_000, every=1)
    peaks = {"g/total": 4711, "d/loss": 815, "grad_norm/d": 12_003}
    for key, at in peaks.items():
        lines[at][key] = 1e6
        lines[at + 20][key] = -1e6
    found = series(lines, most_rows=300)
    validated = [row for row in lines if "val/psnr_y" in row]
    assert [value for value in found["values"]["val/psnr_y"] if value is not None] == pytest.approx(
        [row["val/psnr_y"] for row in validated], rel=1e-4
    )
    columns = [found["step"], found["images"], found["hours"], *found["values"].values()]
    assert len({len(column) for column in columns}) == 1
    assert len(found["step"]) <= len(validated) + 300
    assert found["step"] == sorted(found["step"])
    for key, at in peaks.items():
        for value, step in ((1e6, at + 1), (-1e6, at + 21)):
            place = found["values"][key].index(value)
            assert abs(found["step"][place] - step) <= 2 * 20_000 / 300


def test_of_several_values_of_an_interval_none_is_made_up() -> None:
    lines: list[dict[str, Any]] = [{"step": step, "a": float(step % 7)} for step in range(1, 1001)]
    lines[499]["rare"] = 5.0
    found = series(lines, most_rows=100)
    assert len(found["step"]) <= 100
    assert set(found["values"]["a"]) <= set(map(float, range(7)))
    assert found["values"]["rare"].count(5.0) == 1
    assert set(found["values"]["rare"]) == {5.0, None}


def test_lines_of_one_step_are_one_row_and_those_without_a_number_none() -> None:
    lines: list[dict[str, Any]] = [
        {"step": 1, "a": 1},
        {"step": 1, "val/x": 2},
        {"step": 2, "alert": "collapse"},
        {"a": 3},
        {"step": 3, "a": 4},
    ]
    found = series(lines)
    assert found["step"] == [1, 3]
    assert found["values"] == {"a": [1.0, 4.0], "val/x": [2.0, None]}


def test_an_old_run_has_no_hours_and_what_is_no_number_is_null() -> None:
    strange = [math.nan, math.inf, True, "9", None, [1], 10**400]
    lines = [{"step": at, "a": value, "b": 1.0} for at, value in enumerate(strange, 1)]
    found = series(lines)
    assert found["hours"] == found["images"] == [None] * len(lines)
    assert list(found["values"]) == ["b"]
    assert strict_json.dumps(found)
    assert [curve["key"] for curve in curves(series(lines)["values"])] == ["b"]


def test_n_is_what_the_updates_say_also_where_it_adapts() -> None:
    updates = [0, 0, 50, 100, 125, 125, 150]  # pretraining of 200 steps; then 2:1, 2:1, 4:1, none, 8:1
    lines = [{"step": 100 * at, "d/updates": count} for at, count in enumerate(updates, 1)]
    found = series(lines)
    assert dict(zip(found["step"], found["values"]["n"], strict=True)) == {300: 2, 400: 2, 500: 4, 700: 8}
    assert [curve["key"] for curve in curves(series(lines)["values"])] == ["n"]


def test_curves_stand_in_the_order_in_which_they_are_looked_at() -> None:
    found = curves([*series([{"step": 1, "made_up/x": 1}])["values"], *series(rows(10))["values"]])
    keys = [curve["key"] for curve in found]
    assert keys[:3] == ["val/psnr_y", "val/ssim_y", "val/perceptual"]
    assert keys.index("g/total") < keys.index("d/loss") < keys.index("grad_norm/g") < keys.index("n")
    assert keys[-1] == "made_up/x"
    assert not {"step", "images", "hours", "epoch", "time", "data/digest", "d/updates"} & set(keys)
    assert {curve["key"] for curve in found if curve["log"]} == {
        "grad_norm/g", "grad_norm/d", "grad_norm/ratio", "learning_rate", "learning_rate/d",
    }  # fmt: skip


@pytest.mark.parametrize(("runs", "most"), [(1, 1500), (13, 1500), (50, 400), (10_000, 200)])
def test_many_runs_share_the_rows(runs: int, most: int) -> None:
    assert rows_for(runs) == most
