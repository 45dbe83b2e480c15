"""When a rank runs out of memory, all use smaller micro-batches, and the result is the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from srgan_dist.data.loading.loader import Patches
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.training.adversarial import split_micro_batches
from srgan_dist.training.micro_batch import MicroBatch
from tests.conftest import ROOT, Finished, launch, run
from tests.training.test_equivalence import BASE, distance

PLAIN, LITTLE = ROOT / "tests/ranks/equivalence.py", ROOT / "tests/ranks/out_of_memory.py"


def start(ranks: int, script: Path, out: Path, shards: Path, *fault: object, **changes: Any) -> Finished:
    config = BASE | {"data.train": shards} | {key.replace("__", "."): value for key, value in changes.items()}
    arguments = [*map(str, fault), "float64", str(out), *(f"--{key}={value}" for key, value in config.items())]
    extra: dict[str, Any] = {"PYTHONPATH": str(ROOT)}
    return (
        run(sys.executable, script, *arguments, **extra) if ranks == 1 else launch(ranks, script, *arguments, **extra)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "kind", "start_at", "limit", "micro_batches"),
    [(1, "vanilla", 3, 2, 4), (2, "vanilla", 3, 2, 2), (2, "relativistic", 4, 1, 4)],
)
def test_the_global_batch_survives_an_out_of_memory(
    shards: Path, tmp_path: Path, ranks: int, kind: str, start_at: int, limit: int, micro_batches: int
) -> None:
    changes = {"loss__adversarial__kind": kind, "data__micro_batch": "auto"}
    done = start(1, PLAIN, tmp_path / "plain", shards, **changes)
    assert done.code == 0, done.err
    fault = (ranks - 1, start_at, limit)
    done = start(ranks, LITTLE, tmp_path / "little", shards, *fault, **changes)
    assert done.code == 0, done.err
    one = load_file(tmp_path / "plain/rank0.safetensors")
    for rank in range(ranks):
        facts = json.loads((tmp_path / f"little/rank{rank}.json").read_text())
        assert facts == {"world_size": ranks, "micro_batches": micro_batches}
        assert distance(load_file(tmp_path / f"little/rank{rank}.safetensors"), one) < 1e-10


def test_a_configured_size_is_not_changed(shards: Path, tmp_path: Path) -> None:
    done = start(1, LITTLE, tmp_path / "little", shards, 0, 2, 2, data__micro_batch=8)
    assert done.code == 1
    assert "out of memory with 8 patches at a time: set data.micro_batch below 8, or to auto" in done.err


def test_a_run_without_memory_for_one_patch_fails_with_that_reason(shards: Path, tmp_path: Path) -> None:
    done = start(1, LITTLE, tmp_path / "little", shards, 0, 2, 0, data__micro_batch="auto")
    assert done.code == 1
    assert "out of memory with one patch at a time" in done.err


@pytest.mark.parametrize(("size", "sizes"), [(8, [4, 2, 1]), (10, [5, 1]), (12, [6, 3, 1]), (30, [15, 5, 1]), (7, [1])])
def test_smaller_micro_batches_split_the_present_ones_evenly(size: int, sizes: list[int]) -> None:
    """An update that is broken off twice continues with parts of one size: each has the same weight in the mean."""
    runtime = Runtime(threads=1, shares_memory_errors=True)
    micro_batch = MicroBatch(size, per_rank_batch=2 * size, runtime=runtime)
    images = torch.arange(2 * size, dtype=torch.float32).view(-1, 1, 1, 1)
    batch = [Patches(part, part, part.flatten().long()) for part in images.split(size)]
    found = []

    def update(_: None) -> None:
        if micro_batch.size == 1:
            return
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    shrink = micro_batch._shrink

    def noted(problem: str) -> None:
        nonlocal batch
        shrink(problem)
        batch = split_micro_batches(batch, micro_batch.size)
        found.append(micro_batch.size)
        assert {len(part.hr) for part in batch} == {micro_batch.size}

    micro_batch._shrink = noted  # type: ignore[method-assign]
    micro_batch.within_memory(update, None)
    assert found == sizes
    assert torch.equal(torch.cat([part.hr for part in batch]), images)
