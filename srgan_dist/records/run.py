"""A run's folder as data: of one that trains, has ended or broke off, of this version or an earlier one."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from srgan_dist.records.metrics import METRICS
from srgan_dist.records.read import SampleImage, read_config, read_images, read_lines, read_object
from srgan_dist.utils.locks import is_held
from srgan_dist.utils.names import printable

_DEEPEST = 6  # folders of folders of runs
_MAX_STEP = 10**18
_LONGEST = 500  # characters of a reason


class State(str, Enum):
    """How a run is."""

    RUNNING = "running"
    FINISHED = "finished"
    PREEMPTED = "preempted"
    CRASHED = "crashed"
    BROKEN = "broken"


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
        config: The resolved configuration without secrets, flat, such as ``train.g_per_d``.
        metrics: The lines of metrics.jsonl, ascending by ``step``; a last line that is half written is left out.
        validation: The lines of val.jsonl, likewise.
        info: run.json; empty in a folder of an earlier version.
        result: result.json, or None.
        images: The crops by validation image.
        problems: What could not be read and is left out, a line each.
        step: The last step that is known of; 0 before the first.
        hours: Training time; of a run of an earlier version only once it has ended.
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
    step: int = 0
    hours: float | None = None

    @property
    def planned_steps(self) -> int | None:
        """``train.steps``."""
        return next(_whole(self.config, "train.steps"), None)

    def final(self, metric: str) -> Value | None:
        """The last value of a metric, such as ``val/psnr_y``; None where it was never measured."""
        return next(self._values(reversed(self.metrics), metric), None)

    def best(self, metric: str) -> Value | None:
        """The best value of one of `METRICS`, the earlier one of two that are equal."""
        better: Callable[..., Value | None] = max if METRICS[metric] == "max" else min
        return better(self._values(self.metrics, metric), key=lambda value: value.value, default=None)

    def without_lines(self) -> RunRecord:
        """What is small of it: without metrics, validation and images."""
        return replace(self, metrics=(), validation=(), images={})

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
    try:
        if not folder.is_dir():
            reason = "is a file, not a run's folder" if folder.exists() else "does not exist"
            return RunRecord(folder, name, State.BROKEN, reason)
    except OSError as error:
        return RunRecord(folder, name, State.BROKEN, f"cannot be read ({error.strerror})")
    problems: list[str] = []
    lock_is_held = is_held(folder)  # first: a run that ends meanwhile is then read as it ended
    config = read_config(folder / "config.yaml", problems)
    metrics = read_lines(folder / "metrics.jsonl", problems)
    result = read_object(folder / "result.json", problems)
    if not config and not metrics:
        reason = problems[0] if problems else "has no config.yaml and no metrics.jsonl: not a run's folder"
        if lock_is_held:  # it has not begun yet
            return RunRecord(folder, name, State.RUNNING, problems=problems)
        return RunRecord(folder, name, State.BROKEN, reason, problems=problems)
    end = _end(folder, config, metrics, result, problems, lock_is_held=lock_is_held)
    return RunRecord(
        folder,
        name,
        end.state,
        end.reason,
        config=config,
        metrics=metrics,
        validation=read_lines(folder / "val.jsonl", problems),
        info=read_object(folder / "run.json", problems) or {},
        result=result,
        images=read_images(folder / "samples", problems),
        problems=problems,
        step=end.step,
        hours=_hours(metrics, result),
    )


def find_runs(folder: str | Path) -> list[Path]:
    """The folders of runs at and below a folder, by name; none of them within another, but for a sweep's trials."""
    return list(_find(Path(folder), depth=0, seen=set()))


def is_run(folder: Path) -> bool:
    """Whether a folder is one of a run, by what lies in it."""
    try:
        return any((folder / name).is_file() for name in ("metrics.jsonl", "config.yaml", "result.json"))
    except OSError:  # not ours to look into
        return False


def finite(value: object) -> float | None:
    """A number as a float; None for everything else, NaN and infinity included."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:  # a whole number of more digits than a float has room for
        return None
    return number if math.isfinite(number) else None


def _find(folder: Path, *, depth: int, seen: set[Path]) -> Iterator[Path]:
    if (real := folder.resolve()) in seen:  # a link back
        return
    seen.add(real)
    if is_run(folder):
        yield folder
        return
    try:
        below = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:  # no folder, or not ours to read
        return
    # `Path.is_dir` raises for a link to what cannot be looked at, which must not hide the others.
    below = [entry for entry in below if os.path.isdir(entry)]  # noqa: PTH112
    for entry in below if depth < _DEEPEST else ():
        yield from _find(entry, depth=depth + 1, seen=seen)


class _End(NamedTuple):
    state: State
    reason: str | None
    step: int


def _end(
    folder: Path,
    config: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    result: Mapping[str, Any] | None,
    problems: list[str],
    *,
    lock_is_held: bool,
) -> _End:
    """How a run ended, if it did, and after which step."""
    logged = int(metrics[-1]["step"]) if metrics else 0
    if lock_is_held:  # result.json may be of fewer steps, before more were asked for
        return _End(State.RUNNING, None, logged)
    if (stopped := read_object(folder / "stopped.json", problems)) is not None:
        step = next(_whole(stopped, "step"), logged)
        return _End(State.PREEMPTED, f"stopped by {_text(stopped, 'signal')} after step {step}", step)
    if (failed := read_object(folder / "failed.json", problems)) is not None:
        step = next(_whole(failed, "step"), logged)
        return _End(State.CRASHED, f"after step {step}: {_text(failed, 'reason')}", step)
    planned = next(_whole(config, "train.steps"), 0)
    done = next(_whole(result or {}, "steps"), logged)
    # Lines of later steps: more were asked for. Of earlier ones: it went on from an old checkpoint.
    if result is not None and done >= planned and (not metrics or logged == done):
        return _End(State.FINISHED, None, done)
    return _End(State.CRASHED, f"ended without a word after step {logged}: killed, most likely", logged)


def _hours(metrics: Sequence[Mapping[str, Any]], result: Mapping[str, Any] | None) -> float | None:
    logged = (hours for line in reversed(metrics) if (hours := finite(line.get("hours"))) is not None)
    seconds = finite((result or {}).get("seconds"))
    return next(logged, None if seconds is None else seconds / 3600)


def _text(facts: Mapping[str, Any], key: str) -> str:
    return printable(" ".join(str(facts.get(key, "?")).split())[:_LONGEST])


def _whole(facts: Mapping[str, Any], key: str) -> Iterator[int]:
    if type(value := facts.get(key)) is int and 0 <= value < _MAX_STEP:
        yield value
