"""A training run is the update that the papers and BasicSR write, written here a second time in plain PyTorch.

The reference knows the networks and the patches. Everything else (losses, their weights, which network learns when and
from what, learning rates, the moving average) stands here once more, as BasicSR's `SRGANModel.optimize_parameters` has
it, with n generator updates for each discriminator update where BasicSR has n discriminator updates for the generator.

The networks have no normalisation: BasicSR's discriminator moves its statistics in every forward, and this project's,
by design, in none (`models/discriminator.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from srgan_dist.data.loading.loader import BatchStream, make_loader, to_device
from srgan_dist.data.loading.pairs import PairDataset
from srgan_dist.data.shards.shard_set import open_shards
from srgan_dist.models.discriminator import VGGDiscriminator
from srgan_dist.models.features import VGGFeatures
from srgan_dist.models.srresnet import SRResNet
from tests.conftest import TINY
from tests.ranks import equivalence

SEED, PATCH, BATCH = 3, 32, 4
PRETRAIN_STEPS, STEPS = 2, 8
PIXEL, PERCEPTUAL, ADVERSARIAL = 0.2, 0.3, 0.1
SMOOTHING = 0.1
PRETRAIN_RATE, G_RATE, D_RATE, WARMUP = 4e-4, 1e-3, 2e-3, 3
BETAS, WEIGHT_DECAY, EMA_DECAY = (0.8, 0.95), 0.02, 0.9

CONFIG = TINY | {
    "run.seed": SEED,
    "data.patch_size": PATCH,
    "data.batch_size": BATCH,
    "data.micro_batch": 2,  # the reference takes the batch as one
    "discriminator.channels": 1,
    "discriminator.norm": "none",
    "loss.pixel.kind": "mse",
    "loss.pixel.weight": PIXEL,
    "loss.perceptual.network": "vgg19",
    "loss.perceptual.layer": "conv2_2",
    "loss.perceptual.weights": "random",
    "loss.perceptual.weight": PERCEPTUAL,
    "loss.adversarial.weight": ADVERSARIAL,
    "loss.adversarial.label_smoothing": SMOOTHING,
    "optimizer.betas": list(BETAS),
    "optimizer.weight_decay": WEIGHT_DECAY,
    "optimizer.pretrain.learning_rate": PRETRAIN_RATE,
    "optimizer.generator.learning_rate": G_RATE,
    "optimizer.generator.warmup_steps": WARMUP,
    "optimizer.discriminator.learning_rate": D_RATE,
    "train.steps": STEPS,
    "train.pretrain_steps": PRETRAIN_STEPS,
    "train.ema_decay": EMA_DECAY,
    "checkpoint.every": 100,
}


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def patches(shards: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """The LR and HR patches of each global batch, in the order of the run: the one thing read by the project's code."""
    dataset = PairDataset(open_shards([shards]), patch_size=PATCH, seed=SEED)
    loader = make_loader(dataset, consumed=0, batch_size=BATCH, rank=0, world_size=1, workers=0)
    batches = BatchStream(loader)
    try:
        for batch in islice(batches, STEPS):
            pair = to_device(batch, "cpu", channels_last=False)
            yield pair.lr, pair.hr
    finally:
        batches.close()


