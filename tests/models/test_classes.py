"""Networks of classes that are not ours: spandrel's, and those of the user's own modules."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from srgan_dist import SRGenerator
from srgan_dist.config.models import OwnGeneratorConfig, SpandrelConfig
from srgan_dist.models.build import build_generator, generator_outline
from srgan_dist.models.classes import Unbuildable, build_own, build_spandrel, leave_out_unused
from srgan_dist.training.without_memory import without_memory
from srgan_dist.utils.memory_format import usable_format

SWIN = {"embed_dim": 8, "depths": [1], "num_heads": [2], "window_size": 8, "upsampler": "pixelshuffledirect"}
SMALL: dict[str, dict[str, Any]] = {
    "SwinIR": SWIN,
    "DAT": {"embed_dim": 24, "depth": [2, 2], "num_heads": [2, 2], "split_size": [2, 4], "upsampler": "pixelshuffle"},
    "RealPLKSR": {"dim": 8, "n_blocks": 1},
    "RCAN": {"n_resgroups": 1, "n_resblocks": 1, "n_feats": 16},
    "ESRGAN": {"num_filters": 8, "num_blocks": 1},
}
OWN = """
import torch
from torch import nn
import helper_of_own_nets

class Net(nn.Module):
    def __init__(self, scale, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, width, 1), nn.PReLU(width), nn.Conv2d(width, 3 * scale**2, 1))
        self.unused = nn.Linear(2, 2)
        self.shuffle = nn.PixelShuffle(scale)
    def forward(self, lr):
        return self.shuffle(self.layers(lr))

class Outer:
    class Inner(Net):
        pass

MEAN = torch.tensor(0.5)

class NoScale(nn.Conv2d):
    def __init__(self):
        super().__init__(3, 3, 1)

class Lost(nn.Module):
    def __init__(self):
        raise KeyError("lost\\nfor ever")

