"""Measures rates in steady state, per second and per second of CPU time, and describes the machine."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psutil
import torch

from srgan_dist.errors import UserError
from srgan_dist.utils import strict_json
from srgan_dist.utils.files import why_unwritable
from srgan_dist.utils.provenance import cpu_name, versions

REPEATS = 5
_FEWEST_BATCHES = 4  # in a repeat: slow readers would otherwise be timed over one or two


class Spread(NamedTuple):
    """Median, lowest and highest of several repeats."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise at least one repeat."""
        return cls(median(values), min(values), max(values))


class Rate(NamedTuple):
    """Images per second.

    Attributes:
        wall: Per second of wall time.
        core: Per second of CPU time of this process and its workers: the rate of a single core.
        repeats: Number of measurements.
    """

    wall: Spread
    core: Spread
    repeats: int

    def to_json(self) -> dict[str, Any]:
        """Convert the rate to JSON."""
        return {"per_second": self.wall._asdict(), "per_core": self.core._asdict(), "repeats": self.repeats}


def measure(batches: Iterator[Any], *, seconds: float, warm_batches: int) -> Rate:
    """Time a stream in its steady state.

    Args:
        batches: An endless iterator of tuples whose first tensor is [b, ...].
        seconds: Duration of all repeats together; the warm-up takes another fifth of it.
        warm_batches: Minimum number of batches to read in the warm-up, so that start-up and full queues do not count.

    Returns:
        The rate, over `REPEATS` repeats.
    """
    each = seconds / REPEATS
    _repeat(batches, seconds=each, fewest=warm_batches)
    repeats = [_repeat(batches, seconds=each, fewest=_FEWEST_BATCHES) for _ in range(REPEATS)]
    return Rate(
        wall=Spread.of([images / wall for images, wall, _ in repeats]),
        core=Spread.of([images / cpu for images, _, cpu in repeats]),
        repeats=REPEATS,
    )


def _repeat(batches: Iterator[Any], *, seconds: float, fewest: int) -> tuple[int, float, float]:
    images = count = 0
    started, used = time.perf_counter(), _cpu_seconds()
    while count < fewest or time.perf_counter() - started < seconds:
        images += len(next(batches)[0])
        count += 1
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    # The kernel counts a child's time in ticks of 10 ms; avoid a division by zero in a shorter repeat.
    return images, time.perf_counter() - started, max(_cpu_seconds() - used, 1e-6)


def _cpu_seconds() -> float:
    """CPU time of this process and of its running children."""
    total = time.process_time()
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def num_cores() -> int:
    """Number of cores that this process may use."""
    return len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else psutil.cpu_count() or 1


def describe_machine() -> dict[str, Any]:
    """Describe the machine: cores, CPU, memory, GPU or None, operating system."""
    return {
        "cores": num_cores(),
        "cpu": cpu_name(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
    }


def describe_versions(*packages: str) -> dict[str, str | None]:
    """Versions of Python and of the given packages, None for those that are not installed."""
    return {"python": platform.python_version(), **versions(*packages)}


def refuse_unwritable(path: Path) -> None:
    """Refuse a path to which the result could not be written, before the work starts.

    Raises:
        UserError: The path is a folder, is in a folder that does not exist, or is not writable.
    """
    if path.is_dir():
        problem = "it is a folder"
    elif path.is_fifo() and path.parts[:2] != ("/", "dev"):  # /dev/stdout may be one
        problem = "it is a pipe, whose reader may never come"
    elif not path.parent.is_dir():
        problem = f"there is no folder {path.parent}"
    elif path.exists() and not os.access(path, os.W_OK):
        problem = "no permission"
    elif not path.exists() and (unwritable := why_unwritable(path.parent)):
        problem = unwritable
    else:
        return
    raise UserError(f"--json is {path}, which cannot be written: {problem}")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a result as JSON to a file.

    Raises:
        UserError: The file cannot be written.
    """
    try:
        path.write_text(strict_json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def verdict(reached: bool) -> str:
    """Say in one word whether a target is reached."""
    return "reached" if reached else "missed"
