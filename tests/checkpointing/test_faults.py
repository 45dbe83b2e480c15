"""Killed at any moment, on any rank: what was saved is complete, and the run ends as if nothing had happened."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch

from srgan_dist.checkpointing.format import TrainingState, verify
from srgan_dist.checkpointing.manager import Checkpoints
from srgan_dist.checkpointing.weights import WeightsFile, load_weights
from srgan_dist.distributed.runtime import Runtime
from tests.conftest import launch, metrics, options
from tests.ranks.faults import Kill, on_ranks, train_and_die, watch

KILLED = -signal.SIGKILL


def state_at(step: int) -> TrainingState:
    tensor = torch.full((50, 50), float(step))
    rng = {"cpu": torch.get_rng_state(), "step": tensor}
    return TrainingState({"step": step}, {"generator": {"w": tensor}}, {"generator": {"state": tensor}}, rng)


def save_steps(folder: Path, steps: list[int], kill: Kill | None, seen: Path | None = None) -> None:
    """Save one after the other, as the trainer does: each is written while others go on."""
    runtime = Runtime(threads=1)
    checkpoints = Checkpoints(folder / "checkpoints", keep=1, runtime=runtime)
    events = watch(kill, rank=runtime.rank)
    for step in steps:
        weights = WeightsFile(folder / "weights/generator.safetensors", state_at(step).weights["generator"], {})
        checkpoints.save(step, state_at(step), [weights])
        checkpoints.poll()
    checkpoints.wait()
    if seen:
        seen.write_text(json.dumps(events))


def expect_whole(folder: Path, steps: set[int], *, ranks: int = 1) -> None:
    """There is a newest checkpoint of one of the steps, and every file is one step's."""
    checkpoints = Checkpoints(folder / "checkpoints", keep=1, runtime=Runtime(threads=1))
    newest = checkpoints.newest()
    assert newest
    loaded = checkpoints.load(newest)
    step = loaded.counters["step"]
    assert step in steps
    assert loaded.counters["world_size"] == ranks
    assert newest.name == f"step-{step:06d}"
    for tensor in (loaded.weights["generator"]["w"], loaded.optimizers["generator"]["state"], loaded.rng["step"]):
        assert torch.equal(tensor, torch.full((50, 50), float(step)))
    for other in checkpoints.found():
        verify(other)
    weights, _ = load_weights(folder / "weights/generator.safetensors")
    assert weights["w"].unique().tolist() in [[2.0], [3.0]]
    checkpoints.save(9, state_at(9))
    checkpoints.wait()
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-000009"]  # and nothing is left of the dead


def test_a_kill_at_every_touch_of_the_disk(tmp_path: Path) -> None:
    (done,) = on_ranks(save_steps, tmp_path / "whole", [2, 3], None, tmp_path / "seen.json")
    assert done.code == 0, done.err
    events: list[str] = json.loads((tmp_path / "seen.json").read_text())
    first = events.index("mkdir .tmp-step-000003")
    protocol = [
        *("mkdir .tmp-step-000003", "write rng-00000.pt", "fsync rng-00000.pt"),
        *("write generator.safetensors", "halfway generator.safetensors", "write optimizer_generator.pt"),
        *("write state.json", "replace .generator.safetensors.tmp", "write manifest.json", "fsync manifest.json"),
        *("fsync .tmp-step-000003", "rename .tmp-step-000003", "fsync checkpoints", "rename step-000002"),
        *("unlink manifest.json", "rmdir .old-step-000002"),
    ]
    order = [events.index(event, first) for event in protocol]
    assert order == sorted(order)
    published = events.index("rename .tmp-step-000003")
    for index in range(first, len(events)):
        kill = Kill(events[index], events[: index + 1].count(events[index]))
        folder = tmp_path / f"killed-{index}"
        (done,) = on_ranks(save_steps, folder, [2, 3], kill)
        assert done.code == KILLED, done.err
        expect_whole(folder, {2} if index <= published else {3})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kill", "steps"),
    [
        (Kill("mkdir .tmp-step-000003"), {2}),
        (Kill("halfway optimizer_generator.pt", 2), {2}),
        (Kill("write manifest.json", 2), {2}),
        (Kill("rename .tmp-step-000003"), {2}),
        (Kill("fsync checkpoints", 2), {3}),
        (Kill("unlink manifest.json"), {3}),
        (Kill("write rng-00001.pt", 2, rank=1), {2}),
        (Kill("halfway rng-00001.pt", 2, rank=1), {2}),
        (Kill("fsync rng-00001.pt", 2, rank=1), {2}),
    ],
    ids=str,
)
def test_a_kill_of_one_of_two_ranks(tmp_path: Path, kill: Kill, steps: set[int]) -> None:
    done = on_ranks(save_steps, tmp_path, [2, 3], kill, ranks=2)
    assert done[kill.rank].code == KILLED, done
    assert done[1 - kill.rank].code not in (0, None)  # told by the other's silence, and not for ever waiting
    expect_whole(tmp_path, steps, ranks=2)


