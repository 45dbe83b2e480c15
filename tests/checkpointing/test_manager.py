"""Complete or absent, and nothing that runs code."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from srgan_dist.checkpointing import manager as module
from srgan_dist.checkpointing.format import CheckpointError, TrainingState, seal, verify
from srgan_dist.checkpointing.manager import Checkpoints, NotSaved
from srgan_dist.checkpointing.weights import WeightsFile, load_weights
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.errors import UserError
from srgan_dist.utils.files import sync_file
from tests.conftest import options
from tests.ranks.faults import Ended, on_ranks, train_and_die


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime(threads=1)


def state_at(value: float) -> TrainingState:
    return TrainingState(
        counters={"step": int(value), "tracker_id": None},
        weights={"generator": {"w": torch.full((2, 3), value)}},
        optimizers={"generator": {"state": {0: {"step": torch.tensor(value)}}, "param_groups": [{"lr": 0.1}]}},
        rng={"cpu": torch.get_rng_state()},
    )


def test_what_is_saved_comes_back(runtime: Runtime, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2, runtime=runtime)
    state = state_at(5)
    checkpoints.save(5, state)
    state.weights["generator"]["w"].zero_()  # training goes on
    state.optimizers["generator"]["state"][0]["step"].zero_()
    state.counters["step"] = 6
    newest = checkpoints.newest()
    assert newest == tmp_path / "step-000005"
    loaded = checkpoints.load(newest)
    assert loaded.counters == {"step": 5, "tracker_id": None, "world_size": 1}
    assert torch.equal(loaded.weights["generator"]["w"], torch.full((2, 3), 5.0))
    assert loaded.optimizers["generator"]["state"][0]["step"].item() == 5
    assert torch.equal(loaded.rng["cpu"], torch.get_rng_state())


def test_only_the_newest_checkpoints_are_kept(runtime: Runtime, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2, runtime=runtime)
    for step in (1, 2, 10):
        checkpoints.save(step, state_at(step))
    checkpoints.wait()
    assert [path.name for path in checkpoints.found()] == ["step-000010", "step-000002"]


def test_every_damage_is_named(runtime: Runtime, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=9, runtime=runtime)
    checkpoints.save(1, state_at(1))
    checkpoints.wait()
    names = [path.name for path in (tmp_path / "step-000001").iterdir()]
    assert sorted(names) == [
        "generator.safetensors",
        "manifest.json",
        "optimizer_generator.pt",
        "rng-00000.pt",
        "state.json",
    ]
    step = 1
    for name in names:
        for damage in ("gone", "short", "flipped", "a pipe"):
            step += 1
            checkpoints.save(step, state_at(step))
            checkpoints.wait()
            path = tmp_path / f"step-{step:06d}" / name
            content = path.read_bytes()
            if damage == "gone":
                path.unlink()
            elif damage == "short":
                path.write_bytes(content[:-1])
            elif damage == "a pipe":  # to read it would be to wait for ever
                path.unlink()
                os.mkfifo(path)
            else:
                path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            with pytest.raises(CheckpointError, match=name):
                verify(path.parent)
            assert checkpoints.newest() == tmp_path / "step-000001"
            for file in path.parent.iterdir():
                file.unlink()
            path.parent.rmdir()


def test_every_flipped_bit_of_a_manifest_is_seen(runtime: Runtime, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=9, runtime=runtime)
    checkpoints.save(1, state_at(1))
    checkpoints.wait()
    manifest = tmp_path / "step-000001/manifest.json"
    content = manifest.read_bytes()
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        manifest.write_bytes(damaged)
        with pytest.raises(CheckpointError) as raised:
            verify(manifest.parent)
        assert len(str(raised.value).splitlines()) == 1
        assert "step-000001" in str(raised.value)


MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no files": (lambda content: content | {"files": {}}, "manifest.json does not list generator.safetensors"),
    "files gone": (lambda _: {"version": 2}, "manifest.json is missing or damaged"),
    "another key": (lambda content: {"version": 2, "filez": content["files"]}, "manifest.json is missing or damaged"),
    "an extra key": (lambda content: content | {"more": 1}, "manifest.json is missing or damaged"),
    "a list": (lambda content: [content], "manifest.json is missing or damaged"),
    "files as a list": (lambda content: content | {"files": [content["files"]]}, "manifest.json is missing or damaged"),
    "version as a text": (lambda content: content | {"version": "2"}, "manifest.json is missing or damaged"),
    "an entry's key": (lambda content: entry(content, "state.json", {"bytes": 1, "sha": ""}), "missing or damaged"),
    "an entry's type": (lambda content: entry(content, "state.json", {"bytes": "1", "sha256": ""}), "or damaged"),
    "an entry as a number": (lambda content: entry(content, "state.json", 7), "manifest.json is missing or damaged"),
    "another file": (lambda content: entry(content, "more.pt", {"bytes": 1, "sha256": ""}), "more.pt is missing"),
    "a file elsewhere": (lambda content: entry(content, "../x", {"bytes": 1, "sha256": ""}), "missing or damaged"),
    "a name with NUL": (lambda content: entry(content, "\0", {"bytes": 1, "sha256": ""}), "missing or damaged"),
    "deep": (lambda content: content | {"files": "DEEP"}, "manifest.json is missing or damaged"),
}


def entry(content: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    return content | {"files": content["files"] | {name: value}}


@pytest.mark.parametrize("damage", MANIFESTS)
def test_a_manifest_of_another_kind_is_named_and_the_checkpoint_before_is_used(
    runtime: Runtime, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    checkpoints = two(runtime, tmp_path)
    manifest = tmp_path / "step-000002/manifest.json"
    change, told = MANIFESTS[damage]
    text = json.dumps(change(json.loads(manifest.read_text())))
    manifest.write_text(text.replace('"DEEP"', "[" * 100_000))
    assert checkpoints.newest() == tmp_path / "step-000001"
    (line,) = caplog.messages
    assert told in line
    assert line.startswith(f"{tmp_path}/step-000002")
    assert line.endswith(": trying an older checkpoint")
    assert "\n" not in line


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "optimizer_generator.pt", "generator.safetensors"])
def test_a_file_that_the_disk_cannot_read_is_named_and_the_checkpoint_before_is_used(
    runtime: Runtime, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    checkpoints = two(runtime, tmp_path)
    path = tmp_path / "step-000002" / name
    path.unlink()
    path.symlink_to("/proc/self/mem")  # has no byte to say, and answers a reader with EIO
    if name != "manifest.json":
        manifest = path.with_name("manifest.json")
        content = json.loads(manifest.read_text())
        content["files"][name]["bytes"] = 0
        manifest.write_text(json.dumps(content))
    assert checkpoints.newest() == tmp_path / "step-000001"
    assert caplog.messages == [f"{path} cannot be read (Input/output error): trying an older checkpoint"]
    with pytest.raises(UserError, match=r"cannot be read \(Input/output error\): choose another .* by run\.resume"):
        checkpoints.load(path.parent)


def two(runtime: Runtime, folder: Path) -> Checkpoints:
    """Checkpoints of steps 1 and 2."""
    checkpoints = Checkpoints(folder, keep=9, runtime=runtime)
    checkpoints.save(1, state_at(1))
    checkpoints.save(2, state_at(2))
    checkpoints.wait()
    return checkpoints


def test_equal_states_are_equal_bytes_which_others_may_read(runtime: Runtime, tmp_path: Path) -> None:
    """Also of weights, whose metadata safetensors orders at random; a file's permissions are the umask's."""
    facts = {f"fact {number}": str(number) for number in range(20)}
    contents = []
    umask = os.umask(0o027)
    try:
        for name in ("a", "b"):
            checkpoints = Checkpoints(tmp_path / name, keep=1, runtime=runtime)
            state = state_at(1)
            weights = WeightsFile(tmp_path / name / "generator.safetensors", state.weights["generator"], facts)
            checkpoints.save(1, state, [weights])
            checkpoints.wait()
            files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
            contents.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
            assert {oct(path.stat().st_mode & 0o777) for path in files} == {oct(0o640)}
            facts = dict(reversed(facts.items()))
    finally:
        os.umask(umask)
    assert contents[0] == contents[1]
    assert len(contents[0]) == 6
    assert load_weights(tmp_path / "a/generator.safetensors")[1] == facts


def test_a_checkpoint_is_found_only_when_what_was_logged_before_is_on_the_disk(
    runtime: Runtime, tmp_path: Path
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1, runtime=runtime)
    found: list[list[Path]] = []
    checkpoints.save(1, state_at(1), sync_records=lambda: found.append(checkpoints.found()))
    checkpoints.wait()
    assert found == [[]]
    assert checkpoints.found()


def test_an_unfinished_one_does_not_count(runtime: Runtime, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=9, runtime=runtime)
    checkpoints.save(1, state_at(1))
    (tmp_path / ".tmp-step-000002").mkdir()
    (tmp_path / "step-000003").mkdir()
    assert checkpoints.newest() == tmp_path / "step-000001"


def test_damaged_ones_alone_are_no_reason_to_begin_anew(runtime: Runtime, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=9, runtime=runtime)
    assert checkpoints.newest() is None
    checkpoints.save(1, state_at(1))
    checkpoints.wait()
    (tmp_path / "step-000001/state.json").unlink()
    with pytest.raises(UserError, match=r"none of the checkpoints there is sound; .* run\.resume=never"):
        checkpoints.newest()


def test_one_of_another_version_is_told(runtime: Runtime, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=9, runtime=runtime)
    checkpoints.save(1, state_at(1))
    checkpoints.wait()
    manifest = tmp_path / "step-000001/manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 2', '"version": 1'))
    with pytest.raises(UserError, match="has version 1, but this srgan-dist reads version 2"):
        checkpoints.load(manifest.parent)


@pytest.mark.parametrize("name", ["optimizer_generator.pt", "rng-00000.pt"])
def test_a_pickle_that_runs_code_does_not(runtime: Runtime, tmp_path: Path, name: str) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "executed",))

    checkpoints = Checkpoints(tmp_path, keep=9, runtime=runtime)
    checkpoints.save(1, state_at(1))
    checkpoints.wait()
    torch.save({"a": Bomb()}, tmp_path / "step-000001" / name)
    (tmp_path / "step-000001/manifest.json").unlink()
    seal(tmp_path / "step-000001")  # an attacker can write a manifest, too
    with pytest.raises(UserError, match="step-000001: cannot be loaded"):
        checkpoints.load(tmp_path / "step-000001")
    assert not (tmp_path / "executed").exists()
    torch.load(tmp_path / "step-000001" / name, weights_only=False)
    assert (tmp_path / "executed").exists()  # it was a live one


def test_training_goes_on_while_the_disk_is_slow(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, asked = threading.Event(), threading.Event()

    def slow(path: Path) -> None:
        asked.set()
        assert disk.wait(30)
        sync_file(path)

    monkeypatch.setattr(module, "sync_file", slow)
    checkpoints = Checkpoints(tmp_path, keep=9, runtime=runtime)
    checkpoints.save(1, state_at(1))
    assert asked.wait(30)
    for _ in range(3):  # steps
        checkpoints.poll()
    assert not checkpoints.found()
    disk.set()
    checkpoints.wait()
    assert checkpoints.newest() == tmp_path / "step-000001"


def test_a_process_that_is_told_to_stop_does_not_wait_for_the_disk(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    begun, given_up = threading.Event(), threading.Event()

    def first_is_slow(path: Path) -> None:
        written.append(path.name)
        begun.set()
        assert given_up.wait(30)

    monkeypatch.setattr(module, "sync_file", first_is_slow)
    checkpoints = Checkpoints(tmp_path, keep=9, runtime=runtime)
    checkpoints.save(1, state_at(1))
    assert begun.wait(30)
    checkpoints.give_up()
    given_up.set()
    checkpoints.wait()
    assert not checkpoints.found()
    assert len(written) == 1


def fail_on_the_second_rank(folder: Path) -> None:
    """Both ranks save and take steps; the second one's disk fails. Each notes at which step it was told."""
    runtime = Runtime(threads=1)
    assert runtime.world_size == 2
    checkpoints = Checkpoints(folder / "checkpoints", keep=1, runtime=runtime)
    checkpoints.save(1, state_at(1))
    checkpoints.wait()
    if runtime.rank == 1:
        pytest.MonkeyPatch().setattr(module, "sync_file", full_disk)
    checkpoints.save(2, state_at(2))
    with contextlib.suppress(NotSaved):
        for step in range(3, 1000):
            (folder / f"rank{runtime.rank}").write_text(str(step))
            checkpoints.poll()
            runtime.barrier()
    runtime.barrier()  # the first rank has cleaned up
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-000001"]


