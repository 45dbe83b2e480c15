"""The losses of both networks on a global batch, against references without autograd's second derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from srgan_dist.config.load import load_config
from srgan_dist.config.losses import AdversarialLossConfig
from srgan_dist.data.loading.loader import Patches
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.training.adversarial import AdversarialObjective, AdversarialSettings
from srgan_dist.training.build import build_rates
from srgan_dist.training.build_step import build_adversarial_settings


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime(threads=1)


def batch_of(num: int, *, size: int = 4) -> list[Patches]:
    draw = torch.Generator().manual_seed(0)
    hr = torch.rand(num, 3, size, size, generator=draw, dtype=torch.float64)
    return [Patches(hr[:, :, ::4, ::4], hr, torch.arange(num) * 7919 + 1)]


def discriminator() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 2, 3), nn.Softplus(), nn.Flatten(), nn.Linear(8, 3), nn.Tanh(), nn.Linear(3, 1))
    return nn.Sequential(*layers).double()


def test_r1_is_the_squared_gradient_and_its_own_gradient_is_right(runtime: Runtime) -> None:
    gamma, every, step = 30.0, 4, 1e-5
    network, pairs = discriminator(), batch_of(2)
    objective = AdversarialObjective(
        AdversarialSettings(kind="vanilla", weight=1.0, r1_weight=gamma, r1_every=every),
        network,
        pairs,
        runtime=runtime,
    )
    for index, pair in enumerate(pairs):
        objective.generator_loss(pair.hr.flip(0), index)
    real, fake = objective.real_and_fake_batches()

    def loss() -> Tensor:
        """The loss by its definition: differences in place of derivatives."""
        images = real.images
        pixels = torch.eye(images[0].numel(), dtype=torch.float64).view(-1, *images[0].shape) * step
        penalty = 0.0
        for image in images:
            slopes = (network(image + pixels) - network(image - pixels)) / (2 * step)
            penalty = penalty + slopes.square().sum() / len(images)
        return nn.functional.softplus(-network(images)).mean() + 0.5 * gamma * every * penalty

    terms = objective.discriminator_terms(real, network, r1_is_due=True)
    with torch.no_grad():
        assert terms["d/loss"].item() == pytest.approx(loss().item(), rel=1e-7)
        plain = objective.discriminator_terms(real, network, r1_is_due=False)
        assert terms["d/loss"] > plain["d/loss"] + 0.01
        assert "d/r1" not in plain
        assert "d/r1" not in objective.discriminator_terms(fake, network, r1_is_due=True)
    terms["d/loss"].backward()
    parameters = list(network.parameters())
    found = torch.cat([parameter.grad.flatten() for parameter in parameters])  # type: ignore[union-attr]
    at = parameters_to_vector(parameters).detach()
    expected = []
    with torch.no_grad():
        for direction in torch.eye(len(at), dtype=torch.float64) * 1e-4:
            vector_to_parameters(at + direction, parameters)
            above = loss()
            vector_to_parameters(at - direction, parameters)
            expected.append((above - loss()) / 2e-4)
    assert torch.allclose(found, torch.stack(expected), rtol=1e-4, atol=1e-6)


def test_noise_is_on_all_that_the_discriminator_sees_and_falls_to_none(runtime: Runtime) -> None:
    config = load_config(
        None,
        [
            "--train.steps=20",
            "--train.pretrain_steps=4",
            "--train.d_warmup_steps=3",
            "--loss.adversarial.ramp_steps=5",
            "--loss.adversarial.instance_noise=0.2",
            "--loss.adversarial.instance_noise_steps=10",
        ],
    )
    rates = [build_rates(config)(step) for step in range(5, 21)]
    assert [rate.noise for rate in rates] == pytest.approx([0.02 * left for left in range(10, 0, -1)] + [0.0] * 6)
    assert [rate.adversarial for rate in rates] == pytest.approx([0, 0, 0, 0.2, 0.4, 0.6, 0.8, 1, *[1] * 8])

    seen: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images.detach())
            return images.mean(dim=(1, 2, 3))[:, None]

    settings = build_adversarial_settings(AdversarialLossConfig(instance_noise=0.2), device=torch.device("cpu"))
    pair = Patches(*(part.float() if part.is_floating_point() else part for part in batch_of(8, size=32)[0]))
    sr = pair.hr.flip(0)
    for rate in (rates[0], rates[4], rates[9], rates[10]):
        seen.clear()
        objective = AdversarialObjective(settings, Spy(), [pair], runtime=runtime, noise=rate.noise)
        objective.generator_loss(sr, 0)
        for part in objective.real_and_fake_batches():
            objective.discriminator_terms(part, Spy(), r1_is_due=False)
        assert torch.equal(seen[0], seen[2])  # G's loss is computed from the very images that D is updated on
        for images, clean in ((seen[1], pair.hr), (seen[2], sr)):
            assert (images - clean).std().item() == pytest.approx(rate.noise, rel=0.05)
            assert torch.equal(images, clean) == (rate.noise == 0)
    assert rates[10].noise == 0


@pytest.mark.parametrize(
    ("kind", "fakes", "fraction"),
    [("vanilla", [1.0, -1.0, -2.0, -3.0], 0.25), ("lsgan", [1.0, 0.4, 0.6, 0.1], 0.5), ("hinge", [-1.0] * 4, 0.0)],
)
def test_fooling_rate_is_the_fraction_on_the_wrong_side(
    runtime: Runtime, kind: str, fakes: list[float], fraction: float
) -> None:
    class Recites(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor(fakes)[:, None] + 0 * images.mean()

    (pair,) = batch_of(4)
    objective = AdversarialObjective(AdversarialSettings(kind=kind, weight=1.0), Recites(), [pair], runtime=runtime)  # type: ignore[arg-type]
    objective.precompute_logits(nn.Identity())
    objective.generator_loss(pair.hr, 0)
    assert objective.fooling_rate().item() == pytest.approx(fraction)
    terms = objective.discriminator_terms(objective.real_and_fake_batches()[1], Recites(), r1_is_due=False)
    assert terms["d/fake_accuracy"].item() == pytest.approx(1 - fraction)
