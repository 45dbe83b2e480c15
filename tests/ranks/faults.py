"""Dies of SIGKILL at a chosen touch of the disk, as a machine may at any moment.

python faults.py RANK EVENT NUMBER --section.key=value ...      trains, and that rank dies just before the event

An event is a verb and a file's name: write, halfway (half of the file is there), fsync, rename, replace, mkdir, unlink,
rmdir; it is met NUMBER times. The program is unchanged: only Python's and the libraries' functions are wrapped.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from srgan_dist.checkpointing import format as state_format
from srgan_dist.checkpointing import weights


@dataclass(frozen=True)
class Kill:
    """Where a rank dies."""

    event: str
    number: int = 1
    rank: int = 0


def watch(kill: Kill | None, *, rank: int = 0) -> list[str]:
    """Note every event from now on, and die at the one that is named. Returns the list, which grows."""
    seen: list[str] = []
    counts: Counter[str] = Counter()

    def dies_at(event: str) -> bool:
        seen.append(event)
        counts[event] += 1
        return kill is not None and kill.rank == rank and (event, counts[event]) == (kill.event, kill.number)

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def before(owner: Any, name: str, verb: str, path_of: Callable[..., Path]) -> None:
        original = getattr(owner, name)

        def wrapped(*args: Any, **options: Any) -> Any:
            path = path_of(*args)
            if dies_at(f"{verb} {path.name}"):
                die()
            result = original(*args, **options)
            if verb == "write" and dies_at(f"halfway {path.name}"):
                os.truncate(path, path.stat().st_size // 2)
                die()
            return result

        setattr(owner, name, wrapped)

    before(torch, "save", "write", lambda _, file: Path(file.name))
    before(state_format, "write_safetensors", "write", lambda path, *_: path)
    before(weights, "write_safetensors", "write", lambda path, *_: path)
    before(Path, "write_text", "write", lambda path, *_: path)
    before(os, "fsync", "fsync", lambda descriptor: Path(f"/proc/self/fd/{descriptor}").readlink())
    before(Path, "rename", "rename", lambda path, _: path)
    before(Path, "replace", "replace", lambda path, _: path)
    before(Path, "mkdir", "mkdir", lambda path, *_: path)
    before(os, "unlink", "unlink", lambda path: Path(path))
    before(os, "rmdir", "rmdir", lambda path: Path(path))
    return seen


@dataclass(frozen=True)
class Ended:
    """What a rank left: its exit code (None where it had to be ended), and what it said on stderr."""

    code: int | None
    err: str


def on_ranks(function: Callable[..., None], *arguments: Any, ranks: int = 1) -> list[Ended]:
    """Run a function on new ranks. A server that has loaded torch forks them, so that they begin in a moment."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["srgan_dist.training.run", "tests.ranks.faults"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        errors = [Path(folder) / str(rank) for rank in range(ranks)]
        processes = [
            context.Process(target=_rank, args=(rank, ranks, port, errors[rank], function, arguments))
            for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        codes = [process.exitcode for process in processes]
        for process in processes:
            process.kill()
        return [Ended(code, error.read_text()) for code, error in zip(codes, errors, strict=True)]


def _rank(
    rank: int, ranks: int, port: int, errors: Path, function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    if ranks > 1:
        facts = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
        os.environ |= {key: str(value) for key, value in facts.items()} | {"MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    function(*arguments)


def train_and_die(arguments: list[str], kill: Kill | None) -> None:
    """Train as ``train.py`` does, but for the kill."""
    from srgan_dist.cli import train

    watch(kill, rank=int(os.environ.get("RANK", "0")))
    sys.exit(train(arguments, prog="train.py"))


if __name__ == "__main__":
    train_and_die(sys.argv[4:], Kill(sys.argv[2], int(sys.argv[3]), rank=int(sys.argv[1])))
