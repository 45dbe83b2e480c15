"""What a checkpoint holds is compared with what it is for, before any of it is used."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from srgan_dist.checkpointing.format import seal, usable
from srgan_dist.checkpointing.manager import Checkpoints
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.errors import UserError
from srgan_dist.training.gan_step import TwoPhases
from srgan_dist.training.saved_counters import load_state
from tests.training.tiny_step import tiny_state, tiny_step, update

Change = Callable[[Any], Any]


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime(threads=1)


@pytest.fixture(scope="module")
def step(runtime: Runtime) -> TwoPhases:
    return tiny_step(runtime)


@pytest.fixture
def checkpoints(runtime: Runtime, step: TwoPhases, tmp_path: Path) -> Checkpoints:
    """Two sound ones, of steps 1 and 2."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2, runtime=runtime)
    for number in (1, 2):
        checkpoints.save(number, tiny_state(step, runtime))
    checkpoints.wait()
    return checkpoints


def tamper(path: Path, change: Change) -> None:
    """Change a file of a checkpoint, with a manifest that fits: a digest proves no good will."""
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        path.write_text(json.dumps(change(content) or content))
    elif path.suffix == ".pt":
        content = torch.load(path)
        torch.save(change(content) or content, path)
    else:
        content = load_file(path)
        save_file(change(content) or content, path)
    (path.parent / "manifest.json").unlink()
    seal(path.parent)


def resume(checkpoints: Checkpoints, step: TwoPhases, path: Path) -> None:
    state = load_state(checkpoints, path)
    with usable(path):
        step.load_networks(state)


def of_first_moments(change: Callable[[dict[str, Any]], None]) -> Change:
    """Change AdamW's state of the first parameter, a convolution of [8, 3, 3, 3]."""

    def changed(content: Any) -> None:
        change(content["state"][0])

    return changed


def put(name: str, value: Any) -> Change:
    return of_first_moments(lambda moments: moments.update({name: value}))


def nested(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"": value}
    return value


def setting(value: Any, *keys: str) -> Change:
    """Put a value where keys lead to."""

    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


def weight(name: str, value: Callable[[Tensor], Tensor]) -> Change:
    return lambda content: content.update({name: value(content[name])})


FIRST = "of head.0.weight"
OPTIMIZER: dict[str, tuple[Change, str]] = {
    "shape": (put("exp_avg", torch.zeros(7)), rf"exp_avg {FIRST} is float32 \[7\], and must be float32 \[8, 3, 3, 3\]"),
    "larger": (put("exp_avg_sq", torch.zeros(800, 3, 3, 3)), rf"exp_avg_sq {FIRST} is float32 \[800, 3, 3, 3\]"),
    "int8": (put("exp_avg", torch.zeros(8, 3, 3, 3, dtype=torch.int8)), rf"exp_avg {FIRST} is int8 \[8, 3, 3, 3\]"),
    "complex": (put("exp_avg", torch.zeros(8, 3, 3, 3, dtype=torch.cfloat)), rf"exp_avg {FIRST} is complex64"),
    "double": (put("exp_avg_sq", torch.zeros(8, 3, 3, 3, dtype=torch.double)), rf"exp_avg_sq {FIRST} is float64"),
    "NaN": (put("exp_avg", torch.full((8, 3, 3, 3), math.nan)), rf"exp_avg {FIRST} is not finite"),
    "infinite": (put("exp_avg_sq", torch.full((8, 3, 3, 3), math.inf)), rf"exp_avg_sq {FIRST} is not finite"),
    "negative": (put("exp_avg_sq", torch.full((8, 3, 3, 3), -1.0)), rf"exp_avg_sq {FIRST} is negative"),
    "sparse": (put("exp_avg", torch.zeros(8, 3, 3, 3).to_sparse()), rf"exp_avg {FIRST} is no plain tensor"),
    "meta": (put("exp_avg", torch.zeros(8, 3, 3, 3, device="meta")), rf"exp_avg {FIRST} is no plain tensor"),
    "text": (put("exp_avg", "moment"), rf"exp_avg {FIRST} is no plain tensor"),
    "step NaN": (put("step", torch.tensor(math.nan)), f"step {FIRST} is not finite"),
    "step negative": (put("step", torch.tensor(-3.0)), f"step {FIRST} is -3, and must be a count"),
    "step half": (put("step", torch.tensor(1.5)), f"step {FIRST} is 1.5, and must be a count"),
    "step vector": (put("step", torch.zeros(3)), rf"step {FIRST} is float32 \[3\]"),
    "step number": (put("step", 1.0), f"step {FIRST} is no plain tensor"),
    "amsgrad": (put("max_exp_avg_sq", torch.zeros(8, 3, 3, 3)), "parameter 0 is not AdamW's"),
    "moment missing": (of_first_moments(lambda moments: moments.pop("exp_avg")), "parameter 0 is not AdamW's"),
    "unknown parameter": (lambda content: content["state"].update({99: {}}), "parameter 99 is not AdamW's"),
    "list": (lambda content: [content], "no state of an optimizer"),
}