TIMED = ("perf/", "time", "hours")
EVERY_OTHER = {"checkpoint.every": 2, "checkpoint.keep": 1, "train.steps": 6}
POINTS = {
    "before anything is written": Kill("mkdir .tmp-step-000004"),
    "in the middle of a file": Kill("halfway optimizer_discriminator.pt", 2),
    "before the agreement": Kill("fsync state.json", 2),
    "before the manifest": Kill("write manifest.json", 2),
    "before the rename": Kill("rename .tmp-step-000004"),
    "before pruning": Kill("rename step-000002"),
    "while pruning": Kill("unlink ema.safetensors"),
}


def saved(folder: Path) -> dict[str, str]:
    """Digests of the last checkpoint's files; state.json holds times and paths."""
    (newest,) = sorted((folder / "checkpoints").glob("step-*"))
    files = json.loads((newest / "manifest.json").read_text())["files"]
    return {name: entry["sha256"] for name, entry in files.items() if name != "state.json"}


def arguments(folder: Path, shards: Path, validation: Path) -> list[str]:
    return options({"run.dir": folder, "data.train": shards, "data.validation": validation} | EVERY_OTHER)


def train_and_note(arguments: list[str], seen: Path) -> None:
    events = watch(None)
    try:
        train_and_die(arguments, None)
    finally:
        seen.write_text(json.dumps(events))


def test_what_a_run_says_is_on_the_disk_before_the_checkpoint_that_follows_it(shards: Path, tmp_path: Path) -> None:
    changes = {"run.dir": tmp_path / "run", "data.train": shards, "loss.perceptual.weight": 0, "checkpoint.every": 3}
    (done,) = on_ranks(train_and_note, options(changes), tmp_path / "seen.json")
    assert done.code == 0, done.err
    events: list[str] = json.loads((tmp_path / "seen.json").read_text())
    first, second = events.index("rename .tmp-step-000003"), events.index("rename .tmp-step-000006")
    assert "fsync .config.yaml.tmp" in events[:first]
    for begin, end in ((0, first), (first, second)):
        assert events[begin:end].count("fsync metrics.jsonl") == 1
    assert events.index("fsync .result.json.tmp") < events.index("replace .result.json.tmp")


@pytest.fixture(scope="module")
def whole(shards: Path, validation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    (done,) = on_ranks(train_and_die, arguments(folder, shards, validation), None)
    assert done.code == 0, done.err
    return folder


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_run_ends_like_the_undisturbed_one(
    whole: Path, shards: Path, validation: Path, tmp_path: Path, point: str
) -> None:
    command = arguments(tmp_path / "run", shards, validation)
    (killed,) = on_ranks(train_and_die, command, POINTS[point])
    assert killed.code == KILLED, killed.err
    assert not (tmp_path / "run/result.json").exists()
    (done,) = on_ranks(train_and_die, command, None)
    assert done.code == 0, done.err
    assert saved(tmp_path / "run") == saved(whole)
    for first, second in zip(metrics(tmp_path / "run"), metrics(whole), strict=True):
        assert first.keys() == second.keys()
        for key in first:
            assert first[key] == second[key] or key.startswith(TIMED), key


@pytest.fixture(scope="module")
def whole_of_two(shards: Path, validation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = on_ranks(train_and_die, arguments(folder, shards, validation), None, ranks=2)
    assert [rank.code for rank in done] == [0, 0], done
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "kill", [Kill("rename .tmp-step-000004"), Kill("halfway rng-00001.pt", 2, rank=1)], ids=["rank 0", "rank 1"]
)
def test_two_launched_ranks_end_like_undisturbed_ones(
    whole_of_two: Path, shards: Path, validation: Path, tmp_path: Path, kill: Kill
) -> None:
    command = arguments(tmp_path / "run", shards, validation)
    killed = launch(2, "tests/ranks/faults.py", str(kill.rank), kill.event, str(kill.number), *command)
    assert killed.code != 0
    assert "Signal 9 (SIGKILL)" in killed.err
    done = on_ranks(train_and_die, command, None, ranks=2)
    assert [rank.code for rank in done] == [0, 0], done
    assert "2 ranks" in done[0].err
    assert "resumes after step 2 of 6" in done[0].err
    assert "rng-00001.pt" in saved(whole_of_two)
    assert saved(tmp_path / "run") == saved(whole_of_two)
