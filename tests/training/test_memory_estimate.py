"""Predicted memory against measured memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from srgan_dist.config.root import Config
from srgan_dist.config.training import TrainConfig
from srgan_dist.planning.plan import make_plan
from srgan_dist.training.memory_estimate import (
    LiveBytes,
    estimate_step_memory,
    largest_micro_batch,
    operations,
    peak_bytes,
    predict_bytes,
)
from tests.conftest import call, cli, metrics

SMALL: dict[str, Any] = {
    "data": {"patch_size": 64, "batch_size": 8},
    "generator": {"channels": 8, "blocks": 2, "norm": "group"},
    "discriminator": {"channels": 4, "norm": "spectral"},
    "loss": {"perceptual": {"layer": "conv2_2"}},
}


def config(**changes: Any) -> Config:
    return Config(**SMALL | changes)


def test_live_bytes_are_those_of_tensors_that_live() -> None:
    with LiveBytes() as live:
        first = torch.zeros(1000)
        view = first[:10]
        assert live.now == 4000
        second = first + 1
        del first
        assert live.now == 8000  # the view holds it
        del view
        assert live.now == 4000
        for _ in range(3):
            torch.zeros(2000)
        assert (live.now, live.peak) == (4000, 12000)
        del second
    assert live.now == 0


def test_measuring_a_footprint_allocates_nothing() -> None:
    size = 1 << 44  # of float32: 64 TiB
    assert peak_bytes(lambda: torch.zeros(size) + 1) == 2 * 4 * size


def test_weights_moments_and_the_average_are_saved() -> None:
    from srgan_dist.models.build import build_discriminator, build_generator

    made = config()
    generator = build_generator(made.generator, scale=4).state_dict()
    discriminator = build_discriminator(made.discriminator)
    g = sum(value.nbytes for value in generator.values())
    d = sum(value.nbytes for value in discriminator.parameters())
    found = estimate_step_memory(made, micro_batch=1, num_micro_batches=1, recompute="none")
    # Weights and two moments of each; the average is weights alone.
    assert found.saved == pytest.approx(4 * g + 3 * d, rel=0.02)
    assert found.peak > found.saved


def test_activations_grow_with_the_micro_batch_and_shrink_with_recomputation() -> None:
    made = config(generator={"channels": 16, "blocks": 24, "norm": "group"}, loss={})

    def peak(micro_batch: int, recompute: Any = "none") -> int:
        return estimate_step_memory(made, micro_batch=micro_batch, num_micro_batches=2, recompute=recompute).peak

    assert peak(32) - peak(16) == pytest.approx(2 * (peak(16) - peak(8)), rel=0.02)
    none, perceptual, generator, both = (peak(8, how) for how in ("none", "perceptual", "generator", "both"))
    assert both < min(perceptual, generator)
    assert max(perceptual, generator) < none
    made = made.model_copy(update={"train": TrainConfig(precision="bf16")})
    assert peak(8) < 0.7 * none


def test_recomputed_operations_are_counted_twice() -> None:
    made = config(train={"g_per_d": 2}, loss={})
    none, perceptual, both = (operations(made, recompute=how) for how in ("none", "perceptual", "both"))
    # The 15 convolutions of VGG19 before conv5_4, whose own output the backward does not need.
    channels = [3, 64, 64, 128, 128, *(4 * [256]), *(4 * [512]), *(4 * [512])]
    sides = [64, 64, 32, 32, *(4 * [16]), *(4 * [8]), *(3 * [4])]
    multiplications = sum(9 * a * b * side**2 for a, b, side in zip(channels, channels[1:], sides, strict=False))
    assert perceptual - none == 2 * 2 * multiplications
    assert both > perceptual


def test_the_largest_micro_batch_is_the_last_that_fits() -> None:
    made = config()
    shared: dict[str, Any] = {"per_rank_batch": 4, "recompute": "none", "device": "cuda"}
    one, two, four = (predict_bytes(made, micro_batch=size, **shared) for size in (1, 2, 4))
    assert one < two < four
    assert largest_micro_batch(made, memory=two, **shared) == (2, two)
    assert largest_micro_batch(made, memory=two - 1, **shared) == (1, one)
    assert largest_micro_batch(made, memory=one - 1, **shared) == (0, one)


def test_a_plan_says_what_fits_and_what_it_costs() -> None:
    made = config()
    roomy = make_plan(made, memory=1 << 40, ranks=2, device="cuda")
    assert roomy.per_rank_batch == 4
    assert roomy.best
    best = roomy.best
    assert (best.micro_batch, best.num_micro_batches, best.recompute, best.cost) == (4, 1, "none", 1.0)
    tight = make_plan(made, memory=roomy.choices[-1].bytes, ranks=2, device="cuda")
    assert [choice.micro_batch for choice in tight.choices if choice.recompute == "both"] == [4]
    assert all(choice.bytes <= roomy.choices[-1].bytes for choice in tight.choices if choice.micro_batch)
    assert [choice.cost for choice in tight.choices] == sorted(choice.cost for choice in tight.choices)


ARGUMENTS = [
    "--data.patch_size=64",
    "--data.batch_size=8",
    "--generator.channels=8",
    "--generator.blocks=2",
    "--discriminator.channels=4",
    "--loss.perceptual.layer=conv2_2",
]


def test_plan_names_the_best_micro_batch_or_that_none_fits() -> None:
    done = call("plan", "--memory", "2GiB", "--device", "cpu", *ARGUMENTS)
    assert done.code == 0, done.err
    assert "best: --data.micro_batch=8 --train.recompute=none" in done.out
    done = call("plan", "--memory", "100MiB", "--device", "cpu", *ARGUMENTS)
    assert done.code == 1
    assert "not even one patch at a time fits into 0.10 GiB" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--memory", "lots"], "--memory is 'lots'"),
        (["--memory", "16"], "--memory is 16 bytes: give its unit, such as 16GiB"),
        (["--memory", "1GiB", "--ranks", "0"], "--ranks is 0, allowed are whole numbers from 1"),
        (["--memory", "1GiB", "--ranks", "3"], "not a multiple of the 3 ranks"),
        (["--memory", "1GiB", "--trian.steps=1"], "did you mean train.steps"),
    ],
)
def test_mistakes_are_reported_in_one_line(arguments: list[str], message: str) -> None:
    done = call("plan", *arguments)
    assert done.code == 2
    assert message in done.err
    assert len(done.lines) == 1


TRAINED = {
    "data.patch_size": 96,
    "data.batch_size": 8,
    "generator.channels": 32,
    "generator.blocks": 8,
    "generator.norm": "group",
    "discriminator.channels": 32,
    "loss.perceptual.weights": "random",
    "train.threads": 1,
}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"train.precision": "bf16", "train.recompute": "both"}], ids=["plain", "lean"])
def test_a_run_uses_the_predicted_memory(large_shards: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    arguments = [f"--{key}={value}" for key, value in (TRAINED | changes).items()]
    planned = cli("plan", "--memory", "64GiB", "--device", "cpu", *arguments)
    assert planned.code == 0, planned.err
    recompute = changes.get("train.recompute", "none")
    predicted = float(re.search(rf"{recompute} .*?([\d.]+) GiB", planned.out).group(1))  # type: ignore[union-attr]
    run = {"run.dir": tmp_path, "data.train": large_shards, "train.steps": 3, "train.pretrain_steps": 0}
    run |= {"log.every": 1, "checkpoint.every": 2, "tracker.name": "none"}
    trained = cli("train", *arguments, *(f"--{key}={value}" for key, value in run.items()))
    assert trained.code == 0, trained.err
    measured = metrics(tmp_path)[-1]["perf/memory_gib"]
    assert predicted == pytest.approx(measured, rel=0.15)
