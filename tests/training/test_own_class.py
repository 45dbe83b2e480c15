"""A generator of the user's own class, `generator.name=module:Class`: checked before training, and trained."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from srgan_dist import SRGenerator
from srgan_dist.config.load import load_config
from srgan_dist.config.root import Config
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.errors import UserError
from srgan_dist.planning.doctor import examine
from srgan_dist.planning.plan import make_plan
from srgan_dist.training.computable import check_computable, smallest_micro_batch
from tests.conftest import ROOT, cli, launch, metrics, options

NETS = """
from torch import nn

class Net(nn.Module):
    def __init__(self, scale=4, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, width, 1), nn.PReLU(), nn.Conv2d(width, 3 * scale**2, 1))
        self.shuffle = nn.PixelShuffle(scale)
        self.unused = nn.Linear(2, 2)
    def forward(self, lr):
        return self.shuffle(self.layers(lr))

class Same(Net):
    def forward(self, lr):
        return lr + self.layers(lr)[:, :3]

class Two(Net):
    def forward(self, lr):
        return lr, self.layers(lr)

class Broken(Net):
    def forward(self, lr):
        return self.layer(lr)

class ByValue(Net):
    def forward(self, lr):
        return self.shuffle(self.layers(lr / 255 if lr.max() > 2 else lr))

class BatchNorm(Net):
    def __init__(self, scale=4):
        super().__init__(scale)
        self.norm = nn.BatchNorm2d(3)
    def forward(self, lr):
        return super().forward(lr) + self.norm(lr.mean((2, 3), keepdim=True))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "trained_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("trained_nets", None)


def made(name: str, **changes: Any) -> Config:
    base = {"generator.name": f"trained_nets:{name}", "loss.perceptual.weight": 0, "discriminator.norm": "none"}
    base |= {"data.patch_size": 32, "data.batch_size": 4, "discriminator.channels": 4}
    return load_config(None, [f"--{key}={value}" for key, value in (base | changes).items()])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "Same",
            r"makes a tensor \[2, 3, 8, 8\] of \[2, 3, 8, 8\], and data.scale needs \[2, 3, 32, 32\]: set what enl",
        ),
        ("Two", r"makes 2 tensors of \[2, 3, 8, 8\]"),
        (
            "Broken",
            r"Broken cannot compute patches \(AttributeError: .* has no attribute 'layer', trained_nets.py:23\)",
        ),
        ("BatchNorm", "cannot compute that .*; allowed are .*data.micro_batch from 2"),
    ],
)
def test_what_it_cannot_compute_is_told_in_one_line_before_the_start(folder: Path, name: str, told: str) -> None:
    assert folder
    size = 1 if name == "BatchNorm" else 2
    with pytest.raises(UserError, match=told) as caught:
        check_computable(made(name), micro_batch=size, per_rank_batch=4, batchnorm_ranks=1)
    assert "\n" not in str(caught.value)


def test_its_memory_is_predicted(folder: Path) -> None:
    assert folder
    alone = {"train.steps": 1, "train.pretrain_steps": 1}  # so that no discriminator needs the most
    wide, narrow = (
        make_plan(
            made("Net", **alone, **{"generator.parameters": f"{{width: {width}}}"}), memory=2**40, ranks=1, device="cpu"
        ).choices[0]
        for width in (512, 8)
    )
    # Four patches of 8 x 8 times 504 channels, before and after PReLU, are kept for the backward pass.
    assert wide.bytes - narrow.bytes > 2 * 4 * 4 * 64 * 504
    settings = [
        choice.recompute for choice in make_plan(made("Net", **alone), memory=2**40, ranks=1, device="cpu").choices
    ]
    assert sorted(settings) == ["none", "perceptual"]


def test_one_that_looks_at_values_is_trained_but_not_predicted(folder: Path) -> None:
    config = made("ByValue", **{"run.dir": folder / "run", "data.train": folder, "tracker.name": "none"})
    check_computable(config, micro_batch=4, per_rank_batch=4, batchnorm_ranks=1)
    assert smallest_micro_batch(config, per_rank_batch=4, batchnorm_ranks=1) == 1
    told = "memory of generator.name=trained_nets:ByValue cannot be predicted.*: set data.micro_batch to a number"
    with pytest.raises(UserError, match=told):
        make_plan(config, memory=2**40, ranks=1, device="cpu")
    runtime = Runtime(threads=1)
    try:
        (memory,) = [answer for answer in examine(config, runtime) if answer.name == "memory"]
    finally:
        runtime.close()
    assert (memory.verdict, "cannot be predicted" in memory.text) == ("warn", True)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_it_trains_from_the_working_folder_resumes_and_is_used(
    ranks: int, folder: Path, shards: Path, validation: Path
) -> None:
    base = {"data.train": shards, "data.validation": validation, "loss.perceptual.weight": 0, "data.micro_batch": 2}
    base |= {"generator.name": "trained_nets:Net", "generator.parameters": "{width: 6}", "checkpoint.every": 2}
    absent = ("channels", "blocks", "norm", "skip", "upsampler", "end_kernel")

    def train(run: str, steps: int) -> None:
        given = options(base | {"run.dir": folder / run, "train.steps": steps, "train.pretrain_steps": 1})
        given = [one for one in given if not one.startswith(tuple(f"--generator.{key}=" for key in absent))]
        start = cli("train", *given, cwd=folder) if ranks == 1 else launch(2, ROOT / "train.py", *given, cwd=folder)
        assert start.code == 0, start.err
        assert ("2 parameters of the generator never affect its output" in start.err) == (ranks == 2)

    train("whole", 4)
    train("parts", 2)
    train("parts", 4)
    one, two = (load_file(folder / run / "weights/generator.safetensors") for run in ("whole", "parts"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert "g/adversarial" in metrics(folder / "whole")[-1]
    generator = SRGenerator.from_pretrained(
        folder / "whole/weights/generator.safetensors", allow_class="trained_nets:Net", device="cpu"
    )
    assert generator.network.get_parameter("layers.0.weight").shape == (6, 3, 1, 1)
