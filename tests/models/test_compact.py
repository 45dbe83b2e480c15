"""Compact: SRVGGNetCompact's names, the same function in both of its forms, and a start that learns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srgan_dist.models.compact import Compact
from srgan_dist.models.reparameterised import weights_to_save, weights_to_train


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def small(*, scale: int = 4, merged: bool = False, recompute: bool = False) -> Compact:
    """A network far from its start."""
    network = Compact(scale=scale, channels=8, convs=6, merged=merged, recompute=recompute)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
def test_names_and_shapes_are_srvggnetcompacts(scale: int) -> None:
    expected: dict[str, tuple[int, ...]] = {"body.0.weight": (8, 3, 3, 3), "body.0.bias": (8,), "body.1.weight": (8,)}
    for index in range(2, 14, 2):
        expected |= {f"body.{index}.weight": (8, 8, 3, 3), f"body.{index}.bias": (8,), f"body.{index + 1}.weight": (8,)}
    expected |= {"body.14.weight": (3 * scale**2, 8, 3, 3), "body.14.bias": (3 * scale**2,)}
    for weights in (small(scale=scale).state_dict(), weights_to_save(small(scale=scale))):
        assert {name: tuple(value.shape) for name, value in weights.items()} == expected


def test_size_of_the_published_network() -> None:
    assert sum(parameter.numel() for parameter in Compact().parameters()) == 621_424
    assert sum(parameter.numel() for parameter in Compact(convs=32).parameters()) == 1_213_296


def test_forward_step_by_step() -> None:
    network = small().double()
    state = network.state_dict()
    x = lr = torch.rand(1, 3, 4, 5, dtype=torch.float64)

    def conv(index: int, x: Tensor) -> Tensor:
        return F.conv2d(x, state[f"body.{index}.weight"], state[f"body.{index}.bias"], padding=1)

    for index in range(0, 14, 2):
        x = conv(index, x) + (x if index else 0)
        x = torch.where(x > 0, x, state[f"body.{index + 1}.weight"].view(-1, 1, 1) * x)
    enlarged = lr.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    torch.testing.assert_close(network(lr), F.pixel_shuffle(conv(14, x), 4) + enlarged)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
def test_an_untrained_network_is_the_nearest_enlargement(scale: int) -> None:
    lr = torch.rand(2, 3, 5, 7)
    torch.testing.assert_close(
        Compact(scale=scale, channels=8, convs=2)(lr),
        lr.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3),
        rtol=0,
        atol=0,
    )


def test_the_saved_form_computes_the_same_and_leads_back() -> None:
    network, merged = small().double(), small(merged=True).double()
    saved = weights_to_save(network)
    merged.load_state_dict(saved)
    lr = torch.rand(2, 3, 6, 5, dtype=torch.float64)
    torch.testing.assert_close(merged(lr), network(lr), rtol=0, atol=1e-14)
    torch.testing.assert_close(weights_to_train(network, saved), dict(network.state_dict()), rtol=0, atol=1e-15)
    assert all(torch.equal(value, saved[name]) for name, value in weights_to_save(merged).items())


def test_a_kernel_of_another_network_stays_as_it_is() -> None:
    others = Compact(channels=12, convs=9, merged=True).state_dict()
    assert all(value is others[name] for name, value in weights_to_train(small(), others).items())


def test_parts_that_are_run_again_give_the_same_gradient() -> None:
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        network = small(recompute=recompute).double()
        network(torch.rand(2, 3, 5, 5, dtype=torch.float64)).square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    assert all(gradient is not None and gradient.any() for gradient in gradients[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-12, atol=0)


def test_in_bfloat16_the_image_beneath_is_not_rounded() -> None:
    network = Compact(channels=8, convs=2)
    lr = torch.rand(1, 3, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        sr = network(lr)
    assert torch.equal(sr, F.interpolate(lr, scale_factor=4.0, mode="nearest"))


def test_it_leaves_the_nearest_enlargement_at_once() -> None:
    """Twenty updates on smooth ramps, whose nearest enlargement is a staircase."""
    network = Compact(scale=2, channels=8, convs=4)
    ramp = torch.linspace(0, 1, 16).expand(1, 3, 16, 16).contiguous()
    lr = F.avg_pool2d(ramp, 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        loss = (network(lr) - ramp).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]


def test_a_wrong_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="scale is 5, allowed are 1, 2, 3, 4 and 8"):
        Compact(scale=5)
