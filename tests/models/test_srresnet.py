"""SRResNet: sizes, counts of the paper, and a fresh network that is the interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from srgan_dist.models.srresnet import SRResNet, interpolate


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def small(**changes: object) -> SRResNet:
    settings: dict[str, object] = {"channels": 8, "blocks": 2, "end_kernel": 3}
    return SRResNet(**(settings | changes))  # type: ignore[arg-type]


def num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("upsampler", ["pixelshuffle", "pixelshuffledirect"])
def test_output_is_scale_times_as_large(scale: int, upsampler: str) -> None:
    sr = small(scale=scale, upsampler=upsampler)(torch.rand(2, 3, 5, 7))
    assert sr.shape == (2, 3, 5 * scale, 7 * scale)
    assert sr.isfinite().all()


@pytest.mark.parametrize("norm", ["batch", "none", "group"])
def test_norms_build_and_every_parameter_gets_a_gradient(norm: str) -> None:
    network = small(norm=norm)
    network(torch.rand(2, 3, 6, 6)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("skip", ["bicubic", "bilinear"])
@pytest.mark.parametrize("norm", ["batch", "none", "group"])
@pytest.mark.parametrize("upsampler", ["pixelshuffle", "pixelshuffledirect"])
def test_fresh_network_with_a_skip_is_the_interpolation(skip: str, norm: str, upsampler: str) -> None:
    lr = torch.rand(2, 3, 6, 9)
    sr = small(skip=skip, norm=norm, upsampler=upsampler)(lr)
    expected = F.interpolate(lr, scale_factor=4.0, mode=skip, antialias=True, align_corners=False)
    assert torch.equal(sr, expected)


def test_a_fresh_network_with_a_skip_trains_every_layer() -> None:
    network = small(skip="bicubic", norm="none", upsampler="pixelshuffledirect")
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    lr, hr = torch.rand(2, 3, 6, 6), torch.rand(2, 3, 24, 24)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = F.l1_loss(network(lr), hr)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.01
    # Adam has reached every layer, also those behind zero-initialised ones.
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


def test_bicubic_is_pillows() -> None:
    pixels = np.random.default_rng(0).random((9, 11), dtype=np.float32)
    expected = np.asarray(Image.fromarray(pixels).resize((44, 36), Image.Resampling.BICUBIC))
    ours = interpolate(torch.from_numpy(pixels)[None, None], scale=4, mode="bicubic")[0, 0].numpy()
    np.testing.assert_allclose(ours, expected, atol=2e-6)


def test_skip_stays_float32_under_autocast() -> None:
    lr = torch.rand(1, 3, 6, 6)
    network = small(skip="bicubic")
    with torch.autocast("cpu", torch.bfloat16):
        sr = network(lr)
    assert sr.dtype == torch.float32
    assert torch.equal(sr, interpolate(lr, scale=4, mode="bicubic"))


def test_residual_blocks_start_as_the_identity() -> None:
    network = small(norm="none")
    features = torch.rand(1, 8, 5, 5)
    body: Tensor = network.body(features)
    assert torch.equal(body, features)


def test_size_of_the_papers_network() -> None:
    # 9x9 ends, 16 blocks of two 3x3, one 3x3 after them, two stages to 256; BatchNorm has 2 x 64.
    conv, norm = 64 * 64 * 9, 2 * 64
    expected = (3 * 64 * 81 + 64) + 16 * 2 * (conv + norm) + (conv + norm) + 2 * (64 * 256 * 9 + 256)
    expected += (64 * 3 * 81 + 3) + (1 + 16 + 2)  # the PReLUs share one slope over their channels
    assert num_parameters(SRResNet()) == expected == 1_547_350


def test_size_of_the_compact_network() -> None:
    network = SRResNet(
        blocks=10, channels=48, norm="none", upsampler="pixelshuffledirect", skip="bicubic", end_kernel=3
    )
    assert 438_000 <= num_parameters(network) <= 460_000


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_bias_only_where_no_norm_follows(norm: str) -> None:
    trunk = [module for module in small(norm=norm).body.modules() if isinstance(module, nn.Conv2d)]
    assert all((conv.bias is not None) == (norm == "none") for conv in trunk)


def test_group_norm_takes_any_number_of_channels() -> None:
    assert small(norm="group", channels=7)(torch.rand(1, 3, 4, 4)).shape == (1, 3, 16, 16)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"scale": 3}, "scale is 3, allowed are 1, 2, 4 and 8"), ({"end_kernel": 4}, "end_kernel is 4")],
)
def test_wrong_settings_are_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**wrong)
