"""Stages as the configuration makes them, with its values and limits."""

from __future__ import annotations

from typing import Any

from srgan_dist.config.degradation import FirstStageConfig, RealESRGANConfig, SecondStageConfig
from srgan_dist.degradations.ranges import StageRanges
from srgan_dist.degradations.realesrgan import RealESRGAN


def first_stage(**changes: Any) -> StageRanges:
    """The first stage, with changes."""
    return StageRanges(**FirstStageConfig(**changes).model_dump())


def second_stage(**changes: Any) -> StageRanges:
    """The second stage, with changes."""
    return StageRanges(**SecondStageConfig(**changes).model_dump())


def real_esrgan(**options: Any) -> RealESRGAN:
    """The degradation; what is not given is the configuration's."""
    defaults = {"ringing_probability": RealESRGANConfig().ringing_probability, "margin": RealESRGANConfig().margin}
    return RealESRGAN(**{"first": first_stage(), "second": second_stage(), **defaults, **options})
