"""The same global batches on any number of ranks, workers and micro-batches, also after a stop at any step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from srgan_dist.data.packing.pack import pack
from tests.conftest import Train, metrics, options, photo
from tests.ranks.faults import Ended, on_ranks, train_and_die

STEPS = 14  # of 4 patches each, more than two epochs of the tiny shards


def digests(folder: Path) -> list[str]:
    lines = metrics(folder)
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [line["data/digest"] for line in lines]


@pytest.fixture(scope="module")
def reference() -> dict[str, list[str]]:
    return {}


@pytest.fixture
def expected(train: Train, reference: dict[str, list[str]], tmp_path: Path) -> list[str]:
    """Digests of an undisturbed run of one rank."""
    if not reference:
        done = train(tmp_path / "whole", changes=PIXELS | {"train.steps": STEPS})
        assert done.code == 0, done.err
        assert metrics(tmp_path / "whole")[-1]["epoch"] > 2
        reference["whole"] = digests(tmp_path / "whole")
    return reference["whole"]


PIXELS: dict[str, Any] = {"train.pretrain_steps": 0, "loss.perceptual.weight": 0, "checkpoint.every": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "micro_batch", "workers"), [(1, 1, 3), (2, 1, 2), (2, 2, 0), (4, 1, 1)], ids=lambda value: str(value)
)
def test_ranks_micro_batches_and_workers_do_not_matter(
    train: Train, expected: list[str], tmp_path: Path, ranks: int, micro_batch: int, workers: int
) -> None:
    changes = PIXELS | {"train.steps": STEPS, "data.micro_batch": micro_batch, "data.workers": workers}
    done = train(tmp_path / "run", ranks=ranks, changes=changes)
    assert done.code == 0, done.err
    k = 4 // (ranks * micro_batch)
    assert f"global batch of 4 = {micro_batch} x {k} micro-batches x {ranks} ranks" in done.err
    assert digests(tmp_path / "run") == expected


@pytest.mark.slow
def test_a_run_resumes_with_another_number_of_ranks(train: Train, expected: list[str], tmp_path: Path) -> None:
    for ranks, steps, workers in ((2, 3, 0), (1, 7, 1), (4, 9, 0), (1, STEPS, 0)):
        changes = PIXELS | {"train.steps": steps, "data.workers": workers}
        done = train(tmp_path / "run", ranks=ranks, changes=changes)
        assert done.code == 0, done.err
        assert f"{ranks} rank" in done.err
    assert digests(tmp_path / "run") == expected


def test_other_data_is_refused_unless_allowed(shards: Path, tmp_path: Path) -> None:
    def start(**changes: Any) -> Ended:
        base = PIXELS | {"run.dir": tmp_path / "run", "data.train": shards, "train.steps": 2}
        (done,) = on_ranks(train_and_die, options(base | changes), None)
        assert "Traceback" not in done.err
        return done

    (tmp_path / "images").mkdir()
    Image.fromarray(photo(96, 96, 7)).save(tmp_path / "images/a.png")
    pack(tmp_path / "images", tmp_path / "other", scale=4)
    assert start(**{"train.steps": 1}).code == 0
    before = (tmp_path / "run/metrics.jsonl").read_text()
    for key, value in {"data.train": tmp_path / "other", "run.seed": 3, "data.patch_size": 40}.items():
        done = start(**{key: value})
        assert done.code == 2, done.err
        assert f"resume all the same by --run.allow_changes={key}" in done.err.splitlines()[-1]
        assert (tmp_path / "run/metrics.jsonl").read_text() == before
    assert start(**{"run.seed": 3, "run.allow_changes": "run.seed"}).code == 0
    assert len(metrics(tmp_path / "run")) == 2
    state = json.loads((tmp_path / "run/checkpoints/step-000002/state.json").read_text())
    assert state["origin"]["configuration"]["run"]["seed"] == 3


@pytest.mark.slow
def test_two_ranks_that_resume_log_the_same_numbers(shards: Path, tmp_path: Path) -> None:
    """Also those of the discriminator's last update, which the first steps take from the checkpoint."""

    def steps(name: str, number: int) -> list[dict[str, Any]]:
        changes = {"run.dir": tmp_path / name, "data.train": shards, "train.steps": number, "checkpoint.every": 100}
        done = on_ranks(train_and_die, options(changes | {"loss.perceptual.weight": 0}), None, ranks=2)
        assert [rank.code for rank in done] == [0, 0], done
        return [
            {key: value for key, value in line.items() if not key.startswith(("perf/", "time", "hours"))}
            for line in metrics(tmp_path / name)
        ]

    whole = steps("whole", 15)
    for first in (10, 12, 14):
        steps(str(first), first)
        assert steps(str(first), 15) == whole
