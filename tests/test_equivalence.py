"""The update is exactly the big batch: any micro-batch, any number of ranks, the same weights."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.conftest import ROOT, Finished, launch, run

SCRIPT = ROOT / "tests/ranks/equivalence.py"


@pytest.fixture(scope="module")
def weights(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Final weights of each rank, by (ranks, micro-batch, n, kind, norm, clip); each is trained once."""

    @cache
    def train(
        ranks: int, micro_batch: int, n: int = 1, kind: str = "vanilla", norm: str = "none", clip: float = 0.0
    ) -> list[dict[str, Tensor]]:
        out = tmp_path_factory.mktemp("equivalence")
        arguments = [str(value) for value in (shards, out, micro_batch, n, kind, norm, clip)]
        done: Finished = run(sys.executable, SCRIPT, *arguments) if ranks == 1 else launch(ranks, SCRIPT, *arguments)
        assert done.code == 0, done.err
        for rank in range(ranks):
            facts = json.loads((out / f"rank{rank}.json").read_text())
            assert facts == {"world_size": ranks, "micro_batches": 8 // (ranks * micro_batch)}
        return [load_file(out / f"rank{rank}.safetensors") for rank in range(ranks)]

    return train


def distance(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Relative L2 distance of all weights and buffers."""
    assert first.keys() == second.keys()
    a = torch.cat([value.flatten() for value in first.values()])
    b = torch.cat([value.flatten() for value in second.values()])
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("micro_batch", [4, 2])
@pytest.mark.parametrize("n", [1, 3])
def test_micro_batches_are_one_batch(weights: Any, micro_batch: int, n: int) -> None:
    assert distance(weights(1, micro_batch, n)[0], weights(1, 8, n)[0]) < 1e-10


@pytest.mark.parametrize("kind", ["lsgan", "hinge"])
def test_with_every_separable_loss(weights: Any, kind: str) -> None:
    assert distance(weights(1, 2, 2, kind, "none", 0.05)[0], weights(1, 8, 2, kind, "none", 0.05)[0]) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [4, 2])
def test_two_ranks_are_one(weights: Any, micro_batch: int) -> None:
    one = weights(1, 8, 3, "vanilla", "group", 0.05)[0]
    first, second = weights(2, micro_batch, 3, "vanilla", "group", 0.05)
    assert distance(first, one) < 1e-10
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_comparison_can_fail(weights: Any) -> None:
    assert distance(weights(1, 8, 1)[0], weights(1, 8, 3)[0]) > 1e-4
