"""What other programs make of our weights: spandrel, through which ComfyUI, chaiNNer and InvokeAI load them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from srgan_dist import SRGenerator
from srgan_dist.checkpointing.weights import initialise, save_weights
from srgan_dist.config.models import CompactConfig, GeneratorConfig, RRDBConfig, SPANConfig
from srgan_dist.models.build import build_generator, generator_metadata
from srgan_dist.models.reparameterised import weights_to_save, weights_to_train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what it imports
    from spandrel import ModelLoader

NETWORKS: dict[str, tuple[GeneratorConfig, str]] = {
    "compact": (CompactConfig(channels=16, convs=4), "Compact"),
    "span": (SPANConfig(channels=16), "SPAN"),
    "span with input_norm": (SPANConfig(channels=16, input_norm=True), "SPAN"),
    "rrdb": (RRDBConfig(channels=16, blocks=2), "ESRGAN"),
}


def trained(config: GeneratorConfig, *, scale: int) -> nn.Module:
    """A network far from its start, whose output is of the size of an image's values."""
    torch.manual_seed(3)
    network = build_generator(config, scale=scale).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        if isinstance(config, SPANConfig) and config.input_norm:
            network.get_parameter("upsampler.0.weight").div_(255)
    return network


def write(network: nn.Module, config: GeneratorConfig, *, scale: int, path: Path) -> Path:
    save_weights(path, weights_to_save(network), generator_metadata(config, scale=scale))
    return path


def difference(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape
    return float((one - other).abs().max())


@pytest.mark.parametrize(
    ("name", "scale"), [(name, scale) for name, (config, _) in NETWORKS.items() for scale in config.scales]
)
def test_it_computes_what_we_compute(name: str, scale: int, tmp_path: Path) -> None:
    config, architecture = NETWORKS[name]
    network = trained(config, scale=scale)
    path = write(network, config, scale=scale, path=tmp_path / "generator.safetensors")
    theirs: Any = ModelLoader().load_from_file(path)
    ours = SRGenerator.from_pretrained(path, device="cpu")
    assert (theirs.architecture.id, theirs.scale, ours.scale) == (architecture, scale, scale)
    for size in ((12, 16), (13, 18), (5, 7)):
        lr = torch.rand(1, 3, *size)
        with torch.no_grad():
            sr = ours(lr)
            assert 0.01 < sr.std() < 10
            assert difference(network(lr), sr) < 1e-5
            assert difference(theirs.model.eval()(lr), sr) < 1e-5
        if name != "rrdb" or scale == 4 or size == (12, 16):  # their call pads it to multiples of 4 also at scale 2
            assert difference(theirs(lr), sr.clamp(0, 1)) < 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_files_of_others_are_used_and_trained_on(name: str, tmp_path: Path) -> None:
    """As they publish them: without metadata, in a .pth with params_ema."""
    config, _ = NETWORKS[name]
    network = trained(config, scale=4)
    torch.save({"params": {}, "params_ema": weights_to_save(network)}, tmp_path / "4x.pth")
    theirs: Any = ModelLoader().load_from_file(tmp_path / "4x.pth")
    generator = SRGenerator.from_pretrained(tmp_path / "4x.pth", device="cpu")
    begun = build_generator(config, scale=4).eval()
    initialise(begun, tmp_path / "4x.pth", as_trained=weights_to_train)
    lr = torch.rand(1, 3, 9, 8)
    with torch.no_grad():
        sr = theirs.model.eval()(lr)
        assert difference(generator(lr), sr) < 1e-5
        assert difference(begun(lr), sr) < 1e-5


def test_of_another_scale_all_but_the_last_layer_is_loaded(tmp_path: Path) -> None:
    config = CompactConfig(channels=16, convs=4)
    path = write(trained(config, scale=2), config, scale=2, path=tmp_path / "2x.safetensors")
    begun = build_generator(config, scale=4)
    initialise(begun, path, as_trained=weights_to_train)
    for name, value in weights_to_save(begun).items():
        expected = weights_to_save(trained(config, scale=2))[name]
        if name.startswith("body.10."):
            assert not value.any()
        else:
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)
