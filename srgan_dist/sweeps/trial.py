"""One trial: a training in a process and a folder of its own, watched by what it logs."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from srgan_dist.records.run import State, read_run
from srgan_dist.utils.locks import is_held

log = logging.getLogger("srgan_dist")


class Trial:
    """A trial that trains.

    Args:
        number: Its number in the sweep, from 0.
        folder: Of the run; a training that was interrupted there resumes.
        command: What starts it, with all its options.
        environment: Of the process.
        metric: What the sweep compares.

    Attributes:
        pruned: Whether it was stopped since it fell behind.
        seen: Number of its validations so far.
    """

    def __init__(
        self,
        number: int,
        folder: Path,
        *,
        command: Sequence[str],
        environment: Mapping[str, str],
        metric: str,
    ) -> None:
        self.number, self.folder, self.metric = number, folder, metric
        self.pruned = False
        self._command, self._environment = list(command), dict(environment)
        self._start()

    @property
    def log_file(self) -> Path:
        """What the process says, beside the folder, which the training makes itself."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def _start(self) -> None:
        self._read, self._rest, self.seen = 0, b"", 0
        self._stopped_before = self._mark()
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as output:
            # A session of its own: Ctrl-C reaches the sweep alone, which asks its trials to stop.
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def restart(self) -> None:
        """Resume it, after another process stopped it."""
        self._start()

    def validations(self) -> Iterator[float]:
        """The values of the metric that were logged since the last call, in their order."""
        try:
            with (self.folder / "metrics.jsonl").open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._read:  # cut back where a training resumes
                    self._read, self._rest, self.seen = 0, b"", 0
                file.seek(self._read)
                new = file.read()
        except FileNotFoundError:
            return
        self._read += len(new)
        *whole, self._rest = (self._rest + new).split(b"\n")
        for line in whole:
            try:
                value = json.loads(line).get(self.metric)
            except (ValueError, AttributeError):  # `runs` and `compare` name such lines
                continue
            if isinstance(value, (int, float)):
                yield float(value)

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it trains or saves any more: ranks may outlive the launcher that started them."""
        return self._process.poll() is not None and not is_held(self.folder)

    @property
    def process(self) -> dict[str, Any]:
        """Which process it is, for a later start of the sweep that finds it still training; see `is_alive`."""
        created = None
        with contextlib.suppress(psutil.Error):  # it has ended already
            created = psutil.Process(self._process.pid).create_time()
        return {"host": platform.node(), "pid": self._process.pid, "created": created}

    def end(self) -> State:
        """How it ended, by what its run's folder says: a launcher's exit code does not tell a stop from a failure."""
        state = read_run(self.folder).state
        if state == State.PREEMPTED and self._mark() == self._stopped_before:
            return State.CRASHED  # an earlier start was stopped; this one did not come to its first step
        return state

    def _mark(self) -> tuple[int, int] | None:
        """Which file says that the run was stopped, if one does."""
        try:
            found = (self.folder / "stopped.json").stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def stop(self) -> None:
        """Ask it to stop with everything saved; `has_ended` says when it has."""
        if self._process.poll() is None:
            # The launcher hands it on to its ranks.
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, with its ranks, which a launcher gives sessions of their own."""
        if self._process.poll() is None:
            with contextlib.suppress(psutil.Error):
                for rank in psutil.Process(self._process.pid).children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        rank.kill()
            self._process.kill()
            self._process.wait()

    def outcome(self) -> dict[str, Any]:
        """What its run reached: ``value``, the metric's best, and the ``step`` of it; None without a validation."""
        best = read_run(self.folder).best(self.metric)
        return {"value": best.value if best else None, "step": best.step if best else None}

    def why(self) -> str:
        """Why its run ended, or the last line that it said: the training's own, not the launcher's about it."""
        reason = read_run(self.folder).reason if (self.folder / "failed.json").exists() else None
        if reason:
            return reason
        text = self.log_file.read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in reversed(text.splitlines()) if line.strip()]
        ours = [line.removeprefix("srgan-dist: ") for line in lines if line.startswith("srgan-dist: ")]
        otherwise = f"exit code {self._process.poll()}, without a word"
        return next((line[:300] for line in (*ours, *lines)), otherwise)


def is_alive(process: Mapping[str, Any] | None) -> bool:
    """Whether a `Trial.process` is still there, on this machine."""
    if not process or process.get("host") != platform.node():
        return False
    with contextlib.suppress(psutil.Error, TypeError, KeyError):
        return bool(psutil.Process(process["pid"]).create_time() == process["created"])
    return False
