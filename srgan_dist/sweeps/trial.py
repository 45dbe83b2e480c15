"""One trial: a training in a process and a folder of its own, watched by what it logs."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from srgan_dist.records.run import read_run

log = logging.getLogger("srgan_dist")

STOPPED = 75  # exit code of a training that was stopped with everything saved


class Trial:
    """A trial that trains.

    Args:
        number: Its number in the sweep, from 0.
        folder: Of the run; a training that was interrupted there goes on.
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
        """Let it go on, after somebody else stopped it."""
        self._start()

    def validations(self) -> Iterator[float]:
        """The values of the metric that were logged since the last call, in their order."""
        try:
            with (self.folder / "metrics.jsonl").open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._read:  # cut back where a training goes on
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

    def poll(self) -> int | None:
        """The process's exit code; None while it trains."""
        return self._process.poll()

    def stop(self) -> None:
        """Ask it to stop with everything saved; `poll` says when it has."""
        if self._process.poll() is None:
            # The launcher hands it on to its ranks.
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, with all its processes."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def outcome(self) -> dict[str, Any]:
        """What its run reached: ``value``, the metric's best, and the ``step`` of it; None without a validation."""
        best = read_run(self.folder).best(self.metric)
        return {"value": best.value if best else None, "step": best.step if best else None}

    def why(self) -> str:
        """The last line that it said, or why its run ended."""
        reason = read_run(self.folder).reason if (self.folder / "failed.json").exists() else None
        if reason:
            return reason
        lines = [line.strip() for line in self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()]
        return next((line[:300] for line in reversed(lines) if line), f"exit code {self.poll()}, without a word")
