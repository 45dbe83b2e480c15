"""A run's folder as data: of one that trains, has ended or broke off, of this version or an earlier one."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from srgan_dist.config.yaml_file import read_yaml
from srgan_dist.errors import UserError
from srgan_dist.records.metrics import METRICS
from srgan_dist.utils.files import check_is_file, read_file
from srgan_dist.utils.locks import is_held

_MAX_BYTES = 1 << 20  # of a file that has a page of facts
_MAX_LINES = 5_000_000  # of metrics.jsonl: a line a second for two months
_DEEPEST = 6  # folders of folders of runs


class State(str, Enum):
    """How a run is."""

    RUNNING = "running"
    FINISHED = "finished"
    PREEMPTED = "preempted"
    CRASHED = "crashed"
    BROKEN = "broken"


class SampleImage(NamedTuple):
    """The crops of one validation image.

    Attributes:
        lr: The low-resolution crop; None where it is not there, as are the others.
        bicubic: Its bicubic enlargement.
        hr: The target.
        steps: The generated crops by training step, ascending.
    """

    lr: Path | None
    bicubic: Path | None
    hr: Path | None
    steps: Mapping[int, Path]


class Value(NamedTuple):
    """A measure, and the training step of it."""

    value: float
    step: int


@dataclass(frozen=True)
class RunRecord:
    """What a run's folder says.

    Attributes:
        folder: The folder.
        name: Its name.
        state: How the run is.
        reason: One line on the state: which signal, which error; None where there is nothing to say.
        config: The resolved configuration, flat, such as ``train.g_per_d``.
        metrics: The lines of metrics.jsonl, ascending by ``step``; a last line that is half written is left out.
        validation: The lines of val.jsonl, likewise.
        info: run.json; empty in a folder of an earlier version.
        result: result.json, or None.
        images: The crops by validation image.
        problems: What could not be read and is left out, a line each.
    """

    folder: Path
    name: str
    state: State
    reason: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[Mapping[str, Any]] = ()
    validation: Sequence[Mapping[str, Any]] = ()
    info: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] | None = None
    images: Mapping[str, SampleImage] = field(default_factory=dict)
    problems: Sequence[str] = ()

    @property
    def step(self) -> int:
        """The last step that is known of; 0 before the first line."""
        lines = [int(self.metrics[-1]["step"])] if self.metrics else []
        return max([*lines, *_whole(self.result or {}, "steps")], default=0)

    @property
    def planned_steps(self) -> int | None:
        """``train.steps``."""
        return next(_whole(self.config, "train.steps"), None)

    @property
    def hours(self) -> float | None:
        """Training time; of a run of an earlier version only once it has ended."""
        of_lines = (value for line in reversed(self.metrics) if (value := finite(line.get("hours"))) is not None)
        seconds = finite((self.result or {}).get("seconds"))
        return next(of_lines, seconds / 3600 if seconds is not None else None)

    def final(self, metric: str) -> Value | None:
        """The last value of a metric, such as ``val/psnr_y``; None where it was never measured."""
        return next(self._values(reversed(self.metrics), metric), None)

    def best(self, metric: str) -> Value | None:
        """The best value of one of `METRICS`, the earlier one of two that are equal."""
        better: Callable[..., Value | None] = max if METRICS[metric] == "max" else min
        return better(self._values(self.metrics, metric), key=lambda value: value.value, default=None)

    @staticmethod
    def _values(lines: Iterable[Mapping[str, Any]], metric: str) -> Iterator[Value]:
        for line in lines:
            if (value := finite(line.get(metric))) is not None:
                yield Value(value, line["step"])


def read_run(folder: str | Path) -> RunRecord:
    """Read a run's folder. It may change meanwhile: what is half written is left out.

    Args:
        folder: The folder. Where nothing of a run can be read in it, the state is ``BROKEN`` and the reason says why.
    """
    folder = Path(folder)
    name = folder.name or folder.absolute().name
    if not folder.is_dir():
        reason = "is a file, not a run's folder" if folder.exists() else "does not exist"
        return RunRecord(folder, name, State.BROKEN, reason)
    problems: list[str] = []
    lock_is_held = is_held(folder)  # first: a run that ends meanwhile is then read as it ended
    config = _configuration(folder, problems)
    metrics = _lines(folder / "metrics.jsonl", problems)
    result = _facts(folder / "result.json", problems)
    marks = {name: _facts(folder / f"{name}.json", problems) for name in ("stopped", "failed")}
    if not config and not metrics:
        reason = problems[0] if problems else "has no config.yaml and no metrics.jsonl: not a run's folder"
        return RunRecord(folder, name, State.RUNNING if lock_is_held else State.BROKEN, reason, problems=problems)
    state, reason = _state(lock_is_held, config, metrics, result, marks)
    return RunRecord(
        folder,
        name,
        state,
        reason,
        config=config,
        metrics=metrics,
        validation=_lines(folder / "val.jsonl", problems),
        info=_facts(folder / "run.json", problems) or {},
        result=result,
        images=_images(folder / "samples"),
        problems=problems,
    )


def find_runs(folder: str | Path) -> list[Path]:
    """The folders of runs at and below a folder, by name; none of them within another, but for a sweep's trials."""
    return list(_find(Path(folder), depth=0, seen=set()))


