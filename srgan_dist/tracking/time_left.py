"""How long a training still takes."""

from __future__ import annotations

import time
from collections.abc import Callable

from srgan_dist.utils.units import duration


class TimeLeft:
    """Estimates the time left by the steps of the current phase alone: a GAN step costs several of pretraining.

    Args:
        num_steps: Steps of the whole run.
        pretrain_steps: Steps of the first phase.
        clock: Seconds, from any beginning.
    """

    def __init__(self, *, num_steps: int, pretrain_steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.num_steps, self.pretrain_steps, self.clock = num_steps, pretrain_steps, clock
        self.start(0)

    def start(self, step: int) -> None:
        """Measure from here on: the run starts, or resumes, after this step."""
        self.first_step, self.started = step, self.clock()

    def reached(self, step: int) -> None:
        """Everything that belongs to a step is done; after the last one of pretraining, another phase is measured."""
        if step == self.pretrain_steps:
            self.start(step)

    def text(self, step: int) -> str:
        """The estimate after a step; of a phase of which none has been measured, the number of its steps."""
        adversarial = self.num_steps - self.pretrain_steps
        if step < self.pretrain_steps and adversarial:
            return f"{self._until(self.pretrain_steps, step)} and {adversarial} GAN steps left"
        if step in (self.pretrain_steps, self.first_step) and step < self.num_steps:
            return f"{self.num_steps - step} steps left"
        return f"{self._until(self.num_steps, step)} left"

    def _until(self, end: int, step: int) -> str:
        per_step = (self.clock() - self.started) / max(step - self.first_step, 1)
        return duration(per_step * (end - step))
