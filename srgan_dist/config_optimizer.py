"""The part of the configuration that says how the networks learn."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from srgan_dist.config_base import Fraction, Section


class ScheduleConfig(Section):
    common = ("learning_rate",)

    learning_rate: PositiveFloat = 1e-4
    """Learning rate after the warm-up."""
    schedule: Literal["constant", "multistep", "cosine"] = "constant"
    """The learning rate as a function of the phase's generator updates."""
    warmup_steps: NonNegativeInt = 0
    """Generator updates of linear warm-up."""
    milestones: tuple[NonNegativeInt, ...] = ()
    """multistep: the phase's generator updates after which the rate is multiplied by gamma."""
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """multistep: the factor."""
    min_learning_rate: NonNegativeFloat = 0.0
    """cosine: where it ends."""

    @model_validator(mode="after")
    def _check(self) -> ScheduleConfig:
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate is {self.min_learning_rate:g}, above learning_rate {self.learning_rate:g}"
            )
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must ascend, got {list(self.milestones)}")
        return self


class OptimizerConfig(Section):
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    """Decay of AdamW's two moments."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's decoupled weight decay; 0 is Adam."""
    pretrain: ScheduleConfig = ScheduleConfig()
    """The generator in pretraining."""
    generator: ScheduleConfig = ScheduleConfig()
    """The generator in the adversarial phase."""
    discriminator: ScheduleConfig = ScheduleConfig()
    """The discriminator."""
