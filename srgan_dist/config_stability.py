"""The part of the configuration that says what a collapse is, and what follows from it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, PositiveFloat, PositiveInt

from srgan_dist.config_base import Section
from srgan_dist.config_degradation import Probability


def _ascends(value: tuple[float, float]) -> tuple[float, float]:
    """Ascending."""
    if value[0] >= value[1]:
        raise ValueError(f"the low end must be below the high end, got {list(value)}")
    return value


class StabilityConfig(Section):
    on_collapse: Literal["warn", "pause_d", "rollback", "stop"] = "warn"
    """warn: tell it; pause_d: the discriminator pauses until its accuracy is below d_accuracy_band; rollback:
    go on from the newest checkpoint from before the collapse with half the discriminator's learning rate, 3 times at
    most; stop: end the run with exit code 1. Each also tells it, in the log and as "alert" in metrics.jsonl."""
    d_accuracy_band: Annotated[tuple[Probability, Probability], AfterValidator(_ascends)] = (0.6, 0.85)
    """The discriminator's accuracy, the mean of those on real and on generated images, smoothed, with
    train.g_per_d=auto: above the high end it pauses, below the low end it learns again, at every step."""
    patience: PositiveInt = 5
    """Log lines in a row, in the adversarial phase after train.d_warmup_steps, that make a collapse when each is
    outside of any of the limits below."""
    max_d_accuracy: Probability | None = 0.98
    """Most that the discriminator is right, on real images and on generated ones; None: no limit."""
    grad_ratio: Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_ascends)] | None = (1e-4, 1e4)
    """Least and greatest ratio of the gradients' norms, discriminator to generator; None: no limit."""
    max_saturated: Probability | None = 0.1
    """Most of the generated values, as a share, that are outside of [0, 1] by 5 of 255 levels; None: no limit."""
    max_psnr_drop: PositiveFloat | None = 4.0
    """Most that the window's PSNR, less bicubic's, is below the best that it held for as many log lines, pretraining
    included, in dB; None: no limit."""
