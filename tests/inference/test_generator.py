"""Inference from a weights file: load it, upscale an image, save the result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from srgan_dist import SRGenerator
from srgan_dist.checkpointing.weights import save_weights
from srgan_dist.config.models import GeneratorConfig, MSRResNetConfig, RRDBConfig, SRResNetConfig
from srgan_dist.imaging.read import read_image
from srgan_dist.models.build import build_generator, generator_metadata
from tests.conftest import photo


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        (SRResNetConfig(channels=8, blocks=2, norm="batch"), 4),
        (SRResNetConfig(channels=8, blocks=1, norm="group", skip="bilinear", end_kernel=5), 8),
        (RRDBConfig(channels=8, blocks=1, growth=4), 2),
        (MSRResNetConfig(channels=8, blocks=1), 3),
    ],
)
def test_a_weights_file_is_enough_to_rebuild_the_generator(config: GeneratorConfig, scale: int, tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = build_generator(config, scale=scale).eval()
    path = tmp_path / "generator.safetensors"
    save_weights(path, network.state_dict(), generator_metadata(config, scale=scale))
    generator = SRGenerator.from_pretrained(path)
    lr = torch.rand(1, 3, 20, 24)
    with torch.no_grad():
        torch.testing.assert_close(generator(lr), network(lr), atol=1e-5, rtol=1e-4)
    image = Image.fromarray(photo(20, 24))
    generator.upscale(image).save(tmp_path / "sr.png")
    with Image.open(tmp_path / "sr.png") as sr:
        assert sr.size == (24 * scale, 20 * scale)

    plain = build_generator(config, scale=scale)
    plain.load_state_dict(load_file(path))


def test_tiles_are_the_whole() -> None:
    torch.manual_seed(3)
    config = SRResNetConfig(channels=8, blocks=1, norm="none", upsampler="pixelshuffledirect", end_kernel=3)
    generator = SRGenerator(build_generator(config, scale=4), scale=4, metadata={}).eval()
    image = Image.fromarray(photo(150, 90))
    whole, tiled = (np.asarray(generator.upscale(image, tile=tile)).astype(int) for tile in (256, 48))
    assert np.abs(whole - tiled).max() <= 1


def test_a_palette_of_transparent_colours_is_upscaled_without_a_warning(tmp_path: Path) -> None:
    config = SRResNetConfig(channels=8, blocks=1, norm="none")
    generator = SRGenerator(build_generator(config, scale=4), scale=4, metadata={}).eval()
    Image.fromarray(photo(20, 24)).quantize(16).save(tmp_path / "p.png", transparency=bytes(range(16)))
    sr = generator.upscale(read_image(tmp_path / "p.png"))
    assert (sr.mode, sr.size) == ("RGBA", (96, 80))
