"""How long a run in progress still takes, by what it has logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from srgan_dist.records.run import RunRecord, State, finite
from srgan_dist.utils.units import duration

_LINES = 20  # the last ones of a phase, by which its speed is measured


class TimeLeft(NamedTuple):
    """What a run still has before it.

    Attributes:
        seconds: Of training, to the end of the current phase.
        later_steps: Steps of the phase after that, of which none has been timed.
    """

    seconds: float
    later_steps: int

    def __str__(self) -> str:
        later = f" and {self.later_steps} GAN steps" if self.later_steps else ""
        return f"{duration(self.seconds)}{later}"


def time_left(run: RunRecord) -> TimeLeft | None:
    """The time left to a run, by the steps of the phase that it is in; None where it has ended, or timed no step.

    Args:
        run: The run.
    """
    planned = run.planned_steps
    if run.state != State.RUNNING or planned is None:
        return None
    pretrain_steps = min(int(finite(run.config.get("train.pretrain_steps")) or 0), planned)
    start, end = (0, pretrain_steps) if run.step < pretrain_steps else (pretrain_steps, planned)
    per_step = _seconds_per_step(run.metrics, start=start, batch_size=finite(run.config.get("data.batch_size")))
    seconds = finite(max(end - run.step, 0) * per_step) if per_step is not None else None
    return None if seconds is None else TimeLeft(seconds, planned - end)


def _seconds_per_step(lines: Sequence[Mapping[str, Any]], *, start: int, batch_size: float | None) -> float | None:
    timed: list[tuple[int, float]] = [
        (line["step"], hours) for line in lines[-_LINES:] if (hours := finite(line.get("hours"))) is not None
    ]
    timed = [(step, hours) for step, hours in timed if step >= start]
    if start == 0 and len(timed) == 1:  # with the first steps, which are slow
        timed = [(0, 0.0), *timed]
    if len(timed) > 1 and timed[-1][0] > timed[0][0]:
        (first, before), (last, now) = timed[0], timed[-1]
        return max(now - before, 0.0) * 3600 / (last - first)
    speed = finite(lines[-1].get("perf/images_per_second")) if lines and lines[-1]["step"] > start else None
    if batch_size is None or speed is None or speed <= 0:
        return None
    return batch_size / speed
