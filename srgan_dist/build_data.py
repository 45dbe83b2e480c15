"""From the configuration to the data: shards, windows, validation images."""

from __future__ import annotations

from itertools import chain

import torch
from typing_extensions import assert_never

from srgan_dist.config import DataConfig
from srgan_dist.config_degradation import (
    BicubicConfig,
    DegradationConfig,
    NoiseConfig,
    RealESRGANConfig,
    StoredConfig,
)
from srgan_dist.data.benchmark import ImagePair, read_pairs
from srgan_dist.data.degradations.ranges import StageRanges
from srgan_dist.data.degradations.realesrgan import RealESRGAN
from srgan_dist.data.degrade import Bicubic, Degradation, Noise
from srgan_dist.data.index import ShardSet, open_shards
from srgan_dist.data.loader import Windows, make_loader, micro_batches, rank_share
from srgan_dist.data.pairs import PairDataset
from srgan_dist.errors import UserError
from srgan_dist.metrics import to_uint8
from srgan_dist.runtime import Runtime
from srgan_dist.validate import check_sizes


def build_shards(config: DataConfig) -> ShardSet:
    """The training shards."""
    if not config.train:
        raise UserError("data.train is empty; name one or more folders written by 'srgan-dist pack'")
    shards = open_shards(
        config.train,
        scale=config.scale,
        window_shards=config.window_shards,
        cache_dir=config.cache_dir,
        cache_bytes=int(config.cache_size),
    )
    if shards.scale != config.scale and config.degradation.kind == "stored":
        raise UserError(f"data.scale is {config.scale}, but the shards {', '.join(config.train)} are x{shards.scale}")
    return shards


def build_degradation(config: DegradationConfig, *, scale: int, device: torch.device) -> Degradation | None:
    """What makes the LR images on the device; None where those of the shards are used."""
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


def micro_batch_size(config: DataConfig, *, world_size: int) -> int:
    """Crops of one rank in one forward pass: as configured, else the rank's whole share of the window.

    Raises:
        UserError: The window cannot be divided so.
    """
    share = rank_share(batch_size=config.batch_size, world_size=world_size)
    micro_batch = config.micro_batch if isinstance(config.micro_batch, int) else share
    micro_batches(batch_size=config.batch_size, micro_batch=micro_batch, world_size=world_size)
    return micro_batch


def build_windows(
    config: DataConfig, shards: ShardSet, *, seed: int, consumed: int, margin: int = 0, runtime: Runtime
) -> tuple[Windows, PairDataset]:
    """The stream of training windows from a position on, and the data set behind it.

    Args:
        config: What is read.
        shards: Where it is.
        seed: Of the order.
        consumed: The position: crops that all ranks together have trained on.
        margin: HR pixels that a degradation needs beyond the patch.
        runtime: The ranks.
    """
    on_gpu = runtime.device.type == "cuda"
    stored = config.degradation.kind == "stored"
    dataset = PairDataset(shards, patch_size=config.patch_size, margin=margin, seed=seed, with_lr=stored)
    loader = make_loader(
        dataset,
        consumed=consumed,
        batch_size=config.batch_size,
        rank=runtime.rank,
        world_size=runtime.world_size,
        # On a CPU, handing a batch over from another process costs more than reading it.
        workers=config.workers if config.workers is not None else (2 if on_gpu else 0),
    )
    return Windows(loader, pin_memory=on_gpu), dataset


def build_validation_images(config: DataConfig) -> list[ImagePair]:
    """All images of the validation folders; for a denoiser with noise, always the same on the same image."""
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
