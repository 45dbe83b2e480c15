"""run.json: which code made a run, from which command, where, of which data, and when it was started."""

from __future__ import annotations

import json
import logging
import platform
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from srgan_dist.utils import strict_json
from srgan_dist.utils.files import read_file, write_whole
from srgan_dist.utils.provenance import code_state, versions
from srgan_dist.utils.secrets import shown_in
from srgan_dist.utils.times import utc

log = logging.getLogger("srgan_dist")

_NAME = "run.json"
_MAX_BYTES = 2**24
_LIBRARIES = ("accelerate", "numpy", "pillow", "safetensors", "timm", "torch", "torchmetrics", "torchvision")


def read_run_info(folder: Path) -> dict[str, Any] | None:
    """The content of a run's run.json; None where there is none, as in an old run, or a damaged one."""
    try:
        info = json.loads(read_file(folder / _NAME, max_bytes=_MAX_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no JSON"
        log.warning("%s: cannot be read (%s); it is written anew", folder / _NAME, reason)
        return None
    return info if isinstance(info, dict) and isinstance(info.get("starts"), list) else None


def write_run_info(
    folder: Path,
    *,
    step: int,
    is_resumed: bool,
    devices: Sequence[str],
    seed: int,
    data_digest: str,
    parent: Path | None,
) -> None:
    """Write run.json; one that is there gets another entry in ``starts``, and stays as it is where the run resumes.

    Args:
        folder: The run's folder.
        step: The step after which the run starts or resumes.
        is_resumed: Whether the folder's own run resumes.
        devices: Name of each rank's device.
        seed: The run's seed.
        data_digest: Digest of the training shards.
        parent: The run that this one repeats, or None.
    """
    found, code, host, now = read_run_info(folder), code_state(), socket.gethostname(), utc()
    software = versions("srgan-dist", *_LIBRARIES)
    info = {
        "name": folder.resolve().name,
        "version": software.pop("srgan-dist"),
        "commit": code.commit,
        "dirty": code.dirty,
        "command": [shown_in(argument) for argument in psutil.Process().cmdline()],
        "host": host,
        "devices": list(devices),
        "ranks": len(devices),
        "python": platform.python_version(),
        "libraries": {name: version for name, version in software.items() if version},
        "seed": seed,
        "data_digest": data_digest,
        "parent": str(parent.absolute()) if parent else None,
        "started": None if is_resumed else now,  # by an earlier version, which did not write it down
    }
    if is_resumed and found:
        info = {name: value for name, value in found.items() if name != "starts"}
    start = {
        "time": now,
        "step": step,
        "host": host,
        "commit": code.commit,
        "dirty": code.dirty,
        "devices": list(devices),
        "ranks": len(devices),
    }
    starts = [*(found["starts"] if found else []), start]
    write_whole(folder / _NAME, strict_json.dumps(info | {"starts": starts}, indent=2) + "\n")
