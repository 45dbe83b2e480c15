"""Learning rates as pure functions of the step: there is nothing to save or to resume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal


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
