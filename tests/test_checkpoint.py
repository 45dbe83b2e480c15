"""Complete or absent, and nothing that runs code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from srgan_dist.checkpoint import Checkpoints, NotSaved
from srgan_dist.errors import UserError
from srgan_dist.runtime import Runtime
from srgan_dist.snapshot import CheckpointError, Snapshot, verify


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime(threads=1)


def snapshot(value: float) -> Snapshot:
    return Snapshot(
        counters={"step": int(value), "tracker_id": None},
        weights={"generator": {"w": torch.full((2, 3), value)}},
        optimizers={"generator": {"state": {0: {"step": torch.tensor(value)}}, "param_groups": [{"lr": 0.1}]}},
        rng={"cpu": torch.get_rng_state()},
    )


def test_what_is_saved_comes_back(runtime: Runtime, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2, runtime=runtime)
    checkpoints.save(5, snapshot(5))
    newest = checkpoints.newest()
    assert newest == tmp_path / "step-000005"
    loaded = checkpoints.load(newest)
    assert loaded.counters == {"step": 5, "tracker_id": None, "world_size": 1}
    assert torch.equal(loaded.weights["generator"]["w"], torch.full((2, 3), 5.0))
    assert loaded.optimizers["generator"]["state"][0]["step"].item() == 5
    assert torch.equal(loaded.rng["cpu"], torch.get_rng_state())


def test_old_ones_go(runtime: Runtime, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2, runtime=runtime)
    for step in (1, 2, 10):
        checkpoints.save(step, snapshot(step))
    assert [path.name for path in checkpoints.found()] == ["step-000010", "step-000002"]


def test_every_damage_is_named(runtime: Runtime, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=9, runtime=runtime)
    checkpoints.save(1, snapshot(1))
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
        for damage in ("gone", "short", "flipped"):
            step += 1
            checkpoints.save(step, snapshot(step))
            path = tmp_path / f"step-{step:06d}" / name
            content = path.read_bytes()
            if damage == "gone":
                path.unlink()
            elif damage == "short":
                path.write_bytes(content[:-1])
            else:
                path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            with pytest.raises(CheckpointError, match=name):
                verify(path.parent)
            assert checkpoints.newest() == tmp_path / "step-000001"
            for file in path.parent.iterdir():
                file.unlink()
            path.parent.rmdir()


def test_an_unfinished_one_does_not_count(runtime: Runtime, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=9, runtime=runtime)
    checkpoints.save(1, snapshot(1))
    (tmp_path / ".tmp-step-000002").mkdir()
    (tmp_path / "step-000003").mkdir()
    assert checkpoints.newest() == tmp_path / "step-000001"


def test_a_pickle_that_runs_code_does_not(runtime: Runtime, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "executed",))

    checkpoints = Checkpoints(tmp_path, keep=9, runtime=runtime)
    checkpoints.save(1, snapshot(1))
    torch.save({"a": Bomb()}, tmp_path / "step-000001/optimizer_generator.pt")
    from srgan_dist import checkpoint as module

    (tmp_path / "step-000001/manifest.json").unlink()
    module._seal(tmp_path / "step-000001")  # an attacker can write a manifest, too
    with pytest.raises(UserError, match="step-000001: cannot be loaded"):
        checkpoints.load(tmp_path / "step-000001")
    assert not (tmp_path / "executed").exists()


def test_a_disk_that_cannot_be_written_leaves_the_old_ones(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1, runtime=runtime)
    checkpoints.save(1, snapshot(1))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("srgan_dist.checkpoint.sync_file", full)
    with pytest.raises(NotSaved, match="earlier ones are untouched"):
        checkpoints.save(2, snapshot(2))
    assert checkpoints.newest() == tmp_path / "step-000001"