def load_where_the_second_rank_cannot(folder: Path) -> None:
    runtime = Runtime(threads=1)
    checkpoints = Checkpoints(folder / "checkpoints", keep=1, runtime=runtime)
    checkpoints.save(1, state_at(1))
    checkpoints.wait()
    step = checkpoints.path(1)
    if runtime.is_main:
        torch.save({"cpu": torch.zeros(9)}, step / "rng-00001.pt")
        (step / "manifest.json").unlink()
        seal(step)
    runtime.barrier()
    with pytest.raises(UserError, match=r"step-000001: cannot be loaded \(rng-00001\.pt: cpu is float32 \[9\]"):
        checkpoints.load(step)
    runtime.barrier()


@pytest.mark.slow
def test_a_random_state_that_one_rank_cannot_use_stops_all(tmp_path: Path) -> None:
    done = on_ranks(load_where_the_second_rank_cannot, tmp_path, ranks=2)
    assert [rank.code for rank in done] == [0, 0], done


def full_disk(path: Path) -> None:
    raise OSError(28, "No space left on device", str(path))


@pytest.mark.slow
def test_a_failure_on_one_rank_ends_all_at_the_same_step(tmp_path: Path) -> None:
    done = on_ranks(fail_on_the_second_rank, tmp_path, ranks=2)
    assert [rank.code for rank in done] == [0, 0], done
    steps = [int((tmp_path / f"rank{rank}").read_text()) for rank in range(2)]
    assert steps[0] == steps[1] < 999
    assert "rng-00001.pt: cannot be written (No space left on device)" in done[1].err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, *, free: int) -> None:
    disk = os.statvfs(folder)
    (folder / "ballast").write_bytes(bytes(max(0, disk.f_bavail * disk.f_frsize - free)))


