"""Damaged checkpoints: refused in one line, and the one before is used or can be named."""

from __future__ import annotations

import functools
import json
import random
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from srgan_dist.checkpointing.format import seal, usable
from srgan_dist.checkpointing.manager import Checkpoints
from srgan_dist.checkpointing.tensors import read_safetensors
from srgan_dist.config.compatibility import refuse_changes
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.training.build import build_collapse_response
from srgan_dist.training.build_step import build_schedule
from srgan_dist.training.gan_step import TwoPhases
from srgan_dist.training.saved_counters import load_state
from tests.fuzz.harness import fuzz, mutate, mutate_json, report
from tests.fuzz.tensors import mutate_tensors, write_mutated
from tests.training.tiny_step import SHARDS, tiny_config, tiny_state, tiny_step, update


@functools.cache
def machine() -> tuple[Runtime, TwoPhases]:
    runtime = Runtime(threads=1)
    return runtime, tiny_step(runtime)


def save_two(folder: Path) -> None:
    runtime, step = machine()
    checkpoints = Checkpoints(folder, keep=2, runtime=runtime)
    for number in (1, 2):
        checkpoints.save(number, tiny_state(step, runtime))
    checkpoints.wait()


def resume(checkpoints: Checkpoints, path: Path) -> None:
    """Use everything that a run uses that resumes from a checkpoint, and take a step."""
    runtime, step = machine()
    config = tiny_config()
    state = load_state(checkpoints, path)
    refuse_changes(state.counters["origin"], config, shards=SHARDS, step=state.counters["step"])
    with usable(path):
        step.load_networks(state)
    step.load_counters(state.counters)
    response = build_collapse_response(config, schedule=build_schedule(config, runtime=runtime), is_main=True)
    response.load(state.counters["stability"])
    response.state()
    runtime.set_rng_state(state.rng)
    update(step)


def damage_bytes(file: Path, rng: random.Random) -> None:
    file.write_bytes(mutate(file.read_bytes(), rng))


def damage_values(file: Path, rng: random.Random) -> None:
    """Leave a file of the right format with wrong content."""
    content: Any
    if file.suffix == ".json":
        content = mutate_json(json.loads(file.read_text()), rng)
        file.write_text(json.dumps(content))
    elif file.suffix == ".safetensors":
        write_mutated(file, read_safetensors(file), {}, rng)
    else:
        torch.save(mutate_tensors(torch.load(file), rng), file)


def one_of_two(source: Path, rng: random.Random, folder: Path) -> None:
    """Damage one file of the newer checkpoint, half of the times with a manifest that fits, and resume."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    checkpoints = Checkpoints(folder, keep=2, runtime=machine()[0])
    newest, older = checkpoints.path(2), checkpoints.path(1)
    file = rng.choice(sorted(newest.iterdir()))
    (damage_bytes if rng.random() < 0.5 else damage_values)(file, rng)
    if rng.random() < 0.5:
        (newest / "manifest.json").unlink()
        seal(newest)
    elif file.name != "manifest.json" and file.read_bytes() != (source / newest.name / file.name).read_bytes():
        assert checkpoints.newest() == older
    found = checkpoints.newest()
    assert found
    try:
        resume(checkpoints, found)
    finally:
        resume(checkpoints, older)


@pytest.mark.slow
def test_a_damaged_checkpoint_ends_in_one_line_and_the_one_before_is_used(tmp_path: Path) -> None:
    save_two(tmp_path)
    findings = fuzz(partial(one_of_two, tmp_path), cases=150)
    assert not findings, report(findings)
