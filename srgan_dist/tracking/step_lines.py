"""Files of JSON lines, one or more for a step: appended to while a run trains, cut back where it resumes."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from srgan_dist.errors import UserError
from srgan_dist.utils import strict_json
from srgan_dist.utils.files import check_is_file, sync_file, whole_file

log = logging.getLogger("srgan_dist")

_RECORD = re.compile(rb'\{"step": (\d{1,18})[,}]')  # how every line begins that `StepLines.append` writes


class StepLines:
    """A file of JSON objects, each on a line of its own that begins with its step.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, step: int, objects: Iterable[Mapping[str, Any]]) -> None:
        """Add a line for each object.

        Args:
            step: The step that they are of.
            objects: JSON values by name, without the step.
        """
        lines = "".join(strict_json.dumps({"step": step, **content}) + "\n" for content in objects)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(lines)

    def drop_after(self, step: int) -> bool:
        """Drop the lines of later steps, if any, and return whether; whatever else stands there stays as it is.

        Raises:
            UserError: The file cannot be read.
        """
        if not self.path.exists():
            return False
        try:
            check_is_file(self.path)
            content = self.path.read_bytes()
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror}): move it away and start again") from None
        lines = content.removesuffix(b"\n").split(b"\n") if content else []
        steps = [_step_of(line) for line in lines]
        kept = [line for line, of in zip(lines, steps, strict=True) if of is None or of <= step]
        whole = b"".join(line + b"\n" for line in kept)  # the last newline may be missing
        if whole != content:
            with whole_file(self.path) as temporary:
                temporary.write_bytes(whole)
        others = [number for number, line in enumerate(kept, start=1) if line.strip() and not _is_record(line)]
        if others:
            where = f"line {others[0]}" if len(others) == 1 else f"{len(others)} lines, the first is line {others[0]}"
            log.warning("%s: %s: not a record of a step; kept as it is", self.path, where)
        return len(kept) < len(lines)

    def read(self) -> Iterator[dict[str, Any]]:
        """The lines that are records of a step, in their order."""
        for line in self.path.read_bytes().splitlines() if self.path.exists() else ():
            if _is_record(line):
                yield json.loads(line)

    def sync(self) -> None:
        """Wait until the lines are on the disk; from any thread."""
        if self.path.is_file():
            sync_file(self.path)


def _is_record(line: bytes) -> bool:
    try:
        return type(json.loads(line.decode())["step"]) is int
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _step_of(line: bytes) -> int | None:
    """The step of a record, also of one that a crash cut off after it; None where no step is to be read."""
    found = _RECORD.match(line)
    return int(found[1]) if found else None
