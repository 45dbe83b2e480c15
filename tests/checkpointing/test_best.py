"""The best weights: those of the run as it is, wherever it was killed and wherever it resumes."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from srgan_dist.checkpointing.best import BestWeights
from srgan_dist.inference.generator import SRGenerator
from tests.conftest import call, metrics, options
from tests.ranks.faults import Kill, on_ranks, train_and_die

BY = {"psnr_y": ("psnr_y",), "perceptual": ("perceptual",), "front": ("psnr_y", "perceptual")}
Quality = dict[str, float | None]


def write(best: BestWeights, step: int) -> None:
    best.path(step).parent.mkdir(parents=True, exist_ok=True)
    best.path(step).write_text(f"weights of step {step}")


def undominated(validations: dict[int, Quality], by: Sequence[str]) -> set[int]:
    """By comparing each with each, as a person would."""

    def costs(step: int) -> list[float]:
        return [(-1 if name == "psnr_y" else 1) * float(validations[step][name] or 0) for name in by]

    def loses(step: int, other: int) -> bool:
        pairs = list(zip(costs(step), costs(other), strict=True))
        return all(there <= here for here, there in pairs) and (
            any(there < here for here, there in pairs) or other < step
        )

    return {step for step in validations if not any(loses(step, other) for other in validations if other != step)}


def kept(folder: Path) -> tuple[str | None, set[str]]:
    """What best.safetensors holds, and which files are in front/."""
    best = folder / "best.safetensors"
    return best.read_text() if best.exists() else None, {path.name for path in folder.glob("front/*")}


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "copies"])
@pytest.mark.parametrize("by", BY)
def test_from_every_checkpoint_the_best_are_those_up_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str, links: bool
) -> None:
    if not links:

        def refused(*_: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refused)
    chance = random.Random(by)
    best, validations, checkpoints = BestWeights(tmp_path / "w", by=BY[by]), dict[int, Quality](), list[int]()
    states = {}
    for step in range(1, 41):
        validations[step] = {"psnr_y": chance.randrange(20), "ssim_y": 0.5, "perceptual": chance.randrange(20)}
        if best.add(step, validations[step]):
            write(best, step)
        if step % 3 == 0:
            checkpoints = [*checkpoints, step][-4:]
            states[step] = json.loads(json.dumps(best.state()))
        best.arrange(checkpoints, history=best.history)
    expected = undominated(validations, BY[by])
    for step in reversed(checkpoints):  # the run resumes at an earlier one, again and again
        again = BestWeights(tmp_path / "w", by=BY[by])
        again.load(states[step], again.steps_on_disk())
        again.arrange([one for one in checkpoints if one <= step], history=again.history)
        expected = undominated({of: quality for of, quality in validations.items() if of <= step}, BY[by])
        best_one = min(expected, key=lambda one: validations[one]["perceptual"] or 0)
        text, front = kept(tmp_path / "w")
        assert text == f"weights of step {best_one}"
        assert front == ({f"step-{one:06d}.safetensors" for one in expected} if by == "front" else set())
    assert len(list((tmp_path / "w/.best").iterdir())) <= len(expected) + 8


def test_what_was_not_measured_is_never_the_best(tmp_path: Path) -> None:
    best = BestWeights(tmp_path, by=("psnr_y", "perceptual"))
    assert not best.add(1, {"psnr_y": None, "ssim_y": 1.0, "perceptual": 0.1})
    assert not best.add(2, {"psnr_y": 30.0, "ssim_y": float("nan"), "perceptual": float("nan")})
    assert best.best_values() == {
        "psnr_y": {"value": 30.0, "step": 2},
        "ssim_y": {"value": 1.0, "step": 1},
        "perceptual": {"value": 0.1, "step": 1},
    }
    best.arrange([1, 2], history=best.history)
    assert kept(tmp_path) == (None, set())


def test_lost_weights_are_named_and_later_ones_compete_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    best = BestWeights(tmp_path, by=("psnr_y",))
    best.load([{"step": 5, "psnr_y": 30.0}], [])
    assert f"{tmp_path}: lacks the best weights so far, of step 5: later ones compete without them" in caplog.text
    assert best.add(6, {"psnr_y": 29.0})
    assert best.best_values()["psnr_y"] == {"value": 30.0, "step": 5}


def arguments(folder: Path, shards: Path, validation: Path, **changes: Any) -> list[str]:
    base = {"run.dir": folder, "data.train": shards, "data.validation": validation, "validate.every": 1}
    more = {"checkpoint.every": 4, "checkpoint.best": "front", "train.steps": 6, "checkpoint.keep": 9}
    return options(base | more | changes)


def contents(folder: Path) -> dict[str, bytes]:
    found = (folder / "weights").rglob("*")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if path.is_file()}


@pytest.fixture(scope="module")
def whole(shards: Path, validation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    (done,) = on_ranks(train_and_die, arguments(folder, shards, validation), None)
    assert done.code == 0, done.err
    return folder


def test_a_run_keeps_its_best_weights(whole: Path) -> None:
    lines = {line["step"]: line for line in metrics(whole)}
    measured: dict[int, Quality] = {
        step: {name: line[f"val/{name}"] for name in ("psnr_y", "perceptual")} for step, line in lines.items()
    }
    front = undominated(measured, BY["front"])
    assert {path.name for path in (whole / "weights/front").iterdir()} == {f"step-{s:06d}.safetensors" for s in front}
    best = min(front, key=lambda step: measured[step]["perceptual"] or 0)
    with safe_open(whole / "weights/best.safetensors", framework="pt") as file:
        facts = file.metadata()
    assert facts["step"] == str(best)
    assert float(facts["val/perceptual"]) == lines[best]["val/perceptual"]
    assert SRGenerator.from_pretrained(whole / "weights/best.safetensors").scale == 4
    result = json.loads((whole / "result.json").read_text())
    assert result["best"]["perceptual"] == {"value": lines[best]["val/perceptual"], "step": best}


@pytest.mark.slow
@pytest.mark.parametrize(
    "kill",
    [
        Kill("write .step-000005.safetensors.tmp"),
        Kill("halfway .step-000005.safetensors.tmp"),
        Kill("replace .step-000005.safetensors.tmp", 2),  # the second is its name in front/
        Kill("write manifest.json", 2),
    ],
    ids=str,
)
def test_a_killed_run_ends_with_the_best_of_the_undisturbed_one(
    whole: Path, shards: Path, validation: Path, tmp_path: Path, kill: Kill
) -> None:
    command = arguments(tmp_path / "run", shards, validation)
    on_ranks(train_and_die, command, kill)
    assert not (tmp_path / "run/result.json").exists()
    (done,) = on_ranks(train_and_die, command, None)
    assert done.code == 0, done.err
    assert contents(tmp_path / "run") == contents(whole)


def test_the_best_of_steps_that_are_abandoned_does_not_survive(
    whole: Path, shards: Path, validation: Path, tmp_path: Path
) -> None:
    """Resumed at step 4, and at once at its end."""
    shutil.copytree(whole, tmp_path / "run")
    assert (tmp_path / "run/weights/best.safetensors").read_bytes() == (whole / "weights/best.safetensors").read_bytes()
    changes = {"run.resume": tmp_path / "run/checkpoints/step-000004", "train.steps": 4}
    (done,) = on_ranks(train_and_die, arguments(tmp_path / "run", shards, validation, **changes), None)
    assert done.code == 0, done.err
    names = [*(tmp_path / "run/weights/front").iterdir(), tmp_path / "run/weights/best.safetensors"]
    for path in names:
        with safe_open(path, framework="pt") as file:
            assert int(file.metadata()["step"]) <= 4, path
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert all(best["step"] <= 4 for best in result["best"].values())
    assert max(line["step"] for line in metrics(tmp_path / "run")) == 4
    rows = (tmp_path / "run/val.jsonl").read_text().splitlines()
    assert max(json.loads(row)["step"] for row in rows) == 4


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"checkpoint.best": "val/psnr_y"}, "checkpoint.best is val/psnr_y, but data.validation names no images"),
        (
            {"checkpoint.best": "front", "data.validation": "x", "loss.perceptual.weight": 0},
            "checkpoint.best is front, but no perceptual distance is measured, as loss.perceptual.weight is 0",
        ),
        (
            {"checkpoint.best": "val/perceptual", "data.validation": "x", "train.pretrain_steps": 6},
            "checkpoint.best is val/perceptual, but no perceptual distance is measured, as all steps are "
            "of pretraining",
        ),
    ],
)
def test_a_best_that_nothing_measures_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    done = call("train", *options({"run.dir": tmp_path / "run", "data.train": "shards"} | changes))
    assert done.code == 2
    assert says in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()
