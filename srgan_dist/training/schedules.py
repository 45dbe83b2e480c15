"""Schedules as pure functions of the step: they have no state to save or restore."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Intervals:
    """Numbers of steps between logging, sample images, validations and checkpoints."""

    log: int
    images: int
    validate: int
    checkpoint: int


@dataclass(frozen=True)
class Rates:
    """Learning rates and factors of one step.

    Attributes:
        step: The training step, from 1.
        phase_step: Number of the step in its phase, from 1.
        is_pretraining: Whether the step belongs to pretraining.
        generator: The generator's learning rate.
        discriminator: The discriminator's learning rate.
        adversarial: Factor in [0, 1] on the generator's adversarial loss.
        noise: Standard deviation of the noise on the discriminator's inputs, in units of the image range.
        additional: Factors in [0, 1] on the additional losses by kind; 1 where there is none.
    """

    step: int
    phase_step: int
    is_pretraining: bool
    generator: float
    discriminator: float = 0.0
    adversarial: float = 1.0
    noise: float = 0.0
    additional: Mapping[str, float] = field(default_factory=dict)


def ramped(step: int, *, delay: int, ramp: int) -> float:
    """The factor on a loss that joins later, or whose weight grows.

    Args:
        step: Number of the update in the adversarial phase, from 1.
        delay: Number of updates with the factor 0.
        ramp: Number of updates after these over which it grows linearly to 1.

    Returns:
        In [0, 1].
    """
    after = step - delay
    if after <= 0:
        return 0.0
    return min(after / ramp, 1.0) if ramp else 1.0


def instance_noise(step: int, *, initial: float, num_steps: int) -> float:
    """The standard deviation of the noise on the discriminator's inputs.

    Args:
        step: Number of the update in the adversarial phase, from 1.
        initial: Standard deviation at the first update.
        num_steps: Number of updates over which it falls linearly to 0.

    Returns:
        The standard deviation, in the unit of ``initial``.

    Source:
        Sonderby et al. 2017 (Amortised MAP inference for image super-resolution), section 3.
    """
    return initial * max(0.0, 1.0 - (step - 1) / num_steps)


def learning_rate(
    step: int,
    *,
    num_steps: int,
    base: float,
    schedule: Literal["constant", "multistep", "cosine"],
    warmup_steps: int = 0,
    milestones: Sequence[int] = (),
    gamma: float = 0.5,
    minimum: float = 0.0,
) -> float:
    """The learning rate of one update.

    Args:
        step: Number of the update in its phase, from 1 to ``num_steps``.
        num_steps: Number of updates in the phase.
        base: Learning rate after the warm-up.
        schedule: ``constant``; ``multistep``: times ``gamma`` after each of ``milestones`` updates; ``cosine``:
            half a cosine from ``base`` to ``minimum`` (Loshchilov and Hutter 2017, eq. 5, without restarts).
        warmup_steps: Number of updates over which the rate grows linearly to the schedule's value.
        milestones: Numbers of updates in the phase, ascending.
        gamma: Factor at each milestone.
        minimum: Value at the end of the cosine.

    Returns:
        The learning rate.
    """
    done = step - 1
    match schedule:
        case "constant":
            rate = base
        case "multistep":
            rate = base * gamma ** sum(done >= milestone for milestone in milestones)
        case "cosine":
            progress = min(done / max(num_steps, 1), 1.0)
            rate = minimum + (base - minimum) * 0.5 * (1.0 + math.cos(math.pi * progress))
    return rate * min(step / warmup_steps, 1.0) if warmup_steps else rate
