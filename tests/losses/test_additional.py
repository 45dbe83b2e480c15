"""The additional losses: values that were worked out by hand, identities, and other ways to compute the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from srgan_dist.losses.additional import (
    LDL_WINDOW,
    AdditionalLoss,
    additional_terms,
    artefact_map,
    frequency_loss,
    ldl_loss,
    wavelet_loss,
)

EQUAL = (1.0, 1.0, 1.0, 1.0)


def pair(*, height: int = 12, width: int = 10) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sr, hr = torch.rand(2, 3, 3, height, width, generator=generator, dtype=torch.float64)
    return sr, hr


def losses(sr: Tensor, hr: Tensor) -> dict[str, Tensor]:
    return {
        "frequency": frequency_loss(sr, hr),
        "wavelet": wavelet_loss(sr, hr, levels=2, bands=EQUAL),
        "ldl": ldl_loss(sr, hr, hr.flip(-1)),
    }


@pytest.mark.parametrize("kind", ["frequency", "wavelet", "ldl"])
def test_a_loss_is_0_where_images_are_equal_and_the_mean_over_images_elsewhere(kind: str) -> None:
    sr, hr = pair()
    assert losses(hr, hr)[kind] == 0
    each = torch.stack([losses(sr[i : i + 1], hr[i : i + 1])[kind] for i in range(len(sr))])
    assert each.min() > 0
    torch.testing.assert_close(losses(sr, hr)[kind], each.mean(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", ["frequency", "wavelet", "ldl"])
def test_a_step_down_the_gradient_lowers_it(kind: str) -> None:
    sr, hr = pair()
    sr.requires_grad_()
    before = losses(sr, hr)[kind]
    (gradient,) = torch.autograd.grad(before, sr)
    assert losses(sr.detach() - 1e-3 * gradient / gradient.norm(), hr)[kind] < before


@pytest.mark.parametrize("kind", ["frequency", "wavelet", "ldl"])
def test_half_precision_is_computed_in_float32(kind: str) -> None:
    sr, hr = (image.float() for image in pair())
    half = losses(sr.bfloat16(), hr.bfloat16())[kind]
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, losses(sr.bfloat16().float(), hr.bfloat16().float())[kind])


def test_the_frequency_loss_is_that_of_numpys_transform() -> None:
    sr, hr = pair()
    expected = np.fft.fft2(sr.numpy(), norm="ortho") - np.fft.fft2(hr.numpy(), norm="ortho")
    value = (np.abs(expected.real).mean() + np.abs(expected.imag).mean()) / 2
    np.testing.assert_allclose(frequency_loss(sr, hr).item(), value, rtol=1e-12)


def test_a_constant_and_a_checkerboard_are_one_frequency_each() -> None:
    """Of the real and imaginary parts of 8 x 8 frequencies one is not 0: 0.5 times the square root of 64 pixels."""
    zero = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    sign = 1.0 - 2.0 * ((torch.arange(8)[:, None] + torch.arange(8)) % 2)
    for image in (zero + 0.5, zero + 0.5 * sign):
        torch.testing.assert_close(frequency_loss(image, zero).item(), 0.5 * 8 / 128)


@pytest.mark.parametrize(
    ("image", "band"),
    [
        (torch.ones(8, 8), 0),
        ((-1.0) ** torch.arange(8)[:, None].expand(8, 8), 1),  # rows alternate: edges from left to right
        ((-1.0) ** torch.arange(8).expand(8, 8), 2),
        ((-1.0) ** (torch.arange(8)[:, None] + torch.arange(8)), 3),
    ],
    ids=["low", "horizontal", "vertical", "diagonal"],
)
def test_each_band_has_the_images_that_it_is_named_after(image: Tensor, band: int) -> None:
    image = image.double()[None, None]
    for other in range(4):
        weights = [0.0] * 4
        weights[other] = 3.0
        value = wavelet_loss(image, torch.zeros_like(image), levels=1, bands=weights)
        assert value.item() == (3.0 if other == band else 0.0)


def test_the_wavelet_transform_is_that_of_dilated_convolutions_and_keeps_the_energy() -> None:
    """Each band, by the outer products of the two filters; and of an image on black, all bands together."""
    sr, hr = pair(height=17)
    low, high = torch.tensor([0.5, 0.5]).double(), torch.tensor([0.5, -0.5]).double()
    filters = [torch.outer(a, b) for a, b in ((low, low), (high, low), (low, high), (high, high))]
    expected, image = 0.0, sr - hr
    for level in range(3):
        image, *details = (
            F.conv2d(image, kernel.expand(3, 1, 2, 2), groups=3, dilation=2**level) for kernel in filters
        )
        expected += sum(weight * band.abs().mean().item() for weight, band in zip((2, 3, 5), details, strict=True))
    expected += 7 * image.abs().mean().item()
    value = wavelet_loss(sr, hr, levels=3, bands=(7, 2, 3, 5))
    np.testing.assert_allclose(value.item(), expected, rtol=1e-12)
    on_black = F.pad(hr, [1] * 4)
    energy = sum(F.conv2d(on_black, kernel.expand(3, 1, 2, 2), groups=3).square().sum().item() for kernel in filters)
    np.testing.assert_allclose(energy, hr.square().sum().item(), rtol=1e-12)


def test_the_smallest_image_of_some_levels_leaves_one_coefficient() -> None:
    image = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    value = wavelet_loss(image, torch.zeros_like(image), levels=4, bands=(1, 0, 0, 0))
    torch.testing.assert_close(value, image.mean(dim=(-1, -2)).mean())
    assert wavelet_loss(image[..., 1:], torch.zeros_like(image)[..., 1:], levels=4, bands=(1, 0, 0, 0)).isnan()


def test_the_artefact_map_is_the_residuals_local_variance_where_the_average_is_better() -> None:
    sr, hr = pair()
    average = (sr + hr) / 2
    average[..., :5] = hr[..., :5] + 2 * (sr - hr)[..., :5]  # worse on the left
    found = artefact_map(sr, hr, average)
    assert found.shape == (3, 1, 12, 10)
    residual = np.abs(hr.numpy() - sr.numpy()).sum(axis=1)
    half = LDL_WINDOW // 2
    for image in range(3):
        padded = np.pad(residual[image], half, mode="reflect")
        for y in range(12):
            for x in range(10):
                window = padded[y : y + LDL_WINDOW, x : x + LDL_WINDOW]
                expected = residual[image].var(ddof=1) ** 0.2 * window.var(ddof=1) if x >= 5 else 0.0
                np.testing.assert_allclose(found[image, 0, y, x].item(), expected, rtol=1e-9)
    expected_loss = (found * (sr - hr).abs()).mean()
    torch.testing.assert_close(ldl_loss(sr, hr, average), expected_loss)
    assert ldl_loss(sr, hr, sr).item() > ldl_loss(sr, hr, average).item() > 0  # as good as the average: no better


def test_no_gradient_of_the_artefact_loss_flows_through_its_map() -> None:
    sr, hr = pair()
    sr.requires_grad_()
    (gradient,) = torch.autograd.grad(ldl_loss(sr, hr, hr), sr)
    expected = artefact_map(sr, hr, hr) * (sr - hr).sign() / sr.numel()
    torch.testing.assert_close(gradient, expected.detach())


def test_terms_are_weighted_by_their_factors_and_not_computed_at_0() -> None:
    def broken(*_: Tensor) -> Tensor:
        raise AssertionError

    sr, hr = pair()
    found = [
        AdditionalLoss("frequency", 2.0, lambda sr, hr, _: frequency_loss(sr, hr)),
        AdditionalLoss("ldl", 1.0, broken),
        AdditionalLoss("wavelet", 0.5, lambda *_: torch.tensor(3.0)),
    ]
    terms = additional_terms(found, sr, hr, sr, factors={"frequency": 0.25, "ldl": 0.0})
    assert list(terms) == ["g/frequency", "g/ldl", "g/wavelet"]
    assert terms["g/frequency"] == 0.5 * frequency_loss(sr, hr)
    assert terms["g/ldl"] == 0
    assert terms["g/wavelet"] == 1.5
