from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from srgan_dist.degradations.noise import NoiseTables, add_gaussian, add_poisson, noise_tables

KEYS = torch.tensor([11, 12, -5])
COLOUR, GREY = torch.zeros(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool)


@pytest.fixture(scope="module")
def tables() -> NoiseTables:
    return noise_tables("cpu")


def ramp(photons: int, side: int = 256) -> Tensor:
    """Images [3, 3, side, side] of `photons` distinct levels, one a column, 0 and 255 among them."""
    levels = torch.linspace(0, 255, photons).round().repeat_interleave(side // photons)
    return (levels / 255).expand(3, 3, side, side).contiguous()


def gaussian(tables: NoiseTables, grey: Tensor = COLOUR, sigma: float = 10.0) -> Tensor:
    image = torch.full((3, 3, 128, 128), 0.5)
    return (add_gaussian(image, tables, keys=KEYS, sigma=torch.full((3,), sigma), grey=grey) - image) * 255 / sigma


def test_gaussian_noise_is_normal(tables: NoiseTables) -> None:
    noise = gaussian(tables).double()
    n = noise.numel()
    assert abs(noise.mean()) < 4 / n**0.5
    assert noise.square().mean() == pytest.approx(1, abs=4 * (2 / n) ** 0.5)
    assert (noise**3).mean() == pytest.approx(0, abs=4 * (15 / n) ** 0.5)
    assert (noise**4).mean() == pytest.approx(3, abs=4 * (96 / n) ** 0.5)
    quantiles = torch.linspace(0.001, 0.999, 99, dtype=torch.float64)
    fraction = torch.searchsorted(noise.flatten().sort()[0], torch.special.ndtri(quantiles)) / n
    assert (fraction - quantiles).abs().max() < 1.95 / n**0.5  # Kolmogorov-Smirnov, p = 0.001


def test_gaussian_noise_is_white(tables: NoiseTables) -> None:
    noise = gaussian(tables)
    pairs = {
        "rows": (noise[..., 1:, :], noise[..., :-1, :]),
        "columns": (noise[..., 1:], noise[..., :-1]),
        "channels": (noise[:, 1:], noise[:, :-1]),
        "a hash's parts": (noise.flatten(1)[:, 3:], noise.flatten(1)[:, :-3]),
        "samples": (noise[1:], noise[:-1]),
    }
    for name, (a, b) in pairs.items():
        assert abs((a * b).mean()) < 4 / a.numel() ** 0.5, name


@pytest.mark.parametrize("make", [add_gaussian, add_poisson])
def test_grey_noise_is_the_same_in_all_channels(make: Callable[..., Tensor], tables: NoiseTables) -> None:
    image = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    name = "sigma" if make is add_gaussian else "scale"
    grey = torch.tensor([True, False, True])
    noise = make(image, tables, keys=KEYS, grey=grey, **{name: torch.full((3,), 0.5)}) - image
    spread = (noise - noise[:, :1]).abs().flatten(1).amax(1)
    assert (spread < 1e-6).tolist() == [True, False, True]
    assert (noise.flatten(1).std(1) > 1e-4).all()


@pytest.mark.parametrize("make", [add_gaussian, add_poisson])
def test_noise_of_strength_zero_is_none(make: Callable[..., Tensor], tables: NoiseTables) -> None:
    image = torch.rand(3, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    name = "sigma" if make is add_gaussian else "scale"
    assert torch.equal(make(image, tables, keys=KEYS, grey=COLOUR, **{name: torch.zeros(3)}), image)


@pytest.mark.parametrize("power", [1, 2, 4, 7, 8])
def test_photons_are_poisson(power: int, tables: NoiseTables) -> None:
    photons = 1 << power
    image = ramp(photons)
    noisy = add_poisson(image, tables, keys=KEYS, scale=torch.ones(3), grey=COLOUR)
    counts = (noisy * photons).double()
    assert (counts - counts.round()).abs().max() < 1e-3
    columns = counts.round().permute(3, 0, 1, 2).reshape(256, -1)
    means = (image[0, 0, 0] * photons).double()
    n = columns.shape[1]
    # Mean and variance of a Poisson distribution are equal; 5 standard errors for 256 columns.
    assert ((columns.mean(1) - means).abs() <= 5 * (means / n).sqrt()).all()
    error = ((means + 2 * means.square()) / n).sqrt()
    assert ((columns.var(1) - means).abs() <= 5 * error + 1e-9).all()
    brightest = columns[-1].long()
    expected = n * torch.exp(photons * 0 + torch.distributions.Poisson(float(photons)).log_prob(torch.arange(600.0)))
    likely = expected > 20
    observed = torch.bincount(brightest, minlength=600)[likely]
    chi = ((observed - expected[likely]) ** 2 / expected[likely]).sum() / likely.sum()
    assert chi < 2.5


@pytest.mark.parametrize(("distinct", "photons"), [(2, 2), (3, 4), (4, 4), (5, 8), (128, 128), (129, 256)])
def test_photons_follow_the_number_of_levels(distinct: int, photons: int, tables: NoiseTables) -> None:
    levels = torch.linspace(0, 255, distinct).round()
    image = (levels / 255)[torch.arange(3 * 64 * 64) % distinct].reshape(1, 3, 64, 64)
    noisy = add_poisson(image, tables, keys=KEYS[:1], scale=torch.ones(1), grey=COLOUR[:1])
    units = noisy.double() * photons
    assert (units - units.round()).abs().max() < 1e-3
    assert ((units / 2).round() * 2 - units).abs().max() > 0.9  # and no fewer


def test_noise_is_a_function_of_its_key(tables: NoiseTables) -> None:
    image = torch.rand(3, 3, 31, 17, generator=torch.Generator().manual_seed(0))
    turned = torch.tensor([2, 0, 1])
    for make, name in ((add_gaussian, "sigma"), (add_poisson, "scale")):
        strength = torch.tensor([0.5, 3.0, 1.0])
        noisy = make(image, tables, keys=KEYS, grey=COLOUR, **{name: strength})
        again = make(image[turned], tables, keys=KEYS[turned], grey=COLOUR, **{name: strength[turned]})
        assert torch.equal(noisy[turned], again)
        other = make(image, tables, keys=KEYS + 1, grey=COLOUR, **{name: strength})
        assert (noisy != other).float().mean() > 0.5


def test_noise_is_the_stored_one(tables: NoiseTables) -> None:
    image = torch.full((1, 3, 2, 1), 0.5)
    noisy = add_gaussian(image, tables, keys=torch.tensor([1]), sigma=torch.tensor([255.0]), grey=COLOUR[:1])
    np.testing.assert_allclose(
        (noisy - image).flatten(), [-0.307135, -0.115557, 0.434673, -0.336663, 1.605242, 0.983506], atol=1e-6
    )
