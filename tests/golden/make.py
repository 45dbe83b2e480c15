"""Trains the golden runs and writes their weights: float64, seven steps, a run for each adversarial loss and n.

    python -m tests.golden.make [OUT]

from the root of the repository (about half a minute). OUT is tests/golden/weights.safetensors unless it is given, so
that without it the golden file itself is replaced: only where a change of the numbers is meant, and said in the commit.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from srgan_dist.data.packing.pack import pack
from srgan_dist.data.shards.shard_set import open_shards
from tests.conftest import TINY, write_images
from tests.ranks import equivalence

GOLDEN = Path(__file__).with_name("weights.safetensors")
FOLD = 128

BASE = TINY | {
    "data.patch_size": 32,
    "data.micro_batch": 2,
    "generator.channels": 4,
    "discriminator.channels": 1,
    "loss.pixel.kind": "mse",
    "loss.pixel.weight": 0.1,
    # Its random weights are this project's own; those of another architecture would change with its package.
    "loss.perceptual.network": "vgg19",
    "loss.perceptual.layer": "conv2_2",
    "loss.perceptual.weights": "random",
    "loss.perceptual.weight": 0.1,
    "loss.adversarial.weight": 0.1,
    "loss.adversarial.label_smoothing": 0.1,
    "optimizer.generator.warmup_steps": 3,
    "optimizer.generator.learning_rate": 1e-3,
    "optimizer.discriminator.learning_rate": 2e-3,
    "optimizer.weight_decay": 0.01,
    "train.steps": 7,
    "train.pretrain_steps": 1,
    "train.ema_decay": 0.9,
    "checkpoint.every": 100,
}
LOSSES: dict[str, dict[str, Any]] = {
    "vanilla": {"loss.adversarial.kind": "vanilla"},
    "relativistic": {"loss.adversarial.kind": "relativistic"},
    "lsgan": {"loss.adversarial.kind": "lsgan"},
    "hinge": {"loss.adversarial.kind": "hinge"},
}
RATIOS: dict[int, dict[str, Any]] = {
    1: {"train.g_per_d": 1},
    # The other discriminator and the generator's other norm, so that both are pinned with every loss.
    3: {"train.g_per_d": 3, "discriminator.name": "unet", "discriminator.norm": None, "generator.norm": "batch"},
}
STABILISERS = {
    "loss.adversarial.ramp_steps": 4,
    "loss.adversarial.r1_weight": 2.0,
    "loss.adversarial.r1_every": 2,
    "loss.adversarial.instance_noise": 0.1,
    "loss.adversarial.instance_noise_steps": 5,
    "train.d_warmup_steps": 2,
    "train.clip_grad_norm": 0.05,
}
CASES = {f"{loss}-n{n}": BASE | LOSSES[loss] | RATIOS[n] for loss in LOSSES for n in RATIOS}
CASES["vanilla-n1-stabilised"] = CASES["vanilla-n1"] | STABILISERS


def summary(value: Tensor) -> Tensor:
    """A tensor as the golden file has it: whole where it is small, else folded.

    Args:
        value: Any shape.

    Returns:
        Float64, of one dimension: all n values, or `FOLD` sums of every `FOLD`-th value. Each value is in one sum
        with the factor 1, so that no change of one alone can hide.
    """
    flat = value.detach().to(torch.float64).flatten()
    if len(flat) <= FOLD:
        return flat
    return torch.nn.functional.pad(flat, (0, -len(flat) % FOLD)).reshape(-1, FOLD).sum(0)


def main(out: Path) -> None:
    """Train every case and write ``out``."""
    found: dict[str, Tensor] = {}
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        write_images(temporary / "images")
        pack(temporary / "images", temporary / "shards", scale=4, tile=96)
        digest = open_shards([temporary / "shards"]).digest
        for case, config in CASES.items():
            folder = temporary / case
            config = config | {"data.train": temporary / "shards"}
            arguments = [f"--{key}={value}" for key, value in config.items() if value is not None]
            equivalence.main("float64", str(folder), *arguments)
            weights = load_file(folder / "rank0.safetensors")
            found |= {f"{case}/{name}": summary(value) for name, value in weights.items()}
    facts = {"remake": "python -m tests.golden.make", "shards": digest, "torch": str(torch.__version__)}
    save_file(found, out, metadata=facts)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN)
