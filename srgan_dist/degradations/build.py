"""Builds the degradation from the configuration."""

from __future__ import annotations

import torch
from typing_extensions import assert_never

from srgan_dist.config.degradation import (
    BicubicConfig,
    DegradationConfig,
    NoiseConfig,
    RealESRGANConfig,
    StoredConfig,
)
from srgan_dist.degradations.degradation import Bicubic, Degradation, Noise
from srgan_dist.degradations.ranges import StageRanges
from srgan_dist.degradations.realesrgan import RealESRGAN


def build_degradation(config: DegradationConfig, *, scale: int, device: torch.device) -> Degradation | None:
    """Build the degradation; None if the LR images of the shards are used."""
    match config:
        case StoredConfig():
            return None
        case BicubicConfig():
            return Bicubic(scale=scale)
        case NoiseConfig():
            return Noise(**config.model_dump(exclude={"kind"}), device=device)
        case RealESRGANConfig():
            return RealESRGAN(
                scale=scale,
                margin=config.margin,
                first=StageRanges(**config.first.model_dump()),
                second=StageRanges(**config.second.model_dump()),
                ringing_probability=config.ringing_probability,
                sharpen=config.sharpen,
                device=device,
            )
        case _:
            assert_never(config)
