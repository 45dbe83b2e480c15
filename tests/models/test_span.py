"""SPAN: branches that add up to a convolution, the attention, and a start that learns."""

from __future__ import annotations

from functools import partial
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srgan_dist.models.reparameterised import weights_to_save, weights_to_train
from srgan_dist.models.span import SPAN


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def small(*, scale: int = 4, input_norm: bool = False, merged: bool = False, recompute: bool = False) -> SPAN:
    """A network far from its start."""
    network = SPAN(scale=scale, channels=6, input_norm=input_norm, merged=merged, recompute=recompute).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


def branches(conv: nn.Module, x: Tensor) -> Tensor:
    """The branches applied one after another, as the paper trains them."""
    first, middle, last = (cast(nn.Conv2d, conv.get_submodule(f"conv.{index}")) for index in range(3))
    return cast(Tensor, last(middle(first(F.pad(x, (1, 1, 1, 1))))) + conv.get_submodule("sk")(x))


@pytest.mark.parametrize("input_norm", [False, True])
def test_forward_step_by_step(input_norm: bool) -> None:
    network = small(input_norm=input_norm)
    lr = torch.rand(1, 3, 5, 4, dtype=torch.float64)
    mean = torch.tensor([0.4488, 0.4371, 0.4040], dtype=torch.float64).view(1, 3, 1, 1)

    def conv(name: str, x: Tensor) -> Tensor:
        return branches(network.get_submodule(name), x)

    shallow = x = conv("conv_1", (lr - mean) * 255 if input_norm else lr)
    outputs, activations = [], []
    for block in range(1, 7):
        first = conv(f"block_{block}.c1_r", x)
        first = first * first.sigmoid()
        second = conv(f"block_{block}.c2_r", first)
        features = conv(f"block_{block}.c3_r", second * second.sigmoid())
        x = (features + x) * (features.sigmoid() - 0.5)
        outputs.append(x)
        activations.append(first)
    x = torch.cat((shallow, conv("conv_2", x), outputs[0], activations[5]), dim=1)
    expected = network.upsampler(network.conv_cat(x))
    assert expected.std() > 0.01
    torch.testing.assert_close(network(lr), expected, rtol=1e-10, atol=1e-10)


def test_names_are_the_originals_and_a_buffer_says_that_the_input_is_not_normalised() -> None:
    convs = ["conv_1", "conv_2", *(f"block_{block}.c{conv}_r" for block in range(1, 7) for conv in (1, 2, 3))]
    layers = ["sk", "conv.0", "conv.1", "conv.2", "eval_conv"]
    expected = {f"{conv}.{layer}" for conv in convs for layer in layers} | {"conv_cat", "upsampler.0"}
    names = {f"{layer}.{kind}" for layer in expected for kind in ("weight", "bias")}
    assert weights_to_save(small(input_norm=True)).keys() == names
    assert weights_to_save(small()).keys() == names | {"no_norm"}
    assert small(merged=True).state_dict().keys() == names | {"no_norm"}


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("input_norm", [False, True])
def test_an_untrained_network_is_the_nearest_enlargement(scale: int, input_norm: bool) -> None:
    lr = torch.rand(2, 3, 5, 7)
    nearest = lr.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
    sr = SPAN(scale=scale, channels=8, input_norm=input_norm)(lr)
    torch.testing.assert_close(sr, nearest, rtol=0, atol=1e-6)


def test_the_saved_form_computes_the_same_and_leads_back() -> None:
    network, merged = small(), small(merged=True)
    saved = weights_to_save(network)
    lr = torch.rand(2, 3, 6, 5, dtype=torch.float64)
    merged.load_state_dict(saved | {"conv_1.eval_conv.weight": torch.full((6, 3, 3, 3), 7.0)})  # counts for nothing
    torch.testing.assert_close(merged(lr), network(lr), rtol=1e-12, atol=1e-12)
    back = weights_to_train(network, saved)
    assert back.keys() == network.state_dict().keys()
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in back.items())
    torch.testing.assert_close(dict(merged.state_dict()), saved, rtol=0, atol=1e-15)


def gradients(*, apart: bool, recompute: bool = False) -> list[Tensor | None]:
    """Of every parameter; with the branches applied ``apart``, one after another."""
    torch.manual_seed(0)
    network = small(recompute=recompute)
    if apart:
        for conv in network.modules():
            if hasattr(conv, "sk"):
                conv.forward = partial(branches, conv)
    network(torch.rand(2, 3, 5, 5, dtype=torch.float64)).square().mean().backward()
    return [parameter.grad for parameter in network.parameters()]


@pytest.mark.parametrize("recompute", [False, True])
def test_the_gradient_is_that_of_the_branches(recompute: bool) -> None:
    expected = gradients(apart=True)
    assert all(gradient is not None and gradient.any() for gradient in expected)
    torch.testing.assert_close(gradients(apart=False, recompute=recompute), expected, rtol=1e-9, atol=1e-14)


def test_a_wrong_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="scale is 5, allowed are 1, 2, 3, 4 and 8"):
        SPAN(scale=5)
