"""What W&B's run leaves on this machine: which run it is, and the logs that are still to be uploaded."""

from __future__ import annotations

import glob
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import NoneType

from srgan_dist.utils.files import read_file, write_whole

_HEADER_BYTES = 7  # of a log; W&B writes the rest some seconds later
WANDB_RUN = "wandb.json"  # in the run's folder: which W&B run is its own, from before the first step


@dataclass(frozen=True)
class WandbAddress:
    """Where a run is in W&B.

    Attributes:
        id: The W&B run's id.
        project: Its project; None where a sweep decides.
        entity: The user or team that the project belongs to; None: the key's own.
        configuration: A hash of what decides how its steps come out; None: unknown.
    """

    id: str
    project: str | None = None
    entity: str | None = None
    configuration: str | None = None


def read_address(folder: Path) -> WandbAddress | None:
    """Read which W&B run is the one of a run's folder; None where none has begun, or nothing sound says so."""
    try:
        address = WandbAddress(**json.loads(read_file(folder / WANDB_RUN, max_bytes=10_000)))
    except (OSError, ValueError, TypeError):
        return None
    is_sound = address.id and all(isinstance(text, (str, NoneType)) for text in asdict(address).values())
    return address if is_sound else None


def write_address(folder: Path, address: WandbAddress) -> None:
    """Write it down, so that the next start continues the same W&B run, however early this one is killed."""
    write_whole(folder / WANDB_RUN, json.dumps(asdict(address), indent=2) + "\n")


@dataclass(frozen=True)
class LocalLog:
    """What one start of the training logged, in W&B's own format.

    Attributes:
        path: The ``.wandb`` file.
    """

    path: Path

    @property
    def is_online(self) -> bool:
        """Whether it was uploaded meanwhile, up to a step that only the server knows."""
        return not self.path.parent.name.startswith("offline-")

    @property
    def is_uploaded(self) -> bool:
        """Whether the server has all of it, by the mark that ``wandb sync`` sets and skips.

        A log without content counts as well: after a kill in the first seconds. ``wandb sync`` fails at it, and with it
        at the others.
        """
        return self._mark.exists() or self.path.stat().st_size <= _HEADER_BYTES

    def mark_uploaded(self) -> None:
        """Let ``wandb sync`` skip it."""
        self._mark.touch()

    @property
    def _mark(self) -> Path:
        return self.path.with_name(self.path.name + ".synced")

    def last_step(self) -> int:
        """The last step in it; 0 where there is none."""
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(self.path)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        try:
            return int(json.loads(done.stdout)["summary"].get("_step", 0))
        except (ValueError, TypeError, KeyError, AttributeError):
            return 0


def local_logs(folder: Path, run_id: str) -> list[LocalLog]:
    """The logs of a W&B run in W&B's folder, the oldest first."""
    name = glob.escape(run_id)
    return [LocalLog(path) for path in sorted(folder.glob(f"*run-*-{name}*/run-{name}.wandb"), key=_start)]


def _start(path: Path) -> str:
    return path.parent.name.removeprefix("offline-")  # run-20261126_235959-ID


def how_to_upload(logs: Sequence[LocalLog]) -> str:
    """What a person does later for W&B to have everything.

    Args:
        logs: Those that the server may lack something of.
    """
    if any(log.is_online for log in logs):
        # 'wandb sync' would send again what the server has of them; a start asks the server what it lacks.
        return "once W&B answers, the same command sends what W&B lacks, also of a run that is done"
    return "upload later with: " + shlex.join(["wandb", "sync", *(str(log.path.parent.absolute()) for log in logs)])
