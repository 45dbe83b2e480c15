"""Logged values are means over the interval: of what is finite, and exact wherever a run resumes."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from srgan_dist.training.interval import IntervalMeans, Means
from tests.conftest import Train, metrics, options
from tests.ranks.faults import on_ranks, train_and_die


def rank_of(world_size: int, rank: int = 0, others: list[list[float]] | None = None) -> Any:
    """A rank whose collectives know what the others hold."""
    return SimpleNamespace(
        rank=rank,
        world_size=world_size,
        device=torch.device("cpu"),
        reduce_sum=lambda value: value,
        gather=lambda value: [value.tolist(), *(others or [])],
    )


def scalars(**values: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def test_a_mean_is_one_over_the_steps_that_had_the_value() -> None:
    means = IntervalMeans(rank_of(1))
    for step in range(1, 5):
        means.add(scalars(g=float(step)) | (scalars(d=10.0 * step) if step % 2 == 0 else {}))
    assert means.take() == Means({"g": 2.5, "d": 30.0}, {"g": 0, "d": 0})
    assert means.take() == Means({}, {})
    means.add(scalars(g=7.0))
    assert means.take().values == {"g": 7.0}  # of the new interval alone


def test_what_is_not_finite_is_left_out_and_counted() -> None:
    means = IntervalMeans(rank_of(1))
    for norm in (1.0, math.inf, 3.0, math.nan):
        means.add(scalars(norm=norm, loss=1.0, broken=math.nan))
    values, left_out = means.take()
    assert (values["norm"], values["loss"]) == (2.0, 1.0)
    assert math.isnan(values["broken"])
    assert left_out == {"norm": 2, "loss": 0, "broken": 4}


def test_an_interval_that_a_checkpoint_cuts_ends_as_if_it_had_not() -> None:
    draw = torch.Generator().manual_seed(0)
    steps = [
        {name: torch.randn((), generator=draw).exp() for name in ("a", "b", *(["c"] if step % 3 == 0 else []))}
        for step in range(20)
    ]
    whole = IntervalMeans(rank_of(1))
    for values in steps:
        whole.add(values)
    expected = whole.take()
    for cut in range(1, 20):
        first, second = IntervalMeans(rank_of(1)), IntervalMeans(rank_of(1))
        for values in steps[:cut]:
            first.add(values)
        second.load(json.loads(json.dumps(first.state())))
        for values in steps[cut:]:
            second.add(values)
        assert second.take() == expected  # to the last bit


def test_on_other_ranks_each_goes_on_with_the_mean_of_what_they_had() -> None:
    two = IntervalMeans(rank_of(2, others=[[6.0, 2.0, 2.0]]))
    two.add(scalars(x=1.0))
    two.add(scalars(x=2.0))
    state = two.state()
    assert state == {"names": [["x"]], "ranks": [[3.0, 2.0, 2.0], [6.0, 2.0, 2.0]]}
    again = IntervalMeans(rank_of(2, rank=1))
    again.load(state)
    assert again.take().values == {"x": 3.0}  # its own
    one = IntervalMeans(rank_of(1))
    one.load(state)
    one.add(scalars(x=6.0))
    assert one.take().values == {"x": 3.5}  # 1.5 and 3 on average, twice, and 6


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_that_resumes_within_an_interval_logs_the_same_means(shards: Path, tmp_path: Path, ranks: int) -> None:
    """In mid-interval, in mid-cycle of 2:1. Pretraining ends within an interval, and is in no mean of the GAN phase."""
    changes = {
        "run.dir": tmp_path / "whole",
        "data.train": shards,
        "loss.perceptual.weight": 0,
        "train.steps": 13,
        "log.every": 5,
        "checkpoint.every": 7,
    }

    def lines(name: str) -> list[dict[str, Any]]:
        done = on_ranks(train_and_die, options(changes | {"run.dir": tmp_path / name}), None, ranks=ranks)
        assert {rank.code for rank in done} == {0}, done
        timed = ("perf/", "time", "hours")
        return [{k: v for k, v in line.items() if not k.startswith(timed)} for line in metrics(tmp_path / name)]

    whole = lines("whole")
    assert [line["step"] for line in whole] == [5, 10, 13]
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut/checkpoints/step-000013")
    state = json.loads((tmp_path / "cut/checkpoints/step-000007/state.json").read_text())
    assert len(state["interval"]["ranks"]) == ranks
    assert lines("cut") == whole
    changes["log.every"] = 1
    each = lines("each")
    for line, steps in zip(whole, ((3, 5), (6, 10), (11, 13)), strict=True):
        of = [one for one in each if steps[0] <= one["step"] <= steps[1]]
        for name in ("g/pixel", "g/total", "grad_norm/g", "g/saturated", "d/fake_accuracy"):
            assert line[name] == pytest.approx(sum(one[name] for one in of) / len(of), rel=1e-6), name
        of = [one for one in of if one["step"] % 2 == 0]  # in which D was updated
        for name in ("d/loss", "d/real_score", "grad_norm/d"):
            assert line[name] == pytest.approx(sum(one[name] for one in of) / len(of), rel=1e-6), name


def test_a_run_that_resumes_between_two_updates_of_d_logs_the_same_histograms(train: Train, tmp_path: Path) -> None:
    changes = {"loss.perceptual.weight": 0, "train.steps": 8, "checkpoint.every": 6}  # D judges at 4, 6 and 8
    assert train(tmp_path / "whole", changes=changes).code == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut/checkpoints/step-000008")
    assert "resumes after step 6" in train(tmp_path / "cut", changes=changes).err
    whole, cut = ((tmp_path / name / "histograms.jsonl").read_bytes() for name in ("whole", "cut"))
    assert b'"step": 7' in whole
    assert whole == cut
