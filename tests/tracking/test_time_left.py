"""The time left, by a clock that a test turns."""

from __future__ import annotations

import pytest

from srgan_dist.tracking.time_left import TimeLeft


class Run:
    """A run whose pretraining steps take 1 s and whose GAN steps take 4 s, after which it asks for the time left."""

    def __init__(self, *, steps: int, pretrain_steps: int, resumes_after: int = 0) -> None:
        self.now, self.step, self.pretrain_steps = 100.0, resumes_after, pretrain_steps
        self.left = TimeLeft(num_steps=steps, pretrain_steps=pretrain_steps, clock=lambda: self.now)
        self.now += 50.0  # until the data is open
        self.left.start(self.step)

    def until(self, step: int) -> str:
        """What the log line of this step says."""
        text = self.left.text(self.step)
        while self.step < step:
            self.step += 1
            self.now += 1.0 if self.step <= self.pretrain_steps else 4.0
            text = self.left.text(self.step)
            if self.step == self.pretrain_steps:
                self.now += 30.0  # a validation, which belongs to the step
            self.left.reached(self.step)
        return text


def test_each_phase_is_estimated_by_its_own_steps() -> None:
    run = Run(steps=100, pretrain_steps=80)
    assert run.until(20) == "0:01:00 and 20 GAN steps left"
    assert run.until(79) == "0:00:01 and 20 GAN steps left"
    assert run.until(80) == "20 steps left"  # of which none has been seen
    assert run.until(81) == "0:01:16 left"
    assert run.until(90) == "0:00:40 left"
    assert run.until(100) == "0:00:00 left"


@pytest.mark.parametrize(
    ("pretrain_steps", "after", "step", "left"),
    [
        (80, 80, 80, "20 steps left"),
        (80, 80, 90, "0:00:40 left"),
        (80, 90, 95, "0:00:20 left"),
        (80, 90, 90, "10 steps left"),
        (80, 40, 60, "0:00:20 and 20 GAN steps left"),
        (0, 0, 10, "0:06:00 left"),
        (100, 0, 10, "0:01:30 left"),
        (100, 0, 100, "0:00:00 left"),
    ],
)
def test_resumed_and_of_one_phase(pretrain_steps: int, after: int, step: int, left: str) -> None:
    assert Run(steps=100, pretrain_steps=pretrain_steps, resumes_after=after).until(step) == left


def test_hours_are_not_days() -> None:
    assert Run(steps=100_000, pretrain_steps=0).until(1) == "111:06:36 left"
