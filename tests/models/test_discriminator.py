"""Discriminators: shapes, and buffers that only `advance_power_iteration` changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from srgan_dist.models.discriminator import (
    PatchGANDiscriminator,
    UNetDiscriminator,
    VGGDiscriminator,
    advance_power_iteration,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def small_vgg(norm: str, layout: str = "srgan") -> VGGDiscriminator:
    return VGGDiscriminator(channels=4, norm=norm, layout=layout, hidden=8)  # type: ignore[arg-type]


def spectral(name: str) -> nn.Module:
    match name:
        case "unet":
            return UNetDiscriminator(channels=4).eval()
        case "patchgan":
            return PatchGANDiscriminator(channels=4, norm="spectral").eval()
        case _:
            return small_vgg("spectral").eval()


def buffers(network: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in network.named_buffers()}


@pytest.mark.parametrize("norm", ["batch", "spectral", "none"])
@pytest.mark.parametrize("layout", ["srgan", "basicsr"])
@pytest.mark.parametrize("size", [(96, 96), (128, 64), (40, 56)])
def test_vgg_gives_one_logit_an_image(norm: str, layout: str, size: tuple[int, int]) -> None:
    logits = small_vgg(norm, layout).eval()(torch.rand(2, 3, *size))
    assert logits.shape == (2, 1)
    assert logits.isfinite().all()


@pytest.mark.parametrize("size", [(32, 32), (45, 27), (8, 8)])
def test_unet_gives_one_logit_a_pixel(size: tuple[int, int]) -> None:
    assert UNetDiscriminator(channels=4).eval()(torch.rand(2, 3, *size)).shape == (2, 1, *size)


def test_vgg_is_the_papers() -> None:
    with torch.device("meta"):
        network = VGGDiscriminator()
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert [conv.stride[0] for conv in convs] == [1, 2, 1, 2, 1, 2, 1, 2]
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) == 7
    assert [conv.bias is not None for conv in convs] == [True] + 7 * [False]
    dense = [module for module in network.modules() if isinstance(module, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in dense] == [(512 * 36, 1024), (1024, 1)]


def test_vgg_is_basicsrs() -> None:
    with torch.device("meta"):
        network = VGGDiscriminator(layout="basicsr")
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert [(conv.out_channels, conv.kernel_size[0], conv.stride[0]) for conv in convs] == [
        (64 * multiple, *rest) for multiple in (1, 2, 4, 8, 8) for rest in ((3, 1), (4, 2))
    ]
    assert [conv.bias is not None for conv in convs] == [True] + 9 * [False]
    assert sum(parameter.numel() for parameter in network.parameters()) == 14_499_401
    assert network(torch.rand(2, 3, 128, 128, device="meta")).shape == (2, 1)


def test_patchgan_is_pix2pixs() -> None:
    """Sizes, biases and the numbers of the layers, by which its weights have the names of the paper's own code."""
    with torch.device("meta"):
        network = PatchGANDiscriminator()
    convs = {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    assert [(name, conv.out_channels, conv.stride[0], conv.bias is not None) for name, conv in convs.items()] == [
        ("model.0", 64, 2, True),
        ("model.2", 128, 2, False),
        ("model.5", 256, 2, False),
        ("model.8", 512, 1, False),
        ("model.11", 1, 1, True),
    ]
    assert {conv.kernel_size for conv in convs.values()} == {(4, 4)}
    assert sum(parameter.numel() for parameter in network.parameters()) == 2_765_633


@pytest.mark.parametrize(("layers", "sees"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_a_logit_of_patchgan_sees_its_patch_and_no_more(layers: int, sees: int) -> None:
    network = PatchGANDiscriminator(channels=2, layers=layers, norm="none").eval()
    side = 2 * sees
    images = torch.zeros(1, 3, side, side, requires_grad=True)
    logits = network(images)
    assert logits.shape == (1, 1, side // 2**layers - 2, side // 2**layers - 2)
    middle = logits.shape[-1] // 2
    (gradient,) = torch.autograd.grad(logits[0, 0, middle, middle], images)
    for axis in (-1, -2):
        seen = gradient.abs().sum(dim=(0, 1, axis)).nonzero().flatten()
        assert seen[-1] - seen[0] + 1 == sees


@pytest.mark.parametrize("norm", ["batch", "spectral", "none"])
@pytest.mark.parametrize("layers", [1, 3, 5])
def test_patchgan_takes_images_from_its_smallest_size_on(norm: str, layers: int) -> None:
    network = PatchGANDiscriminator(channels=2, layers=layers, norm=norm).eval()  # type: ignore[arg-type]
    smallest = 3 * 2**layers
    logits = network(torch.rand(2, 3, smallest, smallest + 1))
    assert logits.shape == (2, 1, 1, 1)
    assert logits.isfinite().all()
    with pytest.raises(RuntimeError):
        network(torch.rand(2, 3, smallest - 1, smallest))


@pytest.mark.parametrize("name", ["vgg", "patchgan"])
def test_the_gain_makes_up_for_every_activation_and_changes_no_key(name: str) -> None:
    """Without biases the logits are homogeneous in each activation: they grow by the gain once for each."""

    def made(norm: str) -> nn.Module:
        torch.manual_seed(0)
        network = small_vgg(norm) if name == "vgg" else PatchGANDiscriminator(channels=4, norm=norm)  # type: ignore[arg-type]
        return network.double().eval()

    plain, gained = made("spectral"), made("spectral_gain")
    assert {key: value.shape for key, value in plain.state_dict().items()} == {
        key: value.shape for key, value in gained.state_dict().items()
    }
    images = torch.rand(2, 3, 96, 96, dtype=torch.float64)
    activations = sum(isinstance(module, nn.LeakyReLU) for module in plain.modules())
    assert activations == (9 if name == "vgg" else 4)
    gained.load_state_dict(plain.state_dict())
    torch.testing.assert_close(gained(images), plain(images) * (2 / 1.04) ** (activations / 2))


def test_size_of_the_published_unet() -> None:
    assert sum(p.numel() for p in UNetDiscriminator().parameters()) == 4_376_897


def test_spectral_norm_is_where_it_belongs() -> None:
    unet = UNetDiscriminator(channels=4)
    normalised = [name for name, module in unet.named_children() if is_parametrized(module)]
    assert normalised == [f"conv{i}" for i in range(1, 9)]
    layers = [m for m in small_vgg("spectral").modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == 10
    assert all(is_parametrized(layer, "weight") for layer in layers)


def test_batch_norm_has_no_buffers_and_ignores_the_mode() -> None:
    network = small_vgg("batch")
    images = torch.rand(3, 3, 32, 32)
    assert buffers(network) == {}
    assert torch.equal(network.train()(images), network.eval()(images))


@pytest.mark.parametrize("name", ["vgg", "unet", "patchgan"])
def test_forward_and_backward_in_eval_leave_every_buffer(name: str) -> None:
    network = spectral(name)
    before = buffers(network)
    assert before
    for _ in range(2):
        network(torch.rand(2, 3, 32, 32)).mean().backward()
    after = buffers(network)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("name", ["vgg", "unet", "patchgan"])
def test_advance_moves_only_the_estimates_and_finds_the_largest_singular_value(name: str) -> None:
    network = spectral(name)
    with torch.no_grad():  # weights far from those of the first estimate
        for key, parameter in network.named_parameters():
            if key.endswith("original"):
                parameter.normal_()
    before, weights = buffers(network), {k: v.clone() for k, v in network.named_parameters()}
    advance_power_iteration(network)
    # A layer with one output has u = 1 for ever; its v moves.
    moved = [key for key, buffer in buffers(network).items() if not torch.equal(before[key], buffer)]
    assert set(moved) >= {key for key in before if key.endswith("_v")}
    for _ in range(300):
        advance_power_iteration(network)
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(weights[k], v) for k, v in network.named_parameters())
    for layer in network.modules():
        if is_parametrized(layer, "weight"):
            weight = layer.weight
            assert isinstance(weight, Tensor)
            assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1.0, abs=1e-3)


def test_advance_is_one_iteration_and_keeps_the_mode() -> None:
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(5, 4)).train()
    parametrization = layer.get_submodule("parametrizations.weight")
    weight = layer.get_parameter("parametrizations.weight.original").detach()
    v = layer.get_buffer("parametrizations.weight.0._v").clone()
    advance_power_iteration(layer)
    u = nn.functional.normalize(weight @ v, dim=0)
    torch.testing.assert_close(layer.get_buffer("parametrizations.weight.0._u"), u)
    v = nn.functional.normalize(weight.T @ u, dim=0)
    torch.testing.assert_close(layer.get_buffer("parametrizations.weight.0._v"), v)
    assert parametrization.training


def test_advance_leaves_other_networks_alone() -> None:
    network = small_vgg("batch")
    advance_power_iteration(network)
    assert buffers(network) == {}


@pytest.mark.parametrize("norm", ["batch", "spectral", "spectral_gain", "none", "unet", "patchgan"])
def test_gradients_reach_the_images_and_every_parameter(norm: str) -> None:
    network = spectral(norm) if norm in ("unet", "patchgan") else small_vgg(norm)
    images = torch.rand(2, 3, 48, 48, requires_grad=True)
    network.eval()(images).square().mean().backward()
    assert images.grad is not None
    assert images.grad.any()
    assert all(p.grad is not None for p in network.parameters())


def test_frozen_it_still_passes_gradients_to_the_images() -> None:
    network = UNetDiscriminator(channels=4).eval().requires_grad_(False)
    images = torch.rand(1, 3, 16, 16, requires_grad=True)
    network(images).mean().backward()
    assert images.grad is not None
    assert images.grad.any()
    assert all(p.grad is None for p in network.parameters())
