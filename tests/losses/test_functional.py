"""Losses against closed forms and hand-made values."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from srgan_dist.losses.functional import (
    AdversarialKind,
    PixelKind,
    adversarial_discriminator_loss,
    adversarial_generator_loss,
    compares_images,
    perceptual_distance,
    perceptual_loss,
    pixel_loss,
)

REAL = torch.tensor([[2.0], [-1.0]])
FAKE = torch.tensor([[0.5], [-3.0]])
KINDS: tuple[AdversarialKind, ...] = get_args(AdversarialKind)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("mse", (0.09 + 0.16) / 2),
        ("l1", 0.35),
        ("charbonnier", (math.sqrt(0.09 + 1e-6) + math.sqrt(0.16 + 1e-6)) / 2),
    ],
)
def test_pixel_losses_are_those_computed_by_hand(kind: PixelKind, expected: float) -> None:
    sr, hr = torch.tensor([0.5, 0.1]).view(1, 1, 1, 2), torch.tensor([0.2, 0.5]).view(1, 1, 1, 2)
    assert pixel_loss(kind, sr, hr).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", get_args(PixelKind))
def test_pixel_loss_of_equal_images_is_flat(kind: PixelKind) -> None:
    sr = torch.rand(1, 3, 4, 4, requires_grad=True)
    loss = pixel_loss(kind, sr, sr.detach().clone())
    loss.backward()
    assert loss.item() == pytest.approx(1e-3 if kind == "charbonnier" else 0.0)
    assert sr.grad is not None
    assert not sr.grad.any()


def test_losses_are_float32_whatever_comes_in() -> None:
    half = torch.rand(2, 1, 3, 3).bfloat16()
    results = [pixel_loss("l1", half, half), perceptual_loss("mse", [half], [half])]
    results += [perceptual_distance([half], [half])]
    for kind in KINDS:
        results += [adversarial_generator_loss(kind, half, half)]
        results += adversarial_discriminator_loss(kind, half, half)
    assert {result.dtype for result in results} == {torch.float32}


def test_perceptual_loss_is_the_mean_over_layers_of_means() -> None:
    sr = [torch.zeros(1, 2, 4, 4), torch.zeros(1, 8, 2, 2)]
    hr = [torch.full((1, 2, 4, 4), 3.0), torch.full((1, 8, 2, 2), -1.0)]
    assert perceptual_loss("l1", sr, hr).item() == pytest.approx((3 + 1) / 2)
    assert perceptual_loss("mse", sr, hr).item() == pytest.approx((9 + 1) / 2)


def test_weighted_layers_are_summed() -> None:
    sr, hr = ([torch.rand(2, 3, 4, 4), torch.rand(2, 5, 2, 2)] for _ in range(2))
    weighted = perceptual_loss("l1", sr, hr, weights=(0.1, 2.0))
    expected = 0.1 * (sr[0] - hr[0]).abs().mean() + 2.0 * (sr[1] - hr[1]).abs().mean()
    torch.testing.assert_close(weighted, expected)
    with pytest.raises(ValueError, match="longer"):
        perceptual_loss("l1", sr, hr, weights=(1.0,))


def test_perceptual_losses_need_the_same_layers() -> None:
    maps = [torch.zeros(1, 2, 4, 4)]
    with pytest.raises(ValueError, match="longer"):
        perceptual_loss("l1", maps, maps * 2)
    with pytest.raises(ValueError, match="shorter"):
        perceptual_distance(maps * 2, maps)


def test_perceptual_distance_is_between_directions_and_for_each_image() -> None:
    # First image: same direction, other length. Second: orthogonal (2). Third: opposite (4).
    sr = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]).view(3, 2, 1, 1)
    hr = torch.tensor([[5.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]).view(3, 2, 1, 1)
    assert perceptual_distance([sr], [hr]).tolist() == pytest.approx([0.0, 2.0, 4.0], abs=1e-6)
    assert perceptual_distance([sr, sr], [hr, sr]).tolist() == pytest.approx([0.0, 1.0, 2.0], abs=1e-6)


def test_perceptual_distance_of_equal_maps_is_0_and_dark_places_do_not_harm() -> None:
    maps = torch.rand(2, 4, 3, 3)
    maps[:, :, 0, 0] = 0.0
    maps.requires_grad_()
    distance = perceptual_distance([maps], [maps.detach()])
    assert distance.tolist() == [0.0, 0.0]
    perceptual_distance([maps], [torch.rand(2, 4, 3, 3)]).sum().backward()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("vanilla", (softplus(-0.5) + softplus(3)) / 2),
        # Means: real 0.5, fake -1.25; real - fake mean = 3.25, 0.25; fake - real mean = 0, -3.5.
        (
            "relativistic",
            (softplus(3.25) + softplus(0.25)) / 2 + (softplus(0) + softplus(3.5)) / 2,
        ),
        ("lsgan", 0.5 * (0.25 + 16) / 2),
        ("hinge", 1.25),
    ],
)
def test_generator_losses_are_those_computed_by_hand(kind: AdversarialKind, expected: float) -> None:
    assert adversarial_generator_loss(kind, FAKE, REAL).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("vanilla", ((softplus(-2) + softplus(1)) / 2, (softplus(0.5) + softplus(-3)) / 2)),
        (
            "relativistic",
            ((softplus(-3.25) + softplus(-0.25)) / 2, (softplus(0) + softplus(-3.5)) / 2),
        ),
        ("lsgan", (0.5 * (1 + 4) / 2, 0.5 * (0.25 + 9) / 2)),
        ("hinge", ((0 + 2) / 2, (1.5 + 0) / 2)),
    ],
)
def test_discriminator_losses_are_those_computed_by_hand(kind: AdversarialKind, expected: tuple[float, float]) -> None:
    halves = adversarial_discriminator_loss(kind, REAL, FAKE)
    assert [half.item() for half in halves] == pytest.approx(list(expected), rel=1e-6)


def test_smoothing_is_one_sided() -> None:
    # BCE with the label 0.9 is 0.9 softplus(-x) + 0.1 softplus(x).
    expected = [0.9 * softplus(-x) + 0.1 * softplus(x) for x in (2.0, -1.0)]
    real, fake = adversarial_discriminator_loss("vanilla", REAL, FAKE, label_smoothing=0.1)
    assert real.item() == pytest.approx(sum(expected) / 2, rel=1e-6)
    assert fake.item() == adversarial_discriminator_loss("vanilla", REAL, FAKE)[1].item()
    real, _ = adversarial_discriminator_loss("lsgan", REAL, FAKE, label_smoothing=0.1)
    assert real.item() == pytest.approx(0.5 * (1.1**2 + 1.9**2) / 2, rel=1e-6)
    hinge = adversarial_discriminator_loss("hinge", REAL, FAKE, label_smoothing=0.1)
    assert hinge == adversarial_discriminator_loss("hinge", REAL, FAKE)


def test_only_relativistic_compares_images() -> None:
    assert [kind for kind in KINDS if compares_images(kind)] == ["relativistic"]
    with pytest.raises(ValueError, match="needs real_logits"):
        adversarial_generator_loss("relativistic", FAKE)
    for kind in KINDS:
        if not compares_images(kind):
            loss = adversarial_generator_loss(kind, FAKE)
            assert loss == adversarial_generator_loss(kind, FAKE, REAL)


@pytest.mark.parametrize("kind", KINDS)
def test_both_losses_fall_where_they_should(kind: AdversarialKind) -> None:
    def discriminator(real: Tensor, fake: Tensor) -> float:
        return sum(half.item() for half in adversarial_discriminator_loss(kind, real, fake))

    high, low = torch.full((4, 1), 0.8), torch.full((4, 1), -0.8)
    assert discriminator(high, low) < discriminator(low, high)
    fooled, seen = adversarial_generator_loss(kind, high, low), adversarial_generator_loss(kind, low, high)
    assert fooled < seen


@pytest.mark.parametrize("kind", KINDS)
def test_large_logits_stay_finite(kind: AdversarialKind) -> None:
    huge = torch.tensor([[1e4]])
    loss = adversarial_generator_loss(kind, -huge, huge)
    real, fake = adversarial_discriminator_loss(kind, -huge, huge)
    assert math.isfinite((loss + real + fake).item())


@pytest.mark.parametrize("kind", KINDS)
def test_the_adversarial_term_alone_moves_the_generator(kind: AdversarialKind) -> None:
    generator, discriminator = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 1, 3).requires_grad_(False)
    before = generator.weight.detach().clone()
    optimizer = torch.optim.SGD(generator.parameters(), lr=0.1)
    with torch.no_grad():
        real_logits = discriminator(torch.rand(2, 3, 8, 8))
    fake_logits = discriminator(generator(torch.rand(2, 3, 8, 8)))
    first = adversarial_generator_loss(kind, fake_logits, real_logits)
    first.backward()
    optimizer.step()
    assert not torch.equal(generator.weight, before)
    assert discriminator.weight.grad is None


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(AssertionError, match="wgan"):
        adversarial_generator_loss("wgan", FAKE)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="wgan"):
        adversarial_discriminator_loss("wgan", REAL, FAKE)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="huber"):
        pixel_loss("huber", FAKE, REAL)  # type: ignore[arg-type]
