"""The section ``loss``: what is minimised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from srgan_dist.config.additional_losses import AdditionalLossConfig, LearnedLossConfig, no_kind_twice
from srgan_dist.config.base import Fraction, Section
from srgan_dist.config.perceptual import PerceptualLossConfig, VGG19Config, completed


class PixelLossConfig(Section):
    common = ("kind", "weight")

    kind: Literal["mse", "l1", "charbonnier"] = "l1"
    """The pixel loss of both phases."""
    weight: NonNegativeFloat = 0.01
    """Weight in the adversarial phase; pretraining uses this loss alone, with weight 1."""


class AdversarialLossConfig(Section):
    common = ("kind", "weight")

    kind: Literal["vanilla", "relativistic", "lsgan", "hinge"] = "vanilla"
    """vanilla: non-saturating, on logits; relativistic: relativistic average (ESRGAN)."""
    weight: NonNegativeFloat = 0.005
    """Weight in the generator's loss."""
    label_smoothing: Fraction = 0.0
    """Real images are labelled 1 minus this (one-sided; not for hinge)."""
    ramp_steps: NonNegativeInt = 0
    """Steps over which the weight grows from 0, at the start of the adversarial phase or after train.d_warmup_steps."""
    r1_weight: NonNegativeFloat = 0.0
    """Gamma of the R1 penalty on the discriminator's gradient at real images (Mescheder et al. 2018); 0: none."""
    r1_every: PositiveInt = 16
    """Discriminator updates of which one has the penalty, this many times as strong."""
    instance_noise: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Standard deviation of the noise on all that the discriminator sees, images being in [0, 1]; 0: none."""
    instance_noise_steps: PositiveInt = 10_000
    """Steps of the adversarial phase over which that noise falls to 0."""


class LossConfig(Section):
    pixel: PixelLossConfig = PixelLossConfig()
    """Pixel loss."""
    perceptual: PerceptualLossConfig = VGG19Config()
    """Distance between features of a frozen network."""
    adversarial: AdversarialLossConfig = AdversarialLossConfig()
    """Adversarial loss."""
    additional: Annotated[tuple[AdditionalLossConfig, ...], AfterValidator(no_kind_twice)] = ()
    """Further terms of the generator's loss in the adversarial phase, such as `[{kind: ldl, weight: 1}]`."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and isinstance(perceptual := value.get("perceptual"), Mapping):
            return {**value, "perceptual": completed(perceptual)}
        return value

    @property
    def learned(self) -> list[LearnedLossConfig]:
        """The additional losses in use that have a network."""
        return [loss for loss in self.additional if loss.weight and isinstance(loss, LearnedLossConfig)]

    def untrained(self) -> LossConfig:
        """The same with random weights in all networks, so that nothing need be read or downloaded to build them."""
        random = {"weights": "random"}
        additional = [
            loss.model_copy(update=random) if isinstance(loss, LearnedLossConfig) else loss for loss in self.additional
        ]
        perceptual = self.perceptual.model_copy(update=random)
        return self.model_copy(update={"perceptual": perceptual, "additional": tuple(additional)})
