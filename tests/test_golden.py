"""The numbers stay what they are: every adversarial loss leads to the weights of the golden file, at n = 1 and n = 3.

`tests/golden/make.py` says how the file is remade where a change of the numbers is meant.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from tests.conftest import run
from tests.golden.make import CASES, GOLDEN, summary

# Absolute below 1 and relative above. Measured with kernels for other processors: at most 1e-13 at the end, and 5e-12
# where a gradient is zero but for rounding, which Adam enlarges (the last bias of D in the relativistic loss).
TOLERANCE = 1e-9


@pytest.fixture(scope="module")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What this checkout's code makes of the golden runs: all of them in one process."""
    out = tmp_path_factory.mktemp("golden") / "weights.safetensors"
    done = run(sys.executable, "-m", "tests.golden.make", out, CUDA_VISIBLE_DEVICES="")
    assert done.code == 0, done.err
    return out


def differing(found: dict[str, Tensor], golden: dict[str, Tensor]) -> dict[str, float]:
    """By name, tensors that are not the golden ones, and by how much."""
    assert found.keys() == golden.keys()
    distances = {
        name: ((found[name] - value).abs() / value.abs().clamp(min=1.0)).max().item() for name, value in golden.items()
    }
    return {name: distance for name, distance in distances.items() if not distance < TOLERANCE}


def facts(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = file.metadata()
    return metadata


def test_the_golden_runs_read_the_same_bytes(retrained: Path) -> None:
    """The first thing to look at when all cases fail: the packer's bytes have changed, not the training."""
    assert facts(retrained)["shards"] == facts(GOLDEN)["shards"]


@pytest.mark.parametrize("case", CASES)
def test_seven_steps_lead_to_the_golden_weights(retrained: Path, case: str) -> None:
    golden = {name: value for name, value in load_file(GOLDEN).items() if name.startswith(f"{case}/")}
    found = {name: value for name, value in load_file(retrained).items() if name.startswith(f"{case}/")}
    networks = {name.removeprefix(f"{case}/").partition(".")[0] for name in golden}
    assert networks == {"g", "d", "ema"}
    assert differing(found, golden) == {}


def test_no_two_golden_cases_are_alike() -> None:
    """Each loss and each n leads elsewhere: a run that ignored either would be noticed."""
    golden = load_file(GOLDEN)
    generators = {case: golden[f"{case}/g.upsample.0.weight"] for case in CASES}
    for first in CASES:
        for second in CASES:
            if first < second:
                distance = (generators[first] - generators[second]).abs().max() / generators[first].abs().max()
                assert distance > 1e-4, (first, second)


@pytest.mark.parametrize("size", [5, 128, 1024 * 288], ids=["small", "fold", "large"])
def test_a_millionth_in_one_weight_is_noticed(size: int) -> None:
    """Of a tensor kept whole, and of the largest kept as sums."""
    weights = torch.linspace(-0.1, 0.1, size, dtype=torch.float64)
    changed = weights.clone()
    changed[size // 3] += 1e-6
    assert differing({"w": summary(weights)}, {"w": summary(weights.clone())}) == {}
    assert differing({"w": summary(changed)}, {"w": summary(weights)}).keys() == {"w"}


def test_a_millionth_in_any_golden_tensor_is_noticed() -> None:
    golden = load_file(GOLDEN)
    for name, value in golden.items():
        changed = value.clone()
        changed[len(changed) // 2] += 1e-6
        assert differing(golden | {name: changed}, golden).keys() == {name}, name
