"""Memory that a container or a Slurm job may take, in a real control group."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from srgan_dist.distributed.memory import available_ram
from tests.conftest import ROOT, Finished, options, run

MIB = 2**20
Within = Callable[..., Finished]


@pytest.fixture
def within() -> Iterator[Within]:
    """Runs a command in a control group of its own with so many MiB."""
    root = Path("/sys/fs/cgroup")
    first = (root / "memory").exists()
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = next(line.split(":")[2] for line in lines if line.split(":")[1] == ("memory" if first else ""))
    root = root / "memory" if first else root
    parent = root / own.lstrip("/") if (root / own.lstrip("/")).exists() else root
    group = parent / f"srgan-dist-test-{os.getpid()}"
    limit = group / ("memory.limit_in_bytes" if first else "memory.max")
    try:
        group.mkdir()
        if not limit.exists():
            raise OSError("without a memory controller")
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        pytest.skip(f"no control group can be made here: {error}")

    def start(mib: int, *command: str) -> Finished:
        limit.write_text(str(mib * MIB))
        join = f"echo $$ > {group}/cgroup.procs && exec "
        return run("sh", "-c", join + '"$@"', "sh", *command, PYTHONPATH=str(ROOT))

    yield start
    group.rmdir()


def test_the_machines_is_the_most() -> None:
    assert 0 < available_ram() <= psutil.virtual_memory().total


def test_a_groups_limit_counts(within: Within) -> None:
    script = "from srgan_dist.distributed.memory import available_ram; print(available_ram())"
    done = within(200, sys.executable, "-c", script)
    assert done.code == 0, done.err
    assert 100 * MIB < int(done.out) < 200 * MIB
    held = within(200, sys.executable, "-c", f"held = bytearray(80 * {MIB}); {script}")
    assert int(done.out) - 90 * MIB < int(held.out) < int(done.out) - 70 * MIB


@pytest.mark.slow
def test_auto_takes_what_fits_into_the_group(large_shards: Path, tmp_path: Path, within: Within) -> None:
    config = {
        "run.dir": tmp_path / "run",
        "data.train": large_shards,
        "data.patch_size": 128,
        "data.batch_size": 16,
        "data.micro_batch": "auto",
        "generator.channels": 32,
        "generator.blocks": 8,
        "generator.norm": "group",
        "discriminator.channels": 16,
        "loss.perceptual.weight": 0,
        "train.steps": 2,
        "train.pretrain_steps": 0,
        "tracker.name": "none",
        "log.every": 1,
    }
    command = (sys.executable, "train.py", *options(config))
    done = within(800, *command)
    assert done.code == 0, done.err
    found = re.search(r"global batch of 16 = (\d+) x (\d+) micro-batches x 1 ranks", done.err)
    assert found, done.err
    assert 1 <= int(found[1]) < 16
    assert int(found[1]) * int(found[2]) == 16
