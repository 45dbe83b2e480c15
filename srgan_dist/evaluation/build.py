"""Reads the validation images that the configuration names."""

from __future__ import annotations

from itertools import chain

import torch

from srgan_dist.config.data import DataConfig
from srgan_dist.degradations.build import build_degradation
from srgan_dist.errors import UserError
from srgan_dist.evaluation.test_sets import ImagePair, read_pairs
from srgan_dist.evaluation.validator import check_sizes
from srgan_dist.imaging.pixels import to_uint8


def build_validation_images(config: DataConfig) -> list[ImagePair]:
    """Read all images of the validation folders; for a denoiser, add noise, always the same to the same image."""
    folders, scale = config.validation, config.scale
    images = list(chain.from_iterable(read_pairs(folder, scale=scale) for folder in folders))
    if config.degradation.kind == "noise":
        noise = build_degradation(config.degradation, scale=scale, device=torch.device("cpu"))
        assert noise
        noisy = (noise(image.hr / 255, torch.tensor([number]))[0] for number, image in enumerate(images))
        images = [image._replace(lr=to_uint8(lr)) for image, lr in zip(images, noisy, strict=True)]
    problem = check_sizes(images, scale=scale)
    if problem:
        raise UserError(f"data.validation: {problem}")
    return images
