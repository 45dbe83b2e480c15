"""How much RAM this process takes, and may still take: of the machine, and of the control groups that limit it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

from srgan_dist.errors import Failure

_GROUPS = Path("/sys/fs/cgroup")


class OutOfMemory(Failure):
    """This rank or another ran out of memory within an update; where it is shared, all ranks know."""


def used_ram() -> int:
    """Resident bytes of this process."""
    return int(psutil.Process().memory_info().rss)


def available_ram() -> int:
    """Bytes of RAM that are free for this process; a container's or a Slurm job's limit counts."""
    return min([psutil.virtual_memory().available, *_rooms()])


def _rooms() -> Iterator[int]:
    """What is left in each group with a limit, from the process's own to the outermost."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, most, used, cache = _GROUPS, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, most = _GROUPS / "memory", "memory.limit_in_bytes"
            used, cache = "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        folder = root / path.lstrip("/")
        # Within a container its own group is the root, and the path as seen from outside does not exist.
        for group in (folder, *folder.parents) if folder.exists() else (root,):
            if (group / most).exists() and (limit := (group / most).read_text().strip()) != "max":
                yield int(limit) - int((group / used).read_text()) + _statistic(group, cache)
            if group == root:
                break


def _statistic(group: Path, name: str) -> int:
    """A line of ``memory.stat``. Files that were read and are not in use count as used, and go when room is needed."""
    for line in (group / "memory.stat").read_text().splitlines():
        key, value = line.split()
        if key == name:
            return int(value)
    return 0
