"""Recomputed activations: the same gradients and buffers, and fewer stored tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from srgan_dist.models.features import EfficientNetLite0Features, VGGFeatures
from srgan_dist.models.msrresnet import MSRResNet
from srgan_dist.models.rrdb import RRDBNet
from srgan_dist.models.srresnet import SRResNet

Make = Callable[[bool], nn.Module]
GENERATORS: dict[str, Make] = {
    "srresnet": lambda recompute: SRResNet(channels=4, blocks=40, norm="batch", end_kernel=3, recompute=recompute),
    "group": lambda recompute: SRResNet(channels=4, blocks=40, norm="group", end_kernel=3, recompute=recompute),
    "msrresnet": lambda recompute: MSRResNet(channels=4, blocks=40, recompute=recompute),
    "rrdb": lambda recompute: RRDBNet(channels=4, blocks=2, growth=2, recompute=recompute),
}
FEATURES: dict[str, Make] = {
    "vgg19": lambda recompute: VGGFeatures(network="vgg19", layers=["relu5_4"], weights="random", recompute=recompute),
    "vgg16": lambda recompute: VGGFeatures(
        network="vgg16", layers=["conv2_1", "relu3_3"], normalise=True, weights="random", recompute=recompute
    ),
    "efficientnet_lite0": lambda recompute: EfficientNetLite0Features(weights="random", recompute=recompute),
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def pair(make: Make) -> tuple[nn.Module, nn.Module]:
    """Two networks with the same weights, one of which recomputes."""
    plain, twice = make(False).double(), make(True).double()
    with torch.no_grad():
        for parameter in plain.parameters():  # a fresh block is the identity
            parameter.add_(0.1 * torch.randn_like(parameter))
    twice.load_state_dict(plain.state_dict())
    return plain.to(memory_format=torch.channels_last), twice.to(memory_format=torch.channels_last)


def loss(network: nn.Module, images: Tensor) -> Tensor:
    output = network(images)
    maps = output if isinstance(output, list) else [output]
    return torch.stack([(one * torch.linspace(-1, 1, one.shape[-1])).square().mean() for one in maps]).sum()


def kept_elements(network: nn.Module, images: Tensor) -> int:
    """Number of elements that a forward pass stores for the backward pass, each memory counted once."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = loss(network, images)
    value.backward()
    weights: int = sum(tensor.untyped_storage().nbytes() for tensor in network.state_dict().values())
    return sum(kept.values()) - weights


@pytest.mark.parametrize("make", GENERATORS.values(), ids=GENERATORS.keys())
def test_a_generator_has_the_same_gradient(make: Make) -> None:
    plain, twice = pair(make)
    for _ in range(2):  # two micro-batches
        images = torch.rand(2, 3, 12, 12, dtype=torch.float64)
        values = [loss(network, images) for network in (plain, twice)]
        for value in values:
            value.backward()
        assert torch.equal(*values)
    for one, other in zip(plain.parameters(), twice.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-12, atol=1e-15)
        assert one.grad.abs().sum() > 0
    state, again = plain.state_dict(), twice.state_dict()
    assert list(state) == list(again)
    assert all(torch.equal(state[key], again[key]) for key in state)  # running statistics too


@pytest.mark.parametrize("make", FEATURES.values(), ids=FEATURES.keys())
def test_features_pass_the_same_gradient(make: Make) -> None:
    plain, twice = pair(make)
    images = torch.rand(1, 3, 48, 48, dtype=torch.float64)
    gradients = []
    for network in (plain, twice):
        leaf = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(network, leaf), leaf)
        gradients.append(gradient)
        with torch.no_grad():
            assert loss(network, images) > 0
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("make", [*GENERATORS.values(), FEATURES["vgg19"]], ids=[*GENERATORS, "vgg19"])
def test_recomputing_keeps_fewer_activations(make: Make) -> None:
    plain, twice = pair(make)
    images = torch.rand(1, 3, 32, 32, dtype=torch.float64).requires_grad_()
    assert kept_elements(twice, images) < 0.7 * kept_elements(plain, images)


def test_a_copy_uses_its_own_weights() -> None:
    network = GENERATORS["srresnet"](True)
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    images = torch.rand(2, 3, 8, 8)
    assert loss(other, images) == 0
    assert loss(network, images) > 0
