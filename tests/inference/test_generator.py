"""Inference from a weights file: load it, upscale an image, save the result."""

from __future__ import annotations

import json
import math
import random
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from srgan_dist import SRGenerator
from srgan_dist.checkpointing.weights import initialise, save_weights
from srgan_dist.config.models import (
    CompactConfig,
    GeneratorConfig,
    MSRResNetConfig,
    RRDBConfig,
    SPANConfig,
    SRResNetConfig,
)
from srgan_dist.errors import UserError
from srgan_dist.models.build import build_generator, generator_metadata
from srgan_dist.models.reparameterised import weights_to_save
from tests.conftest import photo
from tests.fuzz.harness import fuzz, report


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        (SRResNetConfig(channels=8, blocks=2, norm="batch"), 4),
        (SRResNetConfig(channels=8, blocks=1, norm="group", skip="bilinear", end_kernel=5), 8),
        (RRDBConfig(channels=8, blocks=1, growth=4), 2),
        (MSRResNetConfig(channels=8, blocks=1), 3),
        (CompactConfig(channels=8, convs=3), 4),
        (SPANConfig(channels=8), 2),
    ],
)
def test_a_weights_file_is_enough_to_rebuild_the_generator(config: GeneratorConfig, scale: int, tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = build_generator(config, scale=scale).eval()
    path = tmp_path / "generator.safetensors"
    save_weights(path, weights_to_save(network), generator_metadata(config, scale=scale))
    generator = SRGenerator.from_pretrained(path)
    lr = torch.rand(1, 3, 20, 24)
    with torch.no_grad():
        torch.testing.assert_close(generator(lr), network(lr), atol=1e-5, rtol=1e-4)
    image = Image.fromarray(photo(20, 24))
    generator.upscale(image).save(tmp_path / "sr.png")
    with Image.open(tmp_path / "sr.png") as sr:
        assert sr.size == (24 * scale, 20 * scale)

    plain = build_generator(config, scale=scale, merged=True)
    plain.load_state_dict(load_file(path))


@pytest.mark.parametrize("scale", [1, 2])
def test_a_file_of_version_0_1_continues_images_as_that_version_did(scale: int, tmp_path: Path) -> None:
    config = RRDBConfig(channels=8, blocks=1, growth=4, padding="replicate")
    network, lr = build_generator(config, scale=scale).eval(), torch.rand(1, 3, 5, 7)
    metadata = generator_metadata(config, scale=scale)
    metadata["generator"] = json.dumps(config.model_dump(exclude={"padding"}))
    save_weights(tmp_path / "old.safetensors", network.state_dict(), metadata)
    save_weights(tmp_path / "theirs.safetensors", network.state_dict(), {})
    old, theirs = (SRGenerator.from_pretrained(tmp_path / f"{name}.safetensors") for name in ("old", "theirs"))
    with torch.no_grad():
        torch.testing.assert_close(old(lr), network(lr), atol=1e-6, rtol=0)
        assert (theirs(lr) - network(lr)).abs().max() > 1e-3


def test_tiles_are_the_whole() -> None:
    torch.manual_seed(3)
    config = SRResNetConfig(channels=8, blocks=1, norm="none", upsampler="pixelshuffledirect", end_kernel=3)
    generator = SRGenerator(build_generator(config, scale=4), scale=4, metadata={}).eval()
    image = Image.fromarray(photo(150, 90))
    whole, tiled = (np.asarray(generator.upscale(image, tile=tile)).astype(int) for tile in (256, 48))
    assert np.abs(whole - tiled).max() <= 1


def bomb(claims: dict[str, Any], scale: str, _: random.Random, folder: Path) -> None:
    """Load the weights of a small network that says it is another one."""
    config = SRResNetConfig(channels=8, blocks=1)
    path = folder / "generator.safetensors"
    metadata = {"generator": json.dumps(config.model_dump() | claims), "scale": scale}
    save_weights(path, build_generator(config, scale=4).state_dict(), metadata)
    SRGenerator.from_pretrained(path)


@pytest.mark.parametrize(
    ("claims", "scale", "told"),
    [
        ({"channels": 3000}, "4", r"head.0.weight is \[8, 3, 9, 9\], the network's is \[3000, 3, 9, 9\]"),
        ({"channels": 10**9}, "4", "generator.srresnet.channels: Input should be less than or equal to 4096"),
        ({"blocks": 1000}, "4", "a network of far more tensors"),
        ({"blocks": 1_000_000_000}, "4", "generator.srresnet.blocks: Input should be less than or equal to 1024"),
        ({"blocks": 12}, "4", "lacks 'body.1"),
        ({"name": "rrdb"}, "4", "generator.rrdb.norm: Extra inputs are not permitted"),
        ({}, "1000000000", "scale is 1000000000, allowed are 1, 2, 4 and 8"),
        ({}, "9" * 5000, "Exceeds the limit"),
    ],
    ids=["channels", "more channels", "blocks", "more blocks", "few blocks", "name", "scale", "digits"],
)
def test_a_file_that_claims_a_large_network_is_refused_before_that_is_built(
    claims: dict[str, Any], scale: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match=rf"^{tmp_path}/generator\.safetensors: weights and metadata do not fit \(.*{told}"
    ):
        bomb(claims, scale, random.Random(0), tmp_path)


@pytest.mark.slow
def test_such_a_file_takes_neither_memory_nor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUZZ_CASES", raising=False)
    for claims in ({"channels": 4096}, {"blocks": 1024}, {"blocks": 1_000_000_000}):
        findings = fuzz(partial(bomb, claims, "4"), cases=1, memory=2**26, seconds=20)
        assert not findings, report(findings)


DAMAGES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "int8": (lambda value: value.to(torch.int8), "head.0.weight is of torch.int8, and must be of torch.float32"),
    "NaN": (lambda value: value * math.nan, "head.0.weight is not finite"),
    "shape": (lambda value: value[:1].clone(), r"head.0.weight is \[1, 3, 9, 9\], the network's is \[8, 3, 9, 9\]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_that_are_no_numbers_of_the_network_are_refused(tmp_path: Path, suffix: str, damage: str) -> None:
    change, told = DAMAGES[damage]
    config = SRResNetConfig(channels=8, blocks=1)
    network, path = build_generator(config, scale=4), tmp_path / f"weights{suffix}"
    weights = network.state_dict()
    weights["head.0.weight"] = change(weights["head.0.weight"])
    if suffix == ".pth":
        torch.save({"params": weights}, path)
    else:
        save_weights(path, weights, generator_metadata(config, scale=4))
        with pytest.raises(UserError, match=told):
            SRGenerator.from_pretrained(path)
    if damage == "shape":  # a run begins with what fits
        weights.pop("head.0.weight")
        initialise(network, path)
        assert all(torch.equal(value, network.state_dict()[name]) for name, value in weights.items())
        return
    with pytest.raises(UserError, match=told):
        initialise(network, path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_converted(tmp_path: Path, dtype: torch.dtype) -> None:
    network = build_generator(MSRResNetConfig(channels=8, blocks=1), scale=4)
    torch.save({name: value.to(dtype) for name, value in network.state_dict().items()}, tmp_path / "weights.pth")
    initialise(network, tmp_path / "weights.pth")
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("change", ["cast", "left out"])
def test_counts_of_batches_may_be_cast_or_left_out(tmp_path: Path, change: str) -> None:
    """As converters do that cast every tensor, and as in files from before torch counted."""
    config = SRResNetConfig(channels=8, blocks=1, norm="batch")
    network, path = build_generator(config, scale=4), tmp_path / "weights.safetensors"
    weights = network.state_dict()
    assert any(name.endswith("num_batches_tracked") for name in weights)
    if change == "cast":
        weights = {name: value.half() for name, value in weights.items()}
    else:
        weights = {name: value for name, value in weights.items() if "num_batches" not in name}
    save_weights(path, weights, generator_metadata(config, scale=4))
    initialise(network, path)
    SRGenerator.from_pretrained(path)


def test_an_archive_that_would_inflate_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/data/0", bytes(2**24))
    assert path.stat().st_size < 2**16
    with pytest.raises(UserError, match="its members claim 16777220 bytes, and the file has"):
        initialise(build_generator(MSRResNetConfig(channels=8, blocks=1), scale=4), path)


def test_a_palette_of_transparent_colours_is_upscaled_without_a_warning(tmp_path: Path) -> None:
    config = SRResNetConfig(channels=8, blocks=1, norm="none")
    generator = SRGenerator(build_generator(config, scale=4), scale=4, metadata={}).eval()
    Image.fromarray(photo(20, 24)).quantize(16).save(tmp_path / "p.png", transparency=bytes(range(16)))
    with Image.open(tmp_path / "p.png") as image:
        sr = generator.upscale(image)
    assert (sr.mode, sr.size) == ("RGBA", (96, 80))
