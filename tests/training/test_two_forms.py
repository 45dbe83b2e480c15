"""Generators that are trained in another form than their files hold: checkpoints have the one, weights the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from srgan_dist import SRGenerator
from srgan_dist.checkpointing.weights import load_weights
from tests.conftest import Finished, cli, launch, options

SIZES = {"compact": {"generator.convs": 3}, "span": {}}
UNKNOWN = tuple(f"--generator.{key}=" for key in ("blocks", "norm", "skip", "upsampler", "end_kernel"))
each_network = pytest.mark.parametrize("name", SIZES)


def train(shards: Path, folder: Path, name: str, given: dict[str, Any], *, ranks: int = 1) -> Finished:
    base = {"run.dir": folder, "data.train": shards, "loss.perceptual.weight": 0, "generator.name": name}
    arguments = [part for part in options(base | SIZES[name] | given) if not part.startswith(UNKNOWN)]
    done = cli("train", *arguments) if ranks == 1 else launch(ranks, "train.py", *arguments)
    assert done.code == 0, done.err
    return done


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "weights/generator.safetensors")


@pytest.mark.slow
@each_network
def test_a_run_resumes_from_the_trained_form_bit_for_bit(name: str, shards: Path, tmp_path: Path) -> None:
    train(shards, tmp_path / "whole", name, {"train.steps": 4, "checkpoint.every": 2})
    train(shards, tmp_path / "parts", name, {"train.steps": 2, "checkpoint.every": 2})
    train(shards, tmp_path / "parts", name, {"train.steps": 4, "checkpoint.every": 2})
    for file in ("checkpoints/step-000004/generator", "checkpoints/step-000004/ema", "weights/generator"):
        one, other = (load_file(tmp_path / run / f"{file}.safetensors") for run in ("whole", "parts"))
        assert one.keys() == other.keys()
        assert all(torch.equal(value, other[key]) for key, value in one.items()), file
    network = SRGenerator.from_pretrained(tmp_path / "whole/weights/generator.safetensors", device="cpu").network
    assert network.state_dict().keys() == weights(tmp_path / "whole").keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["span"])
def test_a_run_begins_with_the_saved_form_of_another(name: str, shards: Path, tmp_path: Path) -> None:
    train(shards, tmp_path / "first", name, {"train.steps": 2})
    still = {"optimizer.pretrain.learning_rate": 1e-30, "train.ema_decay": 0, "train.pretrain_steps": 1}
    file = tmp_path / "first/weights/generator.safetensors"
    train(shards, tmp_path / "second", name, still | {"run.init_from": file, "train.steps": 1})
    one, other = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, rtol=0, atol=3e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["span"])
def test_two_ranks_learn_what_one_does(name: str, shards: Path, tmp_path: Path) -> None:
    changes = {"train.steps": 3, "train.pretrain_steps": 3, "data.micro_batch": 2}
    for ranks in (1, 2):
        train(shards, tmp_path / str(ranks), name, changes, ranks=ranks)
    one, two = (load_weights(tmp_path / f"{ranks}/weights/generator.safetensors")[0] for ranks in (1, 2))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=0, atol=2e-4)
