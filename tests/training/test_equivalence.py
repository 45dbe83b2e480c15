"""The update is exactly the big batch: any micro-batch, any number of ranks, the same weights."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.conftest import ROOT, TINY, Finished, launch, run

SCRIPT = ROOT / "tests/ranks/equivalence.py"
BASE = TINY | {
    "data.batch_size": 8,
    "discriminator.channels": 2,
    "loss.pixel.kind": "mse",
    "loss.pixel.weight": 0.1,
    "loss.perceptual.weights": "random",
    "loss.perceptual.weight": 0.1,
    "loss.adversarial.weight": 0.1,
    "loss.adversarial.label_smoothing": 0.1,
    "optimizer.generator.warmup_steps": 3,
    "optimizer.generator.learning_rate": 1e-3,
    "optimizer.discriminator.learning_rate": 1e-3,
    "optimizer.weight_decay": 0.01,
    "train.steps": 7,
    "train.pretrain_steps": 1,
    "train.g_per_d": 1,
    "train.ema_decay": 0.9,
    "checkpoint.every": 100,
}


@pytest.fixture(scope="module")
def weights(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Files of each rank, by ranks, micro-batch and changes of the configuration; each is trained once."""

    @cache
    def train(ranks: int, micro_batch: int, dtype: str, *changes: tuple[str, Any]) -> Path:
        out = tmp_path_factory.mktemp("equivalence")
        config = BASE | {"data.train": shards, "data.micro_batch": micro_batch} | dict(changes)
        arguments: list[str | Path] = [dtype, out]
        arguments += [f"--{key}={value}" for key, value in config.items() if value is not None]
        done: Finished = run(sys.executable, SCRIPT, *arguments) if ranks == 1 else launch(ranks, SCRIPT, *arguments)
        assert done.code == 0, done.err
        for rank in range(ranks):
            facts = json.loads((out / f"rank{rank}.json").read_text())
            assert facts == {"world_size": ranks, "micro_batches": 8 // (ranks * micro_batch)}
        return out

    def by_name(
        ranks: int, micro_batch: int, *, dtype: str = "float64", what: str = "rank", **changes: Any
    ) -> list[dict[str, Tensor]]:
        renamed = {key.replace("__", "."): value for key, value in changes.items()}
        out = train(ranks, micro_batch, dtype, *sorted(renamed.items()))
        return [load_file(out / f"{what}{rank}.safetensors") for rank in range(ranks)]

    return by_name


def distance(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Relative L2 distance of all weights and buffers."""
    assert first.keys() == second.keys()
    a = torch.cat([value.flatten() for value in first.values()])
    b = torch.cat([value.flatten() for value in second.values()])
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("micro_batch", [4, 2])
@pytest.mark.parametrize("n", [1, 3])
def test_micro_batches_are_one_batch(weights: Any, micro_batch: int, n: int) -> None:
    changes = {"train__g_per_d": n}
    assert distance(weights(1, micro_batch, **changes)[0], weights(1, 8, **changes)[0]) < 1e-10


RELATIVISTIC = {"loss__adversarial__kind": "relativistic"}
STABILISERS = {
    "loss__adversarial__ramp_steps": 4,
    "loss__adversarial__r1_weight": 2.0,
    "loss__adversarial__r1_every": 2,
    "loss__adversarial__instance_noise": 0.1,
    "loss__adversarial__instance_noise_steps": 5,
    "train__d_warmup_steps": 2,
}


@pytest.mark.parametrize(
    "changes",
    [
        {"loss__adversarial__kind": "lsgan"},
        {"loss__adversarial__kind": "hinge"},
        RELATIVISTIC,
        RELATIVISTIC | {"discriminator__name": "unet", "discriminator__norm": None},
        RELATIVISTIC | {"discriminator__name": "patchgan"},
        STABILISERS,
        RELATIVISTIC | STABILISERS,
    ],
    ids=lambda changes: "-".join(str(value) for value in changes.values()),
)
def test_micro_batches_are_one_batch_with_every_loss_and_stabiliser(weights: Any, changes: dict[str, Any]) -> None:
    changes = changes | {"train__g_per_d": 2, "train__clip_grad_norm": 0.05}
    one = weights(1, 8, **changes)[0]
    assert distance(weights(1, 2, **changes)[0], one) < 1e-10
    other = weights(1, 8)[0]
    assert one.keys() != other.keys() or distance(one, other) > 1e-6


ADDITIONAL = {
    "lpips": "{kind: lpips, weights: random, weight: 0.1}",
    "dists": "{kind: dists, weights: random, weight: 0.1}",
    "ldl": "{kind: ldl, weight: 20, start: 1}",
    "frequency": "{kind: frequency, weight: 0.1, ramp_steps: 3}",
    "wavelet": "{kind: wavelet, weight: 0.1, bands: [1, 0.5, 0.5, 2]}",
}


@pytest.mark.parametrize("kind", ADDITIONAL)
def test_micro_batches_are_one_batch_with_every_additional_loss(weights: Any, kind: str) -> None:
    changes = {"loss__additional": ADDITIONAL[kind], "train__g_per_d": 2}
    one = weights(1, 8, **changes)[0]
    assert distance(weights(1, 2, **changes)[0], one) < 1e-10
    assert distance(one, weights(1, 8, train__g_per_d=2)[0]) > 1e-6


@pytest.mark.slow
def test_two_ranks_compute_the_additional_losses_of_one(weights: Any) -> None:
    changes = {"loss__additional": f"[{', '.join(ADDITIONAL.values())}]", "generator__norm": "group"}
    one = weights(1, 8, **changes)[0]
    first, second = weights(2, 2, **changes)
    assert distance(first, one) < 1e-10
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [4, 2])
@pytest.mark.parametrize("kind", ["vanilla", "relativistic"])
def test_two_ranks_compute_the_update_of_one(weights: Any, micro_batch: int, kind: str) -> None:
    changes = {
        "train__g_per_d": 3,
        "loss__adversarial__kind": kind,
        "generator__norm": "group",
        "train__clip_grad_norm": 0.05,
    }
    one = weights(1, 8, **changes)[0]
    first, second = weights(2, micro_batch, **changes)
    assert distance(first, one) < 1e-10
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.slow
def test_two_ranks_pause_the_discriminator_as_one(weights: Any) -> None:
    changes = {"train__g_per_d": "auto", "train__steps": 12, "loss__adversarial__kind": "relativistic"}
    changes |= {"stability__d_accuracy_band": "[0.5, 0.6]"}
    one = weights(1, 8, **changes)[0]
    first, second = weights(2, 2, **changes)
    assert distance(first, one) < 1e-10
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert distance(one, weights(1, 8, **changes | {"train__g_per_d": 1})[0]) > 1e-6  # it did pause


def test_the_comparison_can_fail(weights: Any) -> None:
    assert distance(weights(1, 8)[0], weights(1, 8, train__g_per_d=3)[0]) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "micro_batch"), [(1, 2), (2, 2)])
@pytest.mark.parametrize("kind", ["vanilla", "relativistic"])
def test_gradients_agree_in_float32(weights: Any, ranks: int, micro_batch: int, kind: str) -> None:
    changes = {"train__steps": 1, "train__pretrain_steps": 0, "loss__adversarial__kind": kind}
    options = changes | {"dtype": "float32", "what": "gradients"}
    one = weights(1, 8, **options)[0]
    assert {key.partition(".")[0] for key in one} == {"g", "d"}
    for gradients in weights(ranks, micro_batch, **options):
        assert distance(gradients, one) < 1e-5


@pytest.mark.slow
def test_batchnorm_is_another_estimator_and_no_more(weights: Any) -> None:
    changes = {"generator__norm": "batch", "discriminator__norm": "batch"}
    one = weights(1, 8, **changes)[0]
    learnt = [key for key in one if "running" not in key and "num_batches" not in key]
    parts = [weights(1, 2, **changes)[0], *weights(2, 4, **changes)]
    for part in parts:
        assert all(value.isfinite().all() for value in part.values())
        # Its statistics are those of each micro-batch: the README gives the size of the difference.
        assert 1e-6 < distance({key: part[key] for key in learnt}, {key: one[key] for key in learnt}) < 0.1
    assert all(torch.equal(parts[1][key], parts[2][key]) for key in learnt)
