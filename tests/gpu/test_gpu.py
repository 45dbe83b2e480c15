"""Tests that need a GPU; without one, all are skipped."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from srgan_dist.config.load import load_config
from srgan_dist.training.memory_estimate import Recompute, predict_bytes
from srgan_dist.training.trainable_network import LossScale
from tests.conftest import ROOT, Finished, Train, cli, metrics, options, run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

LOSSES, NORMS = ("d/loss", "g/total"), ("grad_norm/g", "grad_norm/d")


def finite(folder: Path) -> list[dict[str, Any]]:
    """The run's metrics; losses are numbers, and so are gradients unless fp16's loss scale is still too large."""
    records = metrics(folder)
    assert all(math.isfinite(record[name]) for record in records for name in LOSSES if name in record)
    for record in records:
        for name in NORMS:
            overflowed = record.get(f"loss_scale/{name[-1]}", LossScale.START) < LossScale.START
            assert overflowed or math.isfinite(record.get(name, 0.0)), f"step {record['step']}: {name}"
    assert any("d/loss" in record for record in records)
    return records


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("norm", ["batch", "spectral"])
def test_every_precision_trains(train: Train, tmp_path: Path, precision: str, norm: str) -> None:
    changes = {"train.precision": precision, "train.steps": 12, "discriminator.norm": norm, "data.micro_batch": 2}
    done = train(tmp_path / "run", changes=changes)
    assert done.code == 0, done.err
    assert torch.cuda.get_device_name() in done.err
    records = finite(tmp_path / "run")
    scales = {record.get("loss_scale/g") for record in records} | {record.get("loss_scale/d") for record in records}
    assert (scales != {None}) == (precision == "fp16")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_is_near_fp32(train: Train, tmp_path: Path, precision: str) -> None:
    for name in ("fp32", precision):
        done = train(tmp_path / name, changes={"train.precision": name, "train.steps": 3, "train.pretrain_steps": 1})
        assert done.code == 0, done.err
    one, other = (metrics(tmp_path / name)[-1] for name in ("fp32", precision))
    assert other["g/total"] == pytest.approx(one["g/total"], rel=0.05)
    assert other["data/digest"] == one["data/digest"]


def test_resume_restores_the_loss_scale(train: Train, tmp_path: Path) -> None:
    changes = {"train.precision": "fp16", "train.steps": 6}
    assert train(tmp_path / "run", changes=changes | {"train.steps": 3}).code == 0
    done = train(tmp_path / "run", changes=changes)
    assert done.code == 0, done.err
    assert [record["step"] for record in finite(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]


def train_within(limit: int, changes: dict[str, Any], script: Path) -> Finished:
    """Train where PyTorch may allocate no more than so many bytes of the GPU."""
    script.write_text(
        "import sys, torch\n"
        "from srgan_dist.cli import train\n"
        "total = torch.cuda.get_device_properties(0).total_memory\n"
        f"torch.cuda.set_per_process_memory_fraction({limit} / total)\n"
        "sys.exit(train(sys.argv[1:], prog='test'))\n"
    )
    return run(sys.executable, script, *options(changes), PYTHONPATH=str(ROOT))


def test_a_full_gpu_halves_the_micro_batch(large_shards: Path, tmp_path: Path) -> None:
    changes = {
        "run.dir": tmp_path / "run",
        "data.train": large_shards,
        "data.batch_size": 64,
        "data.patch_size": 96,
        "data.micro_batch": "auto",
        "generator.channels": 64,
        "generator.blocks": 8,
        "train.pretrain_steps": 0,
    }
    done = train_within(400 * 2**20, changes, tmp_path / "little_memory.py")
    assert done.code == 0, done.err
    assert "out of memory" in done.err
    assert "continues with a global batch of 64" in done.err
    finite(tmp_path / "run")


def test_compiled_networks_give_the_same_losses(train: Train, tmp_path: Path) -> None:
    for name, compiled in (("eager", False), ("compiled", True)):
        changes = {"train.compile": compiled, "train.steps": 3, "train.pretrain_steps": 1, "data.micro_batch": 2}
        done = train(tmp_path / name, changes=changes)
        assert done.code == 0, done.err
    one, other = (metrics(tmp_path / name)[-1] for name in ("eager", "compiled"))
    assert other["g/total"] == pytest.approx(one["g/total"], rel=0.01)
    weights = [load_file(tmp_path / name / "weights/generator.safetensors") for name in ("eager", "compiled")]
    assert weights[0].keys() == weights[1].keys()


LARGE = {"data.patch_size": 128, "data.batch_size": 16, "loss.perceptual.weights": "random", "train.pretrain_steps": 0}
CONTEXT = 2**29  # what CUDA takes besides PyTorch's allocations


@pytest.mark.parametrize("recompute", ["none", "both"])
def test_a_plan_is_enough_and_not_twice_too_much(large_shards: Path, tmp_path: Path, recompute: Recompute) -> None:
    # What an unlimited run takes says little: there cuDNN tries convolutions with gigabytes of workspace.
    changes = LARGE | {"data.train": large_shards, "train.recompute": recompute, "data.micro_batch": 16}
    changes |= {"generator.channels": 64, "generator.blocks": 16, "discriminator.channels": 64, "train.steps": 3}
    changes |= {"loss.perceptual.weight": 1.0}
    config = load_config(None, options(changes))
    predicted = predict_bytes(config, micro_batch=16, per_rank_batch=16, recompute=recompute, device="cuda")
    done = train_within(predicted - CONTEXT, changes | {"run.dir": tmp_path / "enough"}, tmp_path / "enough.py")
    assert done.code == 0, done.err
    finite(tmp_path / "enough")
    done = train_within(predicted // 2 - CONTEXT, changes | {"run.dir": tmp_path / "half"}, tmp_path / "half.py")
    assert done.code == 1
    assert "out of memory with 16 patches at a time" in done.err


def test_faster_than_basicsrs_step(tmp_path: Path) -> None:
    file = tmp_path / "step.json"
    done = cli("bench", "step", "--rounds=3", "--only=as configured", "--only=bf16", "--json", file, timeout=600)
    assert done.code == 0, done.err
    content = json.loads(file.read_text())
    rows = {row["way"]: row for row in content["rows"]}
    assert rows["as configured"]["speed_up"]["median"] > 1
    assert rows["bf16"]["speed_up"]["median"] > rows["as configured"]["speed_up"]["median"]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("norm", ["batch", "spectral"])
def test_two_ranks_by_nccl(shards: Path, tmp_path: Path, norm: str) -> None:
    changes = {
        "run.dir": tmp_path / "two",
        "data.train": shards,
        "generator.norm": "batch" if norm == "batch" else "none",
        "discriminator.norm": norm,
        "loss.adversarial.kind": "relativistic",
        "data.micro_batch": 1,
    }
    command: list[str | Path] = [Path(sys.executable).with_name("accelerate"), "launch", "--main_process_port", "0"]
    command += ["--config_file", ROOT / "launch/accelerate/one_node.yaml", "--num_processes", "2"]
    done: Finished = run(*command, "train.py", *options(changes))
    assert done.code == 0, done.err
    assert "2 ranks" in done.err
    two = finite(tmp_path / "two")
    if norm == "spectral":  # BatchNorm's statistics are those of all ranks' micro-batches
        one = run(
            sys.executable, "train.py", *options(changes | {"run.dir": tmp_path / "one"}), CUDA_VISIBLE_DEVICES="0"
        )
        assert one.code == 0, one.err
        weights = [load_file(tmp_path / name / "weights/generator.safetensors") for name in ("one", "two")]
        for key, value in weights[0].items():
            torch.testing.assert_close(value, weights[1][key], atol=1e-4, rtol=1e-3)
        assert [record["data/digest"] for record in two] == [r["data/digest"] for r in metrics(tmp_path / "one")]
