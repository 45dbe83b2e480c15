from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from srgan_dist.degradations.kernels import filter_image, gaussian_kernels, sharpen, sinc_kernels, usm_kernel


def gaussian(**changes: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    base: dict[str, Any] = {"size": 21, "sigma_x": 2.0, "sigma_y": 2.0, "rotation": 0.0, "beta": 1.0, "plateau": False}
    kernels = gaussian_kernels(**{name: [value] for name, value in (base | changes).items()})
    return np.asarray(kernels[0])


@pytest.mark.parametrize("plateau", [False, True])
@pytest.mark.parametrize("size", [7, 21])
@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
def test_kernels_follow_the_covariance(beta: float, size: int, plateau: bool) -> None:
    # The formula of the paper, with matrices: S = U diag(sx^2, sy^2) U^T.
    angle, sx, sy = 0.7, 2.5, 0.8
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    inverse = np.linalg.inv(turn @ np.diag([sx**2, sy**2]) @ turn.T)
    expected = np.zeros((21, 21))
    half = size // 2
    for y in range(-half, half + 1):
        for x in range(-half, half + 1):
            q = (np.array([x, y]) @ inverse @ np.array([x, y])) ** beta
            expected[y + 10, x + 10] = 1 / (q + 1) if plateau else np.exp(-q / 2)
    made = gaussian(size=size, sigma_x=sx, sigma_y=sy, rotation=angle, beta=beta, plateau=plateau)
    np.testing.assert_allclose(made, expected / expected.sum(), atol=1e-14)


def test_a_tiny_sigma_changes_nothing() -> None:
    kernel = gaussian(sigma_x=0.01, sigma_y=0.01)
    assert kernel[10, 10] == 1
    assert kernel.sum() == 1


@pytest.mark.parametrize("cutoff", [0.7, np.pi / 3, 2.0, np.pi])
@pytest.mark.parametrize("size", [7, 21])
def test_sinc_kernels_follow_the_bessel_function(size: int, cutoff: float) -> None:
    tau = (np.arange(20_000) + 0.5) / 20_000 * np.pi
    expected = np.zeros((21, 21))
    half = size // 2
    for y in range(-half, half + 1):
        for x in range(-half, half + 1):
            radius = np.hypot(x, y)
            j1 = np.cos(tau - cutoff * radius * np.sin(tau)).mean()  # Bessel's integral
            expected[y + 10, x + 10] = cutoff / (2 * np.pi * radius) * j1 if radius else cutoff**2 / (4 * np.pi)
    made = sinc_kernels(size=[size], cutoff=[cutoff])[0]
    np.testing.assert_allclose(made, expected / expected.sum(), atol=3e-7)  # torch's J1 has six or seven digits


def test_sinc_kernels_ring_and_cut_high_frequencies() -> None:
    kernel = sinc_kernels(size=[21], cutoff=[np.pi / 3])[0]
    assert kernel.min() < 0
    response = np.abs(np.fft.fft2(kernel, (64, 64)))[0]
    assert response[:8] == pytest.approx(np.ones(8), abs=0.15)  # below the cutoff, 10.7 of 64
    assert response[20:33].max() < 0.1


@pytest.mark.parametrize(("height", "width"), [(40, 33), (96, 96), (11, 64), (7, 12), (1, 3)])
def test_filtering_is_the_convolution(height: int, width: int) -> None:
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    kernel = torch.from_numpy(gaussian(sigma_x=3.0, rotation=0.5)).float()
    padded = np.pad(image.double().numpy(), ((0, 0), (0, 0), (10, 10), (10, 10)), mode="reflect")
    weight = kernel.double().expand(3, 1, 21, 21)
    expected = F.conv2d(torch.from_numpy(padded), weight, groups=3)
    made = filter_image(image, kernel)
    assert made.dtype == torch.float32
    torch.testing.assert_close(made.double(), expected, atol=2e-6, rtol=0)


def test_sharpening_raises_edges_and_leaves_flat_regions() -> None:
    kernel = usm_kernel()
    assert kernel.sum().item() == pytest.approx(1, abs=1e-5)
    flat = torch.full((1, 3, 64, 64), 0.4) + 0.01 * torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sharpen(flat, kernel), flat, atol=1e-6, rtol=0)
    edge = torch.full((1, 3, 64, 200), 0.3)
    edge[..., 100:] = 0.7
    sharp = sharpen(edge, kernel)
    assert sharp[0, 0, 32, 99] < 0.25
    assert sharp[0, 0, 32, 100] > 0.75
    torch.testing.assert_close(sharp[..., :40], edge[..., :40], atol=1e-5, rtol=0)