def function():
    pass
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with a module of the user's, which imports another one there."""
    (tmp_path / "own_nets.py").write_text(OWN)
    (tmp_path / "helper_of_own_nets.py").write_text("")
    (tmp_path / "quitting_nets.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "bad_nets.py").write_text("import torch\nraise RuntimeError('no way')\n")
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in ("own_nets", "helper_of_own_nets", "bad_nets"):
        sys.modules.pop(name, None)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


# --- spandrel's ---


@pytest.mark.parametrize("architecture", SMALL)
def test_an_architecture_of_spandrels_takes_images_of_any_size_and_learns(architecture: str) -> None:
    network = build_spandrel(architecture, SMALL[architecture], scale=4).train()
    sr = network(torch.rand(2, 3, 21, 10))
    assert sr.shape == (2, 3, 84, 40)
    sr.square().mean().backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


@pytest.mark.parametrize("architecture", SMALL)
def test_its_outline_and_what_it_is_without_data_have_the_same_names_and_shapes(architecture: str) -> None:
    config = SpandrelConfig(architecture=architecture, parameters=SMALL[architecture])
    expected = {name: value.shape for name, value in build_generator(config, scale=4).state_dict().items()}
    outline = generator_outline(config, scale=4, num_tensors=len(expected))
    assert {name: value.shape for name, value in outline.items()} == expected
    with without_memory():
        network = build_generator(config, scale=4)
        assert {name: value.shape for name, value in network.state_dict().items()} == expected
        network(torch.zeros(2, 3, 24, 24)).mean().backward()
        assert {type(parameter.grad) for parameter in network.parameters()} <= {
            type(network(torch.zeros(2, 3, 24, 24)))
        }


def test_an_image_is_continued_by_reflection_and_cropped() -> None:
    network = build_spandrel("SwinIR", SWIN, scale=2).eval()
    lr = torch.rand(1, 3, 13, 3)
    padded = F.pad(F.pad(lr, (0, 2, 0, 3), mode="reflect"), (0, 3, 0, 0), mode="replicate")
    with torch.no_grad():
        torch.testing.assert_close(network(lr), network(padded)[..., :26, :6])


def test_only_what_the_parameters_say_differs_from_spandrels_own() -> None:
    from spandrel.architectures.ESRGAN import ESRGAN

    torch.manual_seed(5)
    ours = build_spandrel("ESRGAN", SMALL["ESRGAN"], scale=4)
    assert isinstance(ours, ESRGAN)
    theirs = ESRGAN(**SMALL["ESRGAN"], scale=4)
    theirs.load_state_dict(ours.state_dict())
    lr = torch.rand(1, 3, 6, 7)
    torch.testing.assert_close(ours(lr), theirs(lr))


@pytest.mark.parametrize(
    ("architecture", "parameters", "told"),
    [
        (None, {}, "generator.architecture is not given; allowed: ATD, AuraSR, Compact, CRAFT, "),
        ("Swin", {}, "generator.architecture is 'Swin'; allowed: ATD"),
        ("SwinIR", {"window": 8}, "=SwinIR: generator.parameters has 'window'; allowed: .*window_size"),
        ("SAFMN", {}, "generator.architecture=SAFMN: generator.parameters lacks dim$"),
        ("SwinIR", {"window_size": 7}, r"=SwinIR cannot be built by generator.parameters .*Error: .*SwinIR.py:\d+"),
        ("FBCNN", {"nc": [8] * 4, "nb": 1}, "=FBCNN: spandrel cannot load what these parameters make .ValueError"),
    ],
)  # fmt: skip
def test_what_spandrel_cannot_build_is_told_in_one_line(
    architecture: str | None, parameters: dict[str, Any], told: str
) -> None:
    with pytest.raises(Unbuildable, match=told) as caught:
        build_spandrel(architecture, parameters, scale=4)
    assert "\n" not in str(caught.value)


def test_without_spandrel_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(Unbuildable, match=r"not installed: pip install 'srgan-dist\[spandrel\]'"):
        build_spandrel("SwinIR", SWIN, scale=4)


@pytest.mark.parametrize("parameters", [{"depths": [10**9]}, {"depths": [5000] * 50}], ids=["one stage", "many"])
def test_the_outline_of_an_endless_network_ends(parameters: dict[str, Any]) -> None:
    config = SpandrelConfig(architecture="SwinIR", parameters=SWIN | parameters | {"num_heads": [2] * 50})
    with pytest.raises(Unbuildable, match="a network of far more"):
        generator_outline(config, scale=4, num_tensors=30)


# --- the user's own ---


@pytest.mark.parametrize("name", ["own_nets:Net", "own_nets:Outer.Inner"])
def test_a_class_of_the_working_folder_is_built(own: Path, name: str) -> None:
    network = build_own(name, {"width": 6}, scale=3)
    assert network(torch.rand(1, 3, 4, 5)).shape == (1, 3, 12, 15)
    assert network.get_parameter("layers.0.weight").shape[0] == 6
    assert sys.path[0] != str(own)
    assert sys.path.count(str(own)) == 1  # what the module imports later is found, too


def test_the_scale_is_given_to_a_class_that_takes_one(own: Path) -> None:
    assert own
    assert build_own("own_nets:NoScale", {}, scale=4)(torch.rand(1, 3, 4, 5)).shape == (1, 3, 4, 5)
    assert build_own("own_nets:Net", {"scale": 2}, scale=4)(torch.rand(1, 3, 4, 5)).shape == (1, 3, 8, 10)


def test_a_module_that_is_imported_where_tensors_have_no_data_keeps_its_own(own: Path) -> None:
    assert own
    with without_memory():
        build_own("own_nets:Net", {}, scale=2)
    assert sys.modules["own_nets"].MEAN.item() == 0.5


@pytest.mark.parametrize(
    ("name", "parameters", "told"),
    [
        ("no_nets:Net", {}, "no_nets cannot be imported (ModuleNotFoundError: No module named 'no_nets')"),
        ("bad_nets:Net", {}, "bad_nets cannot be imported (RuntimeError: no way, bad_nets.py:2)"),
        ("quitting_nets:Net", {}, "quitting_nets cannot be imported (SystemExit: 3, quitting_nets.py:1)"),
        ("own_nets:Nothing", {}, "expected a class of torch.nn.Module, and own_nets has no such name"),
        ("own_nets:function", {}, "own_nets:function; expected a class of torch.nn.Module, and this is none"),
        ("own_nets:Net", {"depth": 3}, "generator.parameters has 'depth'; allowed: scale, width"),
        ("own_nets:Lost", {}, "cannot be built by generator.parameters {} (KeyError: 'lost\\nfor ever', own_"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_or_built_is_told_in_one_line(
    own: Path, name: str, parameters: dict[str, Any], told: str
) -> None:
    assert own
    with pytest.raises(Unbuildable) as caught:
        build_own(name, parameters, scale=4)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parameters_without_effect_are_frozen_and_nothing_else_changes(own: Path) -> None:
    assert own
    network = build_own("own_nets:Net", {}, scale=2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    leave_out_unused(network, side=6, device=torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {"unused.weight", "unused.bias"}
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_one_that_has_two_names_stays_one_without_data(own: Path) -> None:
    (own / "tied_nets.py").write_text(
        "from torch import nn\n"
        "class Tied(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)\n"
        "        self.b.weight = self.a.weight\n"
    )
    with without_memory():
        network = build_generator(OwnGeneratorConfig(name="tied_nets:Tied"), scale=1)
    a, b = (network.get_submodule(name) for name in "ab")
    assert isinstance(a, nn.Conv2d)
    assert isinstance(b, nn.Conv2d)
    assert a.weight is b.weight
    sys.modules.pop("tied_nets")


def test_kernels_of_three_dimensions_keep_their_order_in_memory() -> None:
    network = build_spandrel("FFTformer", {"dim": 8, "num_blocks": [1, 1, 1]}, scale=1)
    assert any(parameter.dim() == 5 for parameter in network.parameters())
    generator = SRGenerator(network.to(memory_format=usable_format(network, torch.channels_last)), scale=1, metadata={})
    assert generator.upscale_tensor(torch.zeros(1, 3, 9, 7, dtype=torch.uint8)).shape == (1, 3, 9, 7)


@pytest.mark.parametrize(
    ("architecture", "parameters", "frozen"),
    [
        ("RealPLKSR", {"dim": 16, "n_blocks": 1}, ""),
        ("SPAN", {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8}, "eval_conv"),
    ],
    ids=["writes in place in eval mode", "computes by other parameters in eval mode"],
)
def test_what_training_has_no_use_for_is_found_in_training_mode(
    architecture: str, parameters: dict[str, Any], frozen: str
) -> None:
    pytest.importorskip("spandrel")
    network = build_spandrel(architecture, parameters, scale=2).train()
    leave_out_unused(network, side=16, device=torch.device("cpu"))
    found = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    assert all(frozen and frozen in name for name in found)
    assert bool(found) == bool(frozen)


def test_two_networks_of_an_architecture_are_of_one_class() -> None:
    pytest.importorskip("spandrel")
    first, second = (build_spandrel("RealPLKSR", {"dim": 16, "n_blocks": 1}, scale=2) for _ in range(2))
    assert type(first) is type(second)
