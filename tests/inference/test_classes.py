"""Weights of networks whose classes are not ours: rebuilt by their metadata, and no code is imported unasked."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from srgan_dist import SRGenerator
from srgan_dist.checkpointing.weights import initialise, save_weights
from srgan_dist.config.models import GeneratorConfig, OwnGeneratorConfig, SpandrelConfig
from srgan_dist.errors import UserError
from srgan_dist.models.build import build_generator, generator_metadata
from tests.conftest import call, photo

SWIN: dict[str, Any] = {"embed_dim": 8, "depths": [1], "num_heads": [2], "upsampler": "pixelshuffledirect"}
OWN = """
from pathlib import Path
from torch import nn
Path("imported").touch()

class Net(nn.Sequential):
    def __init__(self, scale, width):
        super().__init__(nn.Conv2d(3, width, 1), nn.Conv2d(width, 3 * scale**2, 1), nn.PixelShuffle(scale))
"""
NET = OwnGeneratorConfig(name="kept_nets:Net", parameters={"width": 4})


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with weights of a class in it, which was not imported since."""
    (tmp_path / "kept_nets.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    save(NET, tmp_path / "own.safetensors")
    (tmp_path / "imported").unlink()
    sys.modules.pop("kept_nets")
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("kept_nets", None)


def save(config: GeneratorConfig, path: Path, *, scale: int = 2) -> torch.nn.Module:
    torch.manual_seed(3)
    network = build_generator(config, scale=scale).eval()
    save_weights(path, network.state_dict(), generator_metadata(config, scale=scale))
    return network


@pytest.mark.parametrize("allowed", [None, "kept_nets:Other", "other:Net"])
def test_a_class_that_a_file_names_is_not_imported_unasked(own: Path, allowed: str | None) -> None:
    with pytest.raises(
        UserError, match=r"is the class kept_nets:Net, .*: allow it by --allow-class=kept_nets:Net|yours"
    ):
        SRGenerator.from_pretrained("own.safetensors", allow_class=allowed)
    assert not (own / "imported").exists()
    assert "kept_nets" not in sys.modules


def test_a_class_that_is_allowed_is_used(own: Path) -> None:
    generator = SRGenerator.from_pretrained("own.safetensors", allow_class="kept_nets:Net", device="cpu")
    assert (own / "imported").exists()
    assert generator.upscale(Image.fromarray(photo(9, 7))).size == (14, 18)


def test_the_commands_ask_for_it(own: Path) -> None:
    for folder in ("images", "validation"):
        (own / folder).mkdir()
        Image.fromarray(photo(16, 24)).save(own / folder / "0.png")
    done = call("upscale", "images/0.png", "large.png", "--weights", "own.safetensors")
    assert (done.code, "--allow-class=kept_nets:Net" in done.err) == (2, True)
    for command in (["upscale", "images/0.png", "large.png", "--weights"], ["evaluate"]):
        rest = ["validation"] if command == ["evaluate"] else []
        done = call(*command, "own.safetensors", *rest, "--allow-class=kept_nets:Net")
        assert done.code == 0, done.err
    with Image.open(own / "large.png") as large:
        assert large.size == (48, 32)


def test_an_allowed_class_that_is_another_now_is_told_in_one_line(own: Path) -> None:
    (own / "kept_nets.py").write_text(OWN.replace("width, 3 *", "width, 2 *"))
    with pytest.raises(
        UserError, match=r"^own\.safetensors: weights that cannot be used \(1.weight is \[12, 4, 1, 1\]"
    ):
        SRGenerator.from_pretrained("own.safetensors", allow_class="kept_nets:Net")
    (own / "kept_nets.py").unlink()
    sys.modules.pop("kept_nets")
    with pytest.raises(UserError, match=r"^own\.safetensors: .* \(.*kept_nets cannot be imported"):
        SRGenerator.from_pretrained("own.safetensors", allow_class="kept_nets:Net")


def test_a_network_of_spandrels_comes_back_from_its_file_here_and_there(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from spandrel import ModelLoader

        config = SpandrelConfig(architecture="SwinIR", parameters=SWIN | {"window_size": 8})
        network = save(config, tmp_path / "swin.safetensors")
        theirs: Any = ModelLoader().load_from_file(tmp_path / "swin.safetensors")
    ours = SRGenerator.from_pretrained(tmp_path / "swin.safetensors", device="cpu")
    lr = torch.rand(1, 3, 11, 13)
    with torch.no_grad():
        torch.testing.assert_close(ours(lr), network(lr), atol=1e-5, rtol=0)
        torch.testing.assert_close(ours(lr).clamp(0, 1), theirs(lr), atol=1e-5, rtol=0)
    begun = build_generator(config, scale=2)
    initialise(begun, tmp_path / "swin.safetensors")
    assert all(torch.equal(value, begun.state_dict()[name]) for name, value in network.state_dict().items())


def test_indices_in_a_file_are_those_that_the_network_computes(tmp_path: Path) -> None:
    config = SpandrelConfig(architecture="SwinIR", parameters=SWIN | {"window_size": 8})
    weights = save(config, tmp_path / "swin.safetensors").state_dict()
    (name,) = [name for name in weights if name.endswith("relative_position_index")]
    wrong = weights | {name: weights[name] + 10**6}
    save_weights(tmp_path / "wrong.safetensors", wrong, generator_metadata(config, scale=2))
    with pytest.raises(UserError, match=rf"weights that cannot be used \({name} is not as the network computes it\)"):
        SRGenerator.from_pretrained(tmp_path / "wrong.safetensors")


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({"architecture": "os"}, r"generator.architecture is 'os'; allowed: ATD"),
        ({"parameters": {"command": "ls"}}, "generator.parameters has 'command'"),
        ({"parameters": SWIN | {"window_size": 8, "depths": [10**9]}}, "a network of far more"),
        ({"parameters": SWIN | {"window_size": 8, "embed_dim": 10**6}}, r"the network's is \[1000000, 3, 3, 3\]"),
        ({"parameters": [1]}, "Input should be a valid dictionary"),
    ],
    ids=["architecture", "parameters", "endless", "wide", "no mapping"],
)
def test_what_metadata_claims_of_spandrels_networks_is_checked(
    claims: dict[str, Any], told: str, tmp_path: Path
) -> None:
    config = SpandrelConfig(architecture="SwinIR", parameters=SWIN | {"window_size": 8})
    network, metadata = build_generator(config, scale=2), generator_metadata(config, scale=2)
    metadata["generator"] = json.dumps(config.model_dump() | claims)
    save_weights(tmp_path / "claims.safetensors", network.state_dict(), metadata)
    with pytest.raises(
        UserError, match=rf"^{tmp_path}/claims\.safetensors: weights and metadata do not fit \(.*{told}"
    ):
        SRGenerator.from_pretrained(tmp_path / "claims.safetensors")
