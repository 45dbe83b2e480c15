"""A sweep's file is W&B's; what cannot be a sweep here is refused before anything trains."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from srgan_dist.sweeps.sweep_file import overrides, read_sweep
from tests.conftest import ROOT, call

GOOD: dict[str, Any] = {
    "program": "train.py",
    "method": "bayes",
    "metric": {"name": "val/psnr_y", "goal": "maximize"},
    "parameters": {
        "optimizer.generator.learning_rate": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-3},
        "train.g_per_d": {"values": [1, 2]},
        "generator.blocks": {"min": 4, "max": 8},
        "run.seed": {"value": 3},
    },
    "command": ["${env}", "${interpreter}", "${program}", "--run.dir=runs/x", "--data.validation=v", "--data.train=t",
                "--train.steps=100", "--validate.every=30", "${args}"],
}  # fmt: skip


def written(tmp_path: Path, changes: dict[str, Any]) -> Path:
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({**GOOD, **changes}, sort_keys=False))
    return tmp_path / "sweep.yaml"


def test_what_a_file_says(tmp_path: Path) -> None:
    sweep = read_sweep(written(tmp_path, {"early_terminate": {"type": "hyperband", "max_iter": 27, "s": 2}}))
    assert sweep.folder == Path("runs/x")
    assert sweep.direction == "maximize"
    assert sweep.num_validations == 4
    assert sweep.early_termination
    assert (sweep.early_termination.min_iter, sweep.early_termination.eta) == (3, 3)
    assert sweep.constants == {"run.seed": 3}
    assert list(sweep.parameters) == ["optimizer.generator.learning_rate", "train.g_per_d", "generator.blocks"]
    assert sweep.command[:3] == ["/usr/bin/env", sys.executable, "train.py"]


def test_the_grid_is_every_combination(tmp_path: Path) -> None:
    parameters = {"train.g_per_d": {"values": [1, 2]}, "run.seed": {"min": 0, "max": 2}}
    grid = list(read_sweep(written(tmp_path, {"method": "grid", "parameters": parameters})).grid())
    assert len(grid) == 6
    assert grid[1] == {"train.g_per_d": 1, "run.seed": 1}


def test_options_are_written_as_wandb_writes_them() -> None:
    values = {"a": 1e-05, "b": True, "c": "cosine", "d": [96, 128]}
    assert overrides(values) == ["--a=1e-05", "--b=true", "--c=cosine", "--d=[96, 128]"]


@pytest.mark.parametrize("name", ["sweep", "study"])
def test_the_files_that_come_with_it_are_sound(name: str) -> None:
    sweep = read_sweep(ROOT / f"configs/{name}.yaml")
    assert sweep.metric == "val/perceptual"
    assert "train.g_per_d" in sweep.parameters


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methd": "bayes"}, "'methd' is no key of a sweep"),
        ({"method": "best"}, "method is 'best'; choose one of bayes, random, grid"),
        ({"metric": {"name": "val/psnr", "goal": "maximize"}}, "metric.name is 'val/psnr'; runs are"),
        ({"metric": {"name": "val/psnr_y"}}, "metric.goal is minimize, but of val/psnr_y the other direction"),
        ({"metric": None}, "metric must have a name"),
        ({"parameters": {}}, "parameters must have at least one configuration key"),
        ({"parameters": {"generator": {"blocks": {"values": [1]}}}}, "keys are dotted here, not nested"),
        ({"parameters": {"train.lr": {"values": [1]}}}, "parameters.train.lr is no configuration key"),
        ({"parameters": {"run.dir": {"values": ["a"]}}}, "is each trial's own"),
        ({"parameters": {"run.seed": {"value": 1}}}, "are all constant"),
        ({"parameters": {"run.seed": [1, 2]}}, "write {values: [...]}"),
        ({"parameters": {"run.seed": {"values": []}}}, "needs values: [...] with at least one value"),
        ({"parameters": {"run.seed": {"values": [1, 1]}}}, "has a value twice"),
        ({"parameters": {"run.seed": {"min": 3, "max": 3}}}, "has min 3, not below max 3"),
        ({"parameters": {"loss.pixel.weight": {"min": "1e-4", "max": 1}}}, "1.0e-4 is a number in YAML"),
        (
            {"parameters": {"loss.pixel.weight": {"distribution": "log_uniform_values", "min": 0, "max": 1}}},
            "has min 0, which has no logarithm",
        ),
        (
            {"parameters": {"loss.pixel.weight": {"distribution": "beta", "min": 0, "max": 1}}},
            "has distribution 'beta'; here there are",
        ),
        ({"parameters": {"run.seed": {"min": 1, "max": 9, "q": 0.5}}}, "has the step q 0.5, which must be above 0"),
        ({"parameters": {"loss.pixel.weight": {"min": 0.0, "max": float("inf")}}}, "must both be finite"),
        (
            {"parameters": {"loss.pixel.weight": {"distribution": "q_uniform", "min": 0.1, "max": 0.9}}},
            "has the step q 1, which must be above 0 and at most max - min",
        ),
        ({"method": "grid"}, "has endless values, which a grid cannot have"),
        ({"command": ["${env}", "python"]}, "must end with ${args}"),
        ({"command": ["${args_json}", "${args}"]}, "command has ${args_json}; here there are"),
        ({"early_terminate": {"type": "envelope"}}, "early_terminate must have type: hyperband"),
        ({"early_terminate": {"type": "hyperband"}}, "needs min_iter, or max_iter and s"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 0}}, "not a number of validations"),
        ({"run_cap": 0}, "run_cap is 0, not a number of trials"),
        ({"parameters": {"train.g_per_d": {"values": [0, 1]}}}, "its trials cannot be started: train.g_per_d: allowed"),
        (
            {"command": ["${program}", "--run.dir=r", "--data.train=t", "${args}"]},
            "metric.name is val/psnr_y, which needs data.validation",
        ),
        ({}, "say how many trials there are, by --trials N or run_cap"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_sweep_is_refused_in_one_line(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    done = call("sweep", written(tmp_path, changes))
    assert done.code == 2
    assert said in done.err, done.err
    assert len(done.err.splitlines()) == 1
    assert not Path("runs/x").exists()


def test_a_file_that_is_none(tmp_path: Path) -> None:
    assert call("sweep", tmp_path / "none.yaml").code == 2
    assert call("sweep", tmp_path).code == 2


def test_keys_of_earlier_versions_are_read(tmp_path: Path) -> None:
    content = {"method": "grid", "metric": {"name": "val/psnr_y", "goal": "maximize"}}
    content |= {"program": "train.py", "parameters": {"loss.perceptual.layer": {"values": ["conv5_4", "conv2_2"]}}}
    file = tmp_path / "sweep.yaml"
    file.write_text(
        yaml.safe_dump(content | {"command": ["${interpreter}", "${program}", "--data.validation=set", "${args}"]})
    )
    assert list(read_sweep(file).parameters) == ["loss.perceptual.layer"]