@pytest.mark.parametrize("damage", OPTIMIZER)
def test_moments_that_do_not_fit_their_parameter_are_refused_and_the_older_checkpoint_is_used(
    checkpoints: Checkpoints, step: TwoPhases, damage: str
) -> None:
    change, told = OPTIMIZER[damage]
    newest = checkpoints.path(2)
    tamper(newest / "optimizer_generator.pt", change)
    before = {name: value.clone() for name, value in step.generator.network.state_dict().items()}
    with pytest.raises(UserError, match=told) as raised:
        resume(checkpoints, step, newest)
    message = str(raised.value)
    assert message.startswith(f"{newest}: cannot be used (optimizer_generator.pt: ")
    assert message.endswith("choose another checkpoint by run.resume")
    assert "\n" not in message
    assert all(torch.equal(value, before[name]) for name, value in step.generator.network.state_dict().items())
    resume(checkpoints, step, checkpoints.path(1))
    update(step)


WEIGHTS: dict[str, tuple[str, Change, str]] = {
    "int8": ("generator", weight("head.0.weight", lambda value: value.to(torch.int8)), "head.0.weight is int8"),
    "half": ("ema", weight("head.0.weight", Tensor.half), "head.0.weight is float16"),
    "NaN": ("ema", weight("head.0.weight", lambda value: value * math.nan), "head.0.weight is not finite"),
    "statistics": ("generator", weight("body_end.1.running_var", lambda value: value / 0), "running_var is not finite"),
}


@pytest.mark.parametrize("damage", WEIGHTS)
def test_weights_of_another_kind_are_refused(checkpoints: Checkpoints, step: TwoPhases, damage: str) -> None:
    name, change, told = WEIGHTS[damage]
    tamper(checkpoints.path(2) / f"{name}.safetensors", change)
    with pytest.raises(UserError, match=rf"step-000002: cannot be used \({name}\.safetensors: .*{told}"):
        resume(checkpoints, step, checkpoints.path(2))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            weight("head.0.weight", lambda value: value[:4].clone()),
            r"head.0.weight is \[4, 3, 3, 3\], the network's is",
        ),
        (lambda content: {"other": content["head.0.weight"]}, "lacks 'head.0.weight', and .* more names differ"),
        (lambda content: content | {"other": torch.zeros(1)}, "has an unknown 'other'"),
    ],
    ids=["shape", "missing", "unknown"],
)
def test_weights_of_another_network_are_a_matter_of_the_configuration(
    checkpoints: Checkpoints, step: TwoPhases, change: Change, told: str
) -> None:
    tamper(checkpoints.path(2) / "generator.safetensors", change)
    with pytest.raises(UserError, match=rf"does not fit this configuration \(generator.safetensors: {told}"):
        resume(checkpoints, step, checkpoints.path(2))


COUNTERS: dict[str, tuple[Change, str]] = {
    "text": (setting("7", "step"), "'step' Input should be a valid integer"),
    "bool": (setting(True, "consumed"), "'consumed' Input should be a valid integer"),
    "negative": (setting(-1, "averaged"), "'averaged' Input should be greater than or equal to 0"),
    "fraction": (setting(1.5, "discriminator_updates"), "'discriminator_updates'"),
    "huge": (setting(10**30, "consumed"), "'consumed' Input should be less than"),
    "missing": (lambda content: content.pop("seconds") and None, "'seconds' Field required"),
    "endless": (setting(math.inf, "seconds"), "'seconds' Input should be a finite number"),
    "flag": (setting(1, "stability", "pace", "paused"), "'stability.pace.paused' Input should be a valid boolean"),
    "list": (setting("0.5", "stability", "monitor", "recent"), "'stability.monitor.recent'"),
    "results": (setting({"final": 1}, "results"), "'results.final'"),
    "steps": (setting({}, "origin", "configuration", "train"), "lacks train.steps"),
    "depth": (setting(nested(300), "origin", "configuration", "run"), "nested too deeply"),
}


@pytest.mark.parametrize("damage", COUNTERS)
def test_counters_of_another_type_are_refused(checkpoints: Checkpoints, damage: str) -> None:
    change, told = COUNTERS[damage]
    tamper(checkpoints.path(2) / "state.json", change)
    with pytest.raises(UserError, match=rf"step-000002: cannot be used \(state\.json: .*{told}"):
        load_state(checkpoints, checkpoints.path(2))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda _: {"cpu": torch.zeros(9, dtype=torch.uint8)}, r"cpu is uint8 \[9\], and must be uint8"),
        (lambda content: {"cpu": content["cpu"].float()}, "cpu is float32"),
        (lambda content: {"cuda": content["cpu"]}, "lacks 'cpu'"),
        (lambda _: [1, 2], "no state dict of tensors"),
    ],
    ids=["size", "dtype", "missing", "list"],
)
def test_a_random_state_of_another_kind_is_refused(checkpoints: Checkpoints, change: Change, told: str) -> None:
    tamper(checkpoints.path(2) / "rng-00000.pt", change)
    with pytest.raises(UserError, match=rf"step-000002: cannot be loaded \(rng-00000\.pt: {told}"):
        load_state(checkpoints, checkpoints.path(2))


def test_options_of_the_optimizer_are_the_configurations_alone(checkpoints: Checkpoints, step: TwoPhases) -> None:
    """An ``amsgrad`` from a file would make the next update look for moments that are not there."""

    def change(content: Any) -> None:
        content["param_groups"][0] |= {"amsgrad": True, "maximize": True, "fused": False, "eps": "1"}

    tamper(checkpoints.path(2) / "optimizer_generator.pt", change)
    resume(checkpoints, step, checkpoints.path(2))
    update(step)