def test_a_disk_that_is_full_at_any_moment_leaves_the_old_ones(
    runtime: Runtime, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = state_at(1)
    state.weights["generator"]["w"] = torch.ones(10_000)
    state.optimizers["generator"]["moments"] = torch.ones(20_000)
    weights = WeightsFile(small_disk / "weights/generator.safetensors", state.weights["generator"], {})
    checkpoints = Checkpoints(small_disk / "checkpoints", keep=1, runtime=runtime)
    checkpoints.save(1, state, [weights])
    checkpoints.wait()
    told = set()
    for free in range(0, 160_000, 8192):
        fill(small_disk, free=free)
        caplog.clear()
        checkpoints.save(2, state, [weights])
        with pytest.raises(NotSaved, match="checkpoint of step 2 could not be written; earlier ones are untouched"):
            checkpoints.wait()
        (line,) = caplog.messages
        assert "No space left on device" in line
        told.add(line.partition(": cannot be written (")[0].rpartition("/")[2])
        assert [path.name for path in checkpoints.folder.iterdir()] == ["step-000001"]
        assert checkpoints.load(small_disk / "checkpoints/step-000001").weights["generator"]["w"].sum() == 10_000
        assert load_weights(weights.path)[0]["w"].sum() == 10_000
        (small_disk / "ballast").unlink()
    assert told >= {"rng-00000.pt", "generator.safetensors", "optimizer_generator.pt"}
    checkpoints.save(2, state, [weights])
    assert checkpoints.newest() == small_disk / "checkpoints/step-000002"


def test_a_run_that_filled_the_disk_goes_on_when_there_is_room(shards: Path, small_disk: Path, tmp_path: Path) -> None:
    def start(folder: Path, steps: int) -> Ended:
        changes = {"run.dir": folder, "data.train": shards, "loss.perceptual.weight": 0, "checkpoint.every": 2}
        changes |= {"train.steps": steps}
        (done,) = on_ranks(train_and_die, options(changes), None)
        assert "Traceback" not in done.err
        return done

    assert start(small_disk / "run", 4).code == 0
    fill(small_disk, free=6_000_000)
    done = start(small_disk / "run", 8)
    assert done.code == 1, done.err
    assert "No space left on device" in done.err
    # Either file may be the first that no longer fits: a checkpoint's, or a line of metrics.
    last = done.err.splitlines()[-1]
    assert "could not be written; earlier ones are untouched" in last or "free some space and start again" in last
    (small_disk / "ballast").unlink()
    done = start(small_disk / "run", 8)
    assert done.code == 0, done.err
    assert "resumes after step 4 of 8" in done.err
    assert start(tmp_path / "whole", 8).code == 0
    for name in ("generator", "discriminator", "ema"):
        file = f"checkpoints/step-000008/{name}.safetensors"
        assert (small_disk / "run" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
