"""What is measured over the steps between two logged lines: means of their values, and speed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from srgan_dist.distributed.runtime import Runtime

TOTALS = 3
"""What is kept of each name: the sum of its finite values, their number, and the number of all."""


class Means(NamedTuple):
    """The means over an interval.

    Attributes:
        values: Means over the finite values by name, NaN where there were none.
        left_out: For each name, in how many steps the value was not finite.
    """

    values: dict[str, float]
    left_out: dict[str, int]


class IntervalMeans:
    """Adds up what the steps return, on the device; nothing waits for it but `take` and `state`.

    A value that is not finite, such as the norm of a gradient that fp16 overflowed, is left out and counted. Each rank
    adds up its own values: only at the end of the interval, and in a checkpoint, they are brought together.

    Args:
        runtime: The ranks and the device.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._totals: dict[tuple[str, ...], Tensor] = {}  # [TOTALS, n] by the n names that steps return together

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add a step.

        Args:
            values: Scalars by name; a mean is one over the steps that had the name.
        """
        names = tuple(values)
        current = torch.stack([value.detach() for value in values.values()]).double()
        finite = current.isfinite()
        rows = torch.stack([current.where(finite, 0.0), finite.double(), torch.ones_like(current)])
        if names in self._totals:
            self._totals[names].add_(rows)
        else:
            self._totals[names] = rows

    def take(self) -> Means:
        """End the interval: its means over steps and ranks, equal on all ranks. A host synchronisation."""
        names = list(chain.from_iterable(self._totals))
        if not names:
            return Means({}, {})
        sums, finite, all_ = self.runtime.reduce_sum(torch.cat(list(self._totals.values()), dim=1)).tolist()
        self.clear()
        total: dict[str, list[float]] = {}
        for name, *column in zip(names, sums, finite, all_, strict=True):
            total[name] = [a + b for a, b in zip(total.get(name, [0.0] * TOTALS), column, strict=True)]
        return Means(
            {name: value / count if count else math.nan for name, (value, count, _) in total.items()},
            {name: round((of - count) / self.runtime.world_size) for name, (_, count, of) in total.items()},
        )

    def clear(self) -> None:
        """Begin the interval anew."""
        self._totals.clear()

    def state(self) -> dict[str, Any] | None:
        """The interval so far, for JSON: every rank's totals, equal on all ranks. None at the beginning of one."""
        if not self._totals:
            return None
        flat = torch.cat([totals.flatten() for totals in self._totals.values()])
        return {"names": [list(names) for names in self._totals], "ranks": self.runtime.gather(flat)}

    def load(self, state: Mapping[str, Any] | None) -> None:
        """Restore a `state`; on another number of ranks each continues with the mean of what they had."""
        self.clear()
        if state is None:
            return
        ranks = torch.tensor(state["ranks"], dtype=torch.float64, device=self.runtime.device)
        same = len(ranks) == self.runtime.world_size
        flat = ranks[self.runtime.rank] if same else ranks.mean(dim=0)
        sizes = [TOTALS * len(names) for names in state["names"]]
        for names, totals in zip(state["names"], torch.split(flat, sizes), strict=True):
            self._totals[tuple(names)] = totals.view(TOTALS, -1).clone()


@dataclass(frozen=True)
class Lap:
    """Speed since the last lap.

    Attributes:
        steps_per_second: Steps per second.
        data_wait: Fraction of the time spent waiting for data.
    """

    steps_per_second: float
    data_wait: float


class Clock:
    """Measures training time, and the speed between two log lines.

    Args:
        step: The current step.
        seconds: Training time until then.
    """

    def __init__(self, step: int, seconds: float) -> None:
        self.before, self.start = seconds, time.monotonic()
        self.lap_step, self.lap_start, self.waited = step, self.start, 0.0

    @property
    def seconds(self) -> float:
        """Time of this run so far in seconds, including the time before it was resumed."""
        return self.before + time.monotonic() - self.start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude what runs within it, such as validation, from the measured speed."""
        begin = time.monotonic()
        yield
        self.lap_start += time.monotonic() - begin

    def lap(self, step: int) -> Lap:
        """The speed since the last call."""
        now = time.monotonic()
        elapsed = max(now - self.lap_start, 1e-9)
        lap = Lap((step - self.lap_step) / elapsed, self.waited / elapsed)
        self.lap_step, self.lap_start, self.waited = step, now, 0.0
        return lap
