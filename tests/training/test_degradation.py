"""Degradations by configuration: they train, and they resume exactly."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Train, metrics

BASE: dict[str, Any] = {"train.steps": 4, "train.pretrain_steps": 4, "checkpoint.every": 2, "data.patch_size": 48}


@pytest.mark.parametrize(
    "changes",
    [
        {"data.degradation.kind": "bicubic"},
        {"data.degradation.kind": "realesrgan", "data.degradation.margin": 16, "data.patch_size": 32},
        {"data.degradation.kind": "noise", "data.degradation.gaussian_probability": 0.5, "data.scale": 1},
        {"data.degradation.kind": "bicubic", "data.scale": 2},
    ],
    ids=["bicubic", "realesrgan", "noise", "another scale than the shards'"],
)
def test_it_trains_and_resumes_exactly(train: Train, tmp_path: Path, changes: dict[str, Any]) -> None:
    done = train(tmp_path / "run", changes=BASE | changes)
    assert done.code == 0, done.err
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy/checkpoints/step-000004")
    done = train(tmp_path / "copy", changes=BASE | changes | {"data.micro_batch": 4})
    assert done.code == 0, done.err
    assert "resumes after step 2 of 4" in done.err
    for first, second in zip(metrics(tmp_path / "run"), metrics(tmp_path / "copy"), strict=True):
        assert first["data/digest"] == second["data/digest"]
        assert first["g/total"] == second["g/total"]


def test_it_is_part_of_what_a_position_means(train: Train, tmp_path: Path) -> None:
    assert train(tmp_path / "run", changes=BASE).code == 0
    done = train(tmp_path / "run", changes=BASE | {"train.steps": 5, "data.degradation.kind": "bicubic"})
    assert done.code == 2
    assert "--run.allow_changes=data.degradation" in done.lines[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.degradation.kind": "noise"}, "noise goes with scale 1"),
        ({"data.scale": 1}, "noise goes with scale 1, and scale 1 with noise"),
        ({"data.degradation.kind": "realesrgan", "data.degradation.margin": 6}, "not a multiple of data.scale 4"),
        ({"data.degradation.kind": "jpeg"}, "allowed: stored, bicubic, noise, realesrgan"),
        ({"data.degradation.kind": "noise", "data.degradation.margin": 6}, "belongs to another data.degradation.kind"),
    ],
)
def test_degradations_that_do_not_fit_are_refused(
    train: Train, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    done = train(tmp_path / "run", changes=BASE | changes)
    assert done.code == 2
    assert message in done.lines[-1]