def bce(logits: Tensor, label: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def generator_loss(kind: str, fake: Tensor, real: Tensor) -> Tensor:
    """What the generator minimises, by the discriminator's logits."""
    if kind == "vanilla":  # -log D(G(z))
        return bce(fake, 1.0)
    if kind == "lsgan":  # Mao et al. 2017, eq. 9
        return F.mse_loss(fake, torch.ones_like(fake)) / 2
    if kind == "hinge":  # Miyato et al. 2018, eq. 17
        return -fake.mean()
    # Wang et al. 2018 (ESRGAN), eq. 2
    return bce(real - fake.mean(), 0.0) + bce(fake - real.mean(), 1.0)


def discriminator_loss(kind: str, fake: Tensor, real: Tensor) -> Tensor:
    """What the discriminator minimises, by its logits; the label of real images is smoothed."""
    label = 1.0 - SMOOTHING
    if kind == "vanilla":
        return bce(real, label) + bce(fake, 0.0)
    if kind == "lsgan":
        return (F.mse_loss(real, torch.full_like(real, label)) + F.mse_loss(fake, torch.zeros_like(fake))) / 2
    if kind == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    return bce(real - fake.mean(), label) + bce(fake - real.mean(), 0.0)


def reference(shards: Path, *, kind: str, n: int) -> dict[str, nn.Module]:
    """Train with plain PyTorch; returns generator, discriminator and moving average by name."""
    torch.manual_seed(SEED)
    net_g = SRResNet(
        channels=8, blocks=1, norm="none", skip="bicubic", upsampler="pixelshuffledirect", end_kernel=3
    ).train()
    net_g_ema = copy.deepcopy(net_g)
    net_d = VGGDiscriminator(channels=1, norm="none").train()
    features = VGGFeatures(network="vgg19", layers=["conv2_2"], weights="random")
    # One at a time, and not fused: the slowest and plainest that torch has.
    plain: dict[str, Any] = {"betas": BETAS, "weight_decay": WEIGHT_DECAY, "foreach": False, "fused": False}
    optimizer_g = torch.optim.AdamW(net_g.parameters(), **plain)
    optimizer_d = torch.optim.AdamW(net_d.parameters(), **plain)

    for step, (lr, hr) in enumerate(patches(shards), start=1):
        in_phase = step - PRETRAIN_STEPS
        adversarial = in_phase > 0

        # The generator; the discriminator only passes its gradient on.
        for parameter in net_d.parameters():
            parameter.requires_grad = False
        optimizer_g.param_groups[0]["lr"] = G_RATE * min(in_phase / WARMUP, 1) if adversarial else PRETRAIN_RATE
        optimizer_g.zero_grad()
        output = net_g(lr)
        if adversarial:
            loss = PIXEL * F.mse_loss(output, hr)
            (sr_features,), (hr_features,) = features(output), features(hr)
            loss = loss + PERCEPTUAL * F.l1_loss(sr_features, hr_features)
            loss = loss + ADVERSARIAL * generator_loss(kind, net_d(output), net_d(hr))
        else:
            loss = F.mse_loss(output, hr)
        loss.backward()
        optimizer_g.step()

        # The discriminator, after every n-th: on the same batch, as the generator drew it before it moved.
        if adversarial and in_phase % n == 0:
            for parameter in net_d.parameters():
                parameter.requires_grad = True
            optimizer_d.param_groups[0]["lr"] = D_RATE
            optimizer_d.zero_grad()
            discriminator_loss(kind, net_d(output.detach()), net_d(hr)).backward()
            optimizer_d.step()

        # The moving average begins with the first weights that were learnt.
        decay = 0.0 if step == 1 else EMA_DECAY
        for averaged, current in zip(net_g_ema.parameters(), net_g.parameters(), strict=True):
            averaged.data = decay * averaged.data + (1 - decay) * current.data
    return {"g": net_g, "d": net_d, "ema": net_g_ema}


def trained(shards: Path, folder: Path, *, kind: str, n: int) -> dict[str, Tensor]:
    """Weights of a run of this project's trainer, by network and name."""
    changes = {"data.train": shards, "loss.adversarial.kind": kind, "train.g_per_d": n}
    equivalence.main("float64", str(folder), *(f"--{key}={value}" for key, value in (CONFIG | changes).items()))
    return load_file(folder / "rank0.safetensors")


def largest_difference(networks: dict[str, nn.Module], weights: dict[str, Tensor]) -> float:
    """The largest difference of any two weights, relative to the tensor's largest where that is above 1."""
    expected = {f"{name}.{key}": value for name, net in networks.items() for key, value in net.state_dict().items()}
    assert expected.keys() == weights.keys()
    return max(
        float((weights[key] - value).abs().max() / value.abs().max().clamp(min=1.0)) for key, value in expected.items()
    )


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("kind", ["vanilla", "relativistic", "lsgan", "hinge"])
def test_a_run_is_the_update_written_in_plain_pytorch(shards: Path, tmp_path: Path, kind: str, n: int) -> None:
    weights = trained(shards, tmp_path, kind=kind, n=n)
    assert largest_difference(reference(shards, kind=kind, n=n), weights) < 1e-10


def test_the_comparison_notices_another_update(shards: Path, tmp_path: Path) -> None:
    """A single update of the discriminator more or less, or another loss, is far outside of the tolerance."""
    weights = trained(shards, tmp_path, kind="vanilla", n=2)
    assert largest_difference(reference(shards, kind="vanilla", n=1), weights) > 1e-4
    assert largest_difference(reference(shards, kind="hinge", n=2), weights) > 1e-4
