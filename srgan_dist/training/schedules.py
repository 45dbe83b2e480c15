"""What changes with the step, as pure functions of it: there is nothing to save or to resume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Intervals:
    """Steps between the things that a run does now and then."""

    log: int
    images: int
    validate: int
    checkpoint: int


@dataclass(frozen=True)
class Rates:
    """What holds at one step.

    Attributes:
        step: The training step, from 1.
        phase_step: Number of the step in its phase, from 1.
        is_pretraining: Whether that phase is pretraining.
        generator: The generator's learning rate.
        discriminator: The discriminator's learning rate.
        adversarial: Factor in [0, 1] on the generator's adversarial loss.
        noise: Standard deviation of the noise on what the discriminator sees, in units of the image range.
    """

    step: int
    phase_step: int
    is_pretraining: bool
    generator: float
    discriminator: float = 0.0
    adversarial: float = 1.0
    noise: float = 0.0


def adversarial_factor(step: int, *, delay: int, ramp: int) -> float:
    """The factor on the generator's adversarial loss.

    Args:
        step: Number of the update in the adversarial phase, from 1.
        delay: Updates with the factor 0.
        ramp: Updates after these over which it grows linearly; the last of them has the factor 1.

    Returns:
        In [0, 1].
    """
    after = step - delay
    if after <= 0:
        return 0.0
    return min(after / ramp, 1.0) if ramp else 1.0


def instance_noise(step: int, *, initial: float, num_steps: int) -> float:
    """The standard deviation of the noise on what the discriminator sees.

    Args:
        step: Number of the update in the adversarial phase, from 1.
        initial: That of the first update.
        num_steps: Updates over which it falls linearly to 0.

    Returns:
        In units of ``initial``.

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
        num_steps: Updates of the phase.
        base: Learning rate after the warm-up.
        schedule: ``constant``; ``multistep``: times ``gamma`` after each of ``milestones`` updates; ``cosine``:
            half a cosine from ``base`` to ``minimum`` (Loshchilov and Hutter 2017, eq. 5, without restarts).
        warmup_steps: Updates over which the rate grows linearly up to the schedule's own value.
        milestones: Updates of the phase, ascending.
        gamma: Factor at each milestone.
        minimum: End of the cosine.

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
