"""Damaged weights files, ours and other trainers': one line, before anything large is allocated."""

from __future__ import annotations

import json
import random
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from srgan_dist.checkpointing.tensors import read_header, read_safetensors
from srgan_dist.checkpointing.weights import initialise, save_weights
from srgan_dist.config.models import (
    CompactConfig,
    GeneratorConfig,
    MSRResNetConfig,
    RRDBConfig,
    SPANConfig,
    SpandrelConfig,
    SRResNetConfig,
)
from srgan_dist.inference.generator import SRGenerator
from srgan_dist.models.build import build_generator, generator_metadata
from srgan_dist.models.reparameterised import weights_to_save, weights_to_train
from tests.fuzz.harness import fuzz, mutate, mutate_json, report
from tests.fuzz.tensors import mutate_tensors, write_mutated

CONFIGS: tuple[GeneratorConfig, ...] = (
    SRResNetConfig(channels=4, blocks=1),
    RRDBConfig(channels=4, blocks=1, growth=2),
    MSRResNetConfig(channels=4, blocks=1),
    CompactConfig(channels=4, convs=2),
    SPANConfig(channels=4),
    SpandrelConfig(architecture="RealPLKSR", parameters={"dim": 8, "n_blocks": 1}),
)


def damaged_safetensors(source: Path, rng: random.Random, folder: Path) -> None:
    number = rng.randrange(len(CONFIGS))
    original, path = source / f"{number}.safetensors", folder / "weights.safetensors"
    if rng.random() < 0.5:
        path.write_bytes(mutate(original.read_bytes(), rng))
    else:
        _, metadata = read_header(original)
        weights = read_safetensors(original)
        save_weights(path, weights, metadata)
        if rng.random() < 0.5:
            write_mutated(path, weights, metadata, rng)
        else:
            changed = mutate_json(json.loads(metadata["generator"]), rng)
            save_weights(path, weights, metadata | {"generator": json.dumps(changed)})
    use(path, CONFIGS[number])


def damaged_pth(source: Path, rng: random.Random, folder: Path) -> None:
    number = rng.randrange(len(CONFIGS))
    path = folder / "weights.pth"
    original = source / f"{number}{rng.choice(('', '.legacy'))}.pth"
    if rng.random() < 0.5:
        path.write_bytes(mutate(original.read_bytes(), rng))
    else:
        torch.save(mutate_tensors(torch.load(original), rng), path)
    use(path, CONFIGS[number])


def use(path: Path, config: GeneratorConfig) -> None:
    """Upscale by a file, and start a run from it; whatever the first says, the second is tried."""
    try:
        if path.suffix == ".safetensors":
            SRGenerator.from_pretrained(path, device="cpu").upscale(Image.new("RGB", (4, 4)))
    finally:
        initialise(build_generator(config, scale=4), path, as_trained=weights_to_train)


def write_originals(folder: Path) -> None:
    for number, config in enumerate(CONFIGS):
        weights = weights_to_save(build_generator(config, scale=4))
        save_weights(folder / f"{number}.safetensors", weights, generator_metadata(config, scale=4))
        torch.save({"params_ema": weights}, folder / f"{number}.pth")
        torch.save({"params": weights}, folder / f"{number}.legacy.pth", _use_new_zipfile_serialization=False)


@pytest.mark.slow
@pytest.mark.parametrize("case", [damaged_safetensors, damaged_pth])
def test_damaged_weights_end_in_one_line(tmp_path: Path, case: object) -> None:
    write_originals(tmp_path)
    assert callable(case)
    findings = fuzz(partial(case, tmp_path), cases=500, memory=2**28)
    assert not findings, report(findings)
