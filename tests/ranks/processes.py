"""Trainings in processes of their own that a test watches, signals and kills."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.conftest import ROOT, environment, metrics

PROGRAMS = Path(sys.executable).parent


def start(ranks: int, arguments: Sequence[str], *, launched: bool = False, **extra: str) -> subprocess.Popen[str]:
    """A training in a process group of its own, as a shell or a cluster starts it.

    Args:
        ranks: Its processes; several are started by ``accelerate launch``.
        arguments: Of train.py.
        launched: One process is so, too.
        extra: Environment variables.
    """
    launcher: list[str | Path] = [PROGRAMS / "accelerate", "launch", "--main_process_port", "0", "--config_file"]
    launcher += [ROOT / "launch/accelerate/cpu_two_ranks.yaml", "--num_processes", str(ranks), "train.py"]
    program: list[str | Path] = launcher if launched or ranks > 1 else [PROGRAMS / "srgan-dist", "train"]
    return _process(program, arguments, **extra)


@contextmanager
def started_like_slurm(ranks: int, arguments: Sequence[str]) -> Iterator[list[subprocess.Popen[str]]]:
    """Ranks without a launcher, each told by its environment which it is; killed after the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1"}
    common |= {"MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    processes = [
        _process([PROGRAMS / "srgan-dist", "train"], arguments, **common, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank in range(ranks)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _process(command: Sequence[str | Path], arguments: Sequence[str], **extra: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*map(str, command), *arguments],
        cwd=ROOT,
        env=environment(**extra),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_steps(folder: Path, steps: int, process: subprocess.Popen[str]) -> None:
    """Wait until a run has logged so many steps."""
    deadline = time.monotonic() + 90
    while not (folder / "metrics.jsonl").exists() or len(metrics(folder)) < steps:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def left_behind(group: int) -> list[psutil.Process]:
    """Processes of a group that still run."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, ProcessLookupError):
            continue
    return found
