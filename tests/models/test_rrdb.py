"""RRDBNet: the names that other tools load, sizes, and the folded inputs of scales 1 and 2."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from srgan_dist.models.rrdb import RRDBNet


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def small(*, scale: int = 4, blocks: int = 1) -> RRDBNet:
    return RRDBNet(scale=scale, channels=8, blocks=blocks, growth=4)


def test_names_and_shapes_are_esrgans() -> None:
    convs: dict[str, tuple[int, int]] = {"conv_first": (3, 8)}
    for i in range(2):
        for j in (1, 2, 3):
            convs |= {f"body.{i}.rdb{j}.conv{k}": (8 + 4 * (k - 1), 4 if k < 5 else 8) for k in range(1, 6)}
    convs |= dict.fromkeys(("conv_body", "conv_up1", "conv_up2", "conv_hr"), (8, 8))
    convs["conv_last"] = (8, 3)
    expected: dict[str, tuple[int, ...]] = {}
    for name, (inputs, outputs) in convs.items():
        expected |= {f"{name}.weight": (outputs, inputs, 3, 3), f"{name}.bias": (outputs,)}
    assert {key: tuple(value.shape) for key, value in small(blocks=2).state_dict().items()} == expected


def test_size_of_the_published_network() -> None:
    with torch.device("meta"):
        network = RRDBNet()
    assert sum(parameter.numel() for parameter in network.parameters()) == 16_697_987


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("size", [(8, 12), (5, 7)])
def test_output_is_scale_times_as_large(scale: int, size: tuple[int, int]) -> None:
    sr = small(scale=scale)(torch.rand(2, 3, *size))
    assert sr.shape == (2, 3, size[0] * scale, size[1] * scale)


@pytest.mark.parametrize("size", [(5, 7), (2, 9), (1, 6)])
@pytest.mark.parametrize(("padding", "scale"), [("reflect", 1), ("reflect", 2), ("replicate", 1), ("replicate", 2)])
def test_what_continues_the_image(padding: Literal["reflect", "replicate"], scale: int, size: tuple[int, int]) -> None:
    """Rows and columns by their numbers: as far as there is something to reflect."""
    network = RRDBNet(scale=scale, channels=8, blocks=1, growth=4, padding=padding).double()
    lr, fold = torch.rand(1, 3, *size, dtype=torch.float64), 4 // scale
    for axis, side in ((2, size[0]), (3, size[1])):
        more = -side % fold
        reflected = min(more, side - 1) if padding == "reflect" else 0
        numbers = [*range(side), *(side - 2 - index for index in range(reflected))]
        numbers += [numbers[-1]] * (side + more - len(numbers))
        lr = lr.index_select(axis, torch.tensor(numbers))
    whole = network(lr)
    torch.testing.assert_close(network(lr[..., : size[0], : size[1]]), whole[..., : scale * size[0], : scale * size[1]])


def test_padding_does_not_change_what_is_far_from_it() -> None:
    network = small(scale=2).double()
    lr = torch.rand(1, 3, 81, 8, dtype=torch.float64)
    sr, even = network(lr), network(lr[:, :, :80])
    torch.testing.assert_close(sr[:, :, :40], even[:, :, :40])


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_forward_step_by_step(scale: int) -> None:
    network = small(scale=scale).double()
    state = {key: torch.randn_like(value) / 4 for key, value in network.state_dict().items()}
    network.load_state_dict(state)
    lr = torch.rand(1, 3, 8, 4, dtype=torch.float64)

    def conv(name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    def leaky(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.2 * x)

    fold = 4 // scale
    n, c, h, w = lr.shape
    cells = lr.view(n, c, h // fold, fold, w // fold, fold).permute(0, 1, 3, 5, 2, 4)
    first = conv("conv_first", cells.reshape(n, c * fold**2, h // fold, w // fold))
    x = first
    for j in (1, 2, 3):
        maps = [x]
        for k in (1, 2, 3, 4):
            maps.append(leaky(conv(f"body.0.rdb{j}.conv{k}", torch.cat(maps, 1))))
        x = x + 0.2 * conv(f"body.0.rdb{j}.conv5", torch.cat(maps, 1))
    x = first + conv("conv_body", first + 0.2 * x)
    for name in ("conv_up1", "conv_up2"):
        x = leaky(conv(name, x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)))
    torch.testing.assert_close(network(lr), conv("conv_last", leaky(conv("conv_hr", x))))


def test_every_parameter_gets_a_gradient() -> None:
    network = small(blocks=2)
    network(torch.rand(1, 3, 6, 6)).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_weights_inside_the_residuals_start_small() -> None:
    network = RRDBNet(channels=32, blocks=1)
    weight = network.body.get_parameter("0.rdb1.conv1.weight")
    assert weight.std().item() == pytest.approx(0.1 * (2 / (32 * 9)) ** 0.5, rel=0.05)
    assert not network.body.get_parameter("0.rdb1.conv1.bias").any()


def test_a_wrong_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="scale is 8, allowed are 1, 2 and 4"):
        RRDBNet(scale=8)