def is_run(folder: Path) -> bool:
    """Whether a folder is one of a run, by what lies in it."""
    return any((folder / name).is_file() for name in ("metrics.jsonl", "config.yaml", "result.json"))


def finite(value: object) -> float | None:
    """A number as a float; None for everything else, NaN, infinity and whole numbers beyond them included."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _find(folder: Path, *, depth: int, seen: set[Path]) -> Iterator[Path]:
    if (real := folder.resolve()) in seen:  # a link back
        return
    seen.add(real)
    if is_run(folder):
        yield folder
        return
    try:
        below = sorted(entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_dir())
    except OSError:  # no folder, or not ours to read
        return
    for entry in below if depth < _DEEPEST else ():
        yield from _find(entry, depth=depth + 1, seen=seen)


def _state(
    lock_is_held: bool,
    config: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    result: Mapping[str, Any] | None,
    marks: Mapping[str, Mapping[str, Any] | None],
) -> tuple[State, str | None]:
    if lock_is_held:
        return State.RUNNING, None
    if marks["stopped"]:
        signal, step = (marks["stopped"].get(key, "?") for key in ("signal", "step"))
        return State.PREEMPTED, f"stopped by {signal} after step {step}, with everything saved"
    if marks["failed"]:
        return State.CRASHED, f"after step {marks['failed'].get('step', '?')}: {marks['failed'].get('reason', '?')}"
    planned = next(_whole(config, "train.steps"), None)
    if result is not None and (planned is None or max(_whole(result, "steps"), default=planned) >= planned):
        return State.FINISHED, None
    last = metrics[-1]["step"] if metrics else 0
    return State.CRASHED, f"ended without a word after step {last}: killed, most likely"


def _configuration(folder: Path, problems: list[str]) -> dict[str, Any]:
    path = folder / "config.yaml"
    if not path.exists():
        return {}
    try:
        return dict(_flat(read_yaml(path)[0]))
    except UserError as error:
        problems.append(str(error))
        return {}


def _flat(section: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _facts(path: Path, problems: list[str]) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no such file, or nothing sound in it."""
    try:
        content = json.loads(read_file(path, max_bytes=_MAX_BYTES))
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
        return content
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{path}: {_why(error)}")
        return None


def _lines(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """The records of a file of JSON lines, ascending by step."""
    records: list[dict[str, Any]] = []
    others = 0
    try:
        check_is_file(path)
        with path.open("rb") as file:
            for number, line in enumerate(file):
                if number >= _MAX_LINES:
                    problems.append(f"{path}: has more than {_MAX_LINES} lines; the rest is left out")
                    break
                record = _record(line)
                if record:
                    records.append(record)
                elif line.strip() and line.endswith(b"\n"):  # the last line may be half written
                    others += 1
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"{path}: {_why(error)}")
    if others:
        problems.append(f"{path}: {others} {'line is' if others == 1 else 'lines are'} not a record of a step")
    return sorted(records, key=lambda record: int(record["step"]))


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and type(record.get("step")) is int else None


def _images(folder: Path) -> dict[str, SampleImage]:
    images = {}
    for place in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not place.is_dir():
            continue
        names = {entry.name: Path(entry) for entry in os.scandir(place)}
        steps = {
            int(number): path
            for name, path in names.items()
            if name.startswith("step-") and (number := name[5:].removesuffix(".webp")).isdecimal()
        }
        references = (names.get(f"{kind}.webp") for kind in ("lr", "bicubic", "hr"))
        images[place.name] = SampleImage(*references, steps=dict(sorted(steps.items())))
    return images


def _whole(facts: Mapping[str, Any], key: str) -> Iterator[int]:
    if type(value := facts.get(key)) is int:
        yield value


def _why(error: BaseException) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "not JSON" if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError, RecursionError)) else str(error)
