"""Patches and micro-batches that the networks cannot compute are told at the start, and by doctor and plan."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from srgan_dist.config.load import load_config
from srgan_dist.config.root import Config
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.errors import Failure, UserError
from srgan_dist.planning.plan import make_plan
from srgan_dist.training.computable import _Networks, check_computable, smallest_micro_batch
from srgan_dist.training.memory_estimate import largest_micro_batch, predict_bytes
from srgan_dist.training.micro_batch import MicroBatch
from srgan_dist.training.without_memory import without_memory
from tests.conftest import Train, call, cli, options

SMALL = {
    "generator.channels": 8,
    "generator.blocks": 1,
    "discriminator.channels": 4,
    "loss.perceptual.weight": 0,
    "data.batch_size": 4,
}
ONE_VALUE = "expected more than 1 value per channel when training, got input size"
BATCHNORM = {"data.patch_size": 16}
VGG19 = {"loss.perceptual.weight": 1, "loss.perceptual.network": "vgg19"}


def made(**changes: Any) -> Config:
    return load_config(None, [f"--{key}={value}" for key, value in (SMALL | changes).items()])


def check(config: Config, micro_batch: int, *, per_rank_batch: int = 4, ranks: int = 1) -> None:
    check_computable(config, micro_batch=micro_batch, per_rank_batch=per_rank_batch, batchnorm_ranks=ranks)


@pytest.mark.parametrize(
    ("changes", "micro_batch", "message"),
    [
        (
            BATCHNORM,
            1,
            f"data.patch_size is 16, with 1 patch at a time on a rank: discriminator.name=vgg cannot compute that "
            f"({ONE_VALUE} torch.Size([1, 32, 1, 1])); allowed are data.patch_size from 20 or data.micro_batch from 2 "
            "or discriminator.norm=spectral",
        ),
        (
            {"data.patch_size": 4, "discriminator.norm": "none"},
            1,
            f"generator.name=srresnet cannot compute that ({ONE_VALUE} torch.Size([1, 8, 1, 1])); allowed are "
            "data.patch_size from 8 or data.micro_batch from 2 or generator.norm=none",
        ),
        (
            VGG19 | {"data.patch_size": 8},
            4,
            "with 4 patches at a time on a rank: loss.perceptual.network=vgg19 cannot compute that (given input size: "
            "(512x1x1). Calculated output size: (512x0x0). Output size is too small); allowed are data.patch_size from "
            "16",
        ),
        (
            VGG19
            | {"data.patch_size": 1, "data.scale": 1, "data.degradation.kind": "noise"}
            | {"loss.perceptual.layer": "conv2_2"},
            4,
            "allowed are data.patch_size from 2",
        ),
        (
            VGG19 | {"data.patch_size": 8, "discriminator.name": "unet"},
            4,
            "allowed are data.patch_size from 16",
        ),
        (
            {"data.patch_size": 8, "discriminator.name": "unet", "loss.additional": "[{kind: lpips}]"},
            4,
            "lpips in loss.additional cannot compute that (given input size: (512x1x1). Calculated output size: "
            "(512x0x0). Output size is too small); allowed are data.patch_size from 16",
        ),
        (
            {"data.patch_size": 20, "discriminator.name": "patchgan", "discriminator.norm": "spectral"},
            4,
            "discriminator.name=patchgan cannot compute that (calculated padded input size per channel: (3 x 3). "
            "Kernel size: (4 x 4). Kernel size can't be greater than actual input size); allowed are data.patch_size "
            "from 24",
        ),
        (
            {"data.patch_size": 28, "discriminator.layout": "basicsr", "discriminator.norm": "spectral"},
            4,
            "discriminator.name=vgg cannot compute that (calculated padded input size per channel: (3 x 3). Kernel "
            "size: (4 x 4). Kernel size can't be greater than actual input size); allowed are data.patch_size from 32",
        ),
    ],
)
def test_what_cannot_be_computed_is_refused_with_what_can(
    changes: dict[str, Any], micro_batch: int, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        check(made(**changes), micro_batch)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    (patch,) = re.findall(r"data\.patch_size from (\d+)", message)
    check(made(**changes | {"data.patch_size": patch}), micro_batch)


def test_what_is_said_to_do_does() -> None:
    check(made(**BATCHNORM), 2)
    check(made(**BATCHNORM | {"discriminator.norm": "spectral"}), 1)
    check(made(**BATCHNORM | {"data.patch_size": 20}), 1)
    check(made(**{"data.patch_size": 4, "discriminator.norm": "none", "generator.norm": "none"}), 1)


def test_a_single_patch_in_the_global_batch_needs_a_larger_one() -> None:
    with pytest.raises(UserError, match=r"data\.patch_size from 20 or a larger data\.batch_size"):
        check(made(**BATCHNORM | {"data.batch_size": 1}), 1, per_rank_batch=1)


def test_batchnorm_over_several_ranks_has_the_patches_of_all() -> None:
    check(made(**BATCHNORM), 1, ranks=2)
    few = made(**BATCHNORM | {"data.batch_size": 2})
    with pytest.raises(UserError, match=r"^2 GPUs can train this, but what is predicted is one alone: data"):
        make_plan(few, memory=2**30, ranks=2, device="cuda")
    with pytest.raises(UserError, match=r"^data\.patch_size is 16"):
        make_plan(few, memory=2**30, ranks=2, device="cpu")


def test_advice_of_another_norm_is_not_given_where_another_network_fails_as_well() -> None:
    with pytest.raises(UserError) as caught:
        check(made(**BATCHNORM | VGG19 | {"data.patch_size": 8}), 1)
    assert "norm=" not in str(caught.value)


def test_pretraining_alone_asks_nothing_of_the_other_networks() -> None:
    check(made(**BATCHNORM | VGG19 | {"data.patch_size": 8, "train.steps": 5, "train.pretrain_steps": 5}), 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"generator.name": generator, "discriminator.name": discriminator, "loss.perceptual.network": network}
        for generator in ("srresnet", "rrdb", "msrresnet")
        for discriminator, network in (("vgg", "vgg19"), ("unet", "efficientnet_lite0"), ("patchgan", "vgg19"))
    ],
)
def test_every_network_computes_ordinary_patches(changes: dict[str, Any]) -> None:
    check(made(**{"loss.perceptual.weight": 1} | changes), 1)


def test_what_is_not_a_matter_of_sizes_is_not_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a fault of the program")

    with without_memory():
        networks = _Networks(made())
    monkeypatch.setattr(type(next(iter(networks._parts.values()))[0]), "forward", broken)
    with pytest.raises(RuntimeError, match="a fault of the program"):
        check(made(), 4)


def test_auto_stops_before_a_micro_batch_that_cannot_be_computed() -> None:
    config = made(**BATCHNORM)
    smallest = smallest_micro_batch(config, per_rank_batch=4, batchnorm_ranks=1)
    assert smallest == 2
    shared: dict[str, Any] = {"per_rank_batch": 4, "recompute": "none", "device": "cpu"}
    need = predict_bytes(config, micro_batch=2, **shared)
    found = largest_micro_batch(config, memory=1, smallest=smallest, **shared)
    assert found.micro_batch == 0
    assert found.bytes == pytest.approx(need, rel=0.1)
    micro_batch = MicroBatch(4, per_rank_batch=4, runtime=Runtime(threads=1, shares_memory_errors=True), smallest=2)
    micro_batch._shrink("full")
    assert micro_batch.size == 2
    with pytest.raises(Failure, match="with 2 patches at a time, and BatchNorm would have a single value for fewer"):
        micro_batch._shrink("full")


@pytest.mark.parametrize("command", ["train", "plan", "doctor"])
def test_it_is_told_before_anything_is_written(command: str, shards: Path, tmp_path: Path) -> None:
    changes = {"data.patch_size": 16, "data.micro_batch": 1, "discriminator.norm": "batch", "data.train": shards}
    arguments = options(changes | {"run.dir": tmp_path / "run"})
    extra = {"plan": ["--memory=4GiB"], "doctor": ["--json", str(tmp_path / "json")]}.get(command, [])
    if command == "plan":  # which asks for every micro-batch; of one patch there is only one
        arguments += ["--data.batch_size=1"]
    # `train` in a process of its own, since it ends with the stop signals ignored.
    done = (cli if command == "train" else call)(command, *extra, *arguments)
    assert not (tmp_path / "run").exists()
    told = done.err
    if command == "doctor":
        answers = json.loads((tmp_path / "json").read_text())
        (told,) = [answer["text"] for answer in answers if answer["verdict"] == "fail" and ONE_VALUE in answer["text"]]
        assert done.code == 1
    else:
        assert done.code == 2
        told = done.lines[-1]
    assert "data.patch_size is 16, with 1 patch at a time on a rank: discriminator.name=vgg" in told


def test_plan_and_doctor_pass_over_what_cannot_be_computed(shards: Path, tmp_path: Path) -> None:
    changes = {"data.patch_size": 16, "data.micro_batch": "auto", "discriminator.norm": "batch", "data.train": shards}
    arguments = options(changes | {"run.dir": tmp_path / "run"})
    done = call("plan", "--memory=2MiB", *arguments)
    assert done.code == 1
    assert "not even 2 patches at a time fit into" in done.err
    assert call("plan", "--memory=64GiB", *arguments).code == 0
    assert call("doctor", "--json", str(tmp_path / "json"), *arguments).code == 0
    (memory,) = [answer for answer in json.loads((tmp_path / "json").read_text()) if answer["name"] == "memory"]
    assert "for 2 patches at a time" in memory["text"]


@pytest.mark.slow
def test_two_ranks_train_batchnorm_on_the_smallest_patches(train: Train, tmp_path: Path) -> None:
    """DDP's buckets are built before the first batch, by an example that has to be computable as well."""
    done = train(tmp_path / "run", ranks=2, changes={"data.patch_size": 16, "discriminator.norm": "batch"})
    assert done.code == 0, done.err
