"""MSRResNet: BasicSR's names and shapes, and its forward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from srgan_dist.models.msrresnet import MSRResNet


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def basicsr_shapes(*, scale: int, channels: int, blocks: int) -> dict[str, tuple[int, ...]]:
    """What a state dict of BasicSR's MSRResNet holds."""
    factor = 3 if scale == 3 else 2
    convs = {"conv_first": (3, channels)}
    convs |= {f"body.{i}.conv{j}": (channels, channels) for i in range(blocks) for j in (1, 2)}
    ups = ["upconv1", "upconv2"] if scale == 4 else ["upconv1"]
    convs |= dict.fromkeys(ups, (channels, channels * factor**2))
    convs |= {"conv_hr": (channels, channels), "conv_last": (channels, 3)}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (inputs, outputs) in convs.items():
        shapes |= {f"{name}.weight": (outputs, inputs, 3, 3), f"{name}.bias": (outputs,)}
    return shapes


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_names_and_shapes_are_basicsrs(scale: int) -> None:
    network = MSRResNet(scale=scale, channels=8, blocks=2)
    expected = basicsr_shapes(scale=scale, channels=8, blocks=2)
    assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == expected
    assert network(torch.rand(1, 3, 5, 7)).shape == (1, 3, 5 * scale, 7 * scale)


def test_size_of_the_published_network() -> None:
    assert sum(parameter.numel() for parameter in MSRResNet().parameters()) == 1_517_571


def test_forward_step_by_step() -> None:
    network = MSRResNet(channels=8, blocks=1).double()
    state = {key: torch.randn_like(value) for key, value in network.state_dict().items()}
    network.load_state_dict(state)
    lr = torch.rand(1, 3, 4, 5, dtype=torch.float64)

    def conv(name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    def leaky(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.1 * x)

    x = leaky(conv("conv_first", lr))
    x = x + conv("body.0.conv2", conv("body.0.conv1", x).clamp(min=0))
    for name in ("upconv1", "upconv2"):
        x = leaky(F.pixel_shuffle(conv(name, x), 2))
    x = conv("conv_last", leaky(conv("conv_hr", x)))
    x = x + F.interpolate(lr, scale_factor=4.0, mode="bilinear", align_corners=False)
    torch.testing.assert_close(network(lr), x)


def test_every_parameter_gets_a_gradient() -> None:
    network = MSRResNet(channels=8, blocks=2)
    network(torch.rand(1, 3, 5, 5)).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_a_wrong_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="scale is 8, allowed are 2, 3 and 4"):
        MSRResNet(scale=8)
