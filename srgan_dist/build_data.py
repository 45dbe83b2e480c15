"""From the configuration to the data: shards, windows, validation images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from srgan_dist.config import DataConfig
from srgan_dist.data.benchmark import ImagePair, read_pairs
from srgan_dist.data.index import ShardSet, open_shards
from srgan_dist.data.loader import Windows, make_loader, micro_batches
from srgan_dist.data.pairs import PairDataset
from srgan_dist.errors import UserError
from srgan_dist.runtime import Runtime
from srgan_dist.validate import check_sizes


def build_shards(config: DataConfig) -> ShardSet:
    """The training shards."""
    if not config.train:
        raise UserError("data.train is empty; name one or more folders written by 'srgan-dist pack'")
    shards = open_shards(config.train)
    if shards.scale != config.scale:
        raise UserError(f"data.scale is {config.scale}, but the shards {', '.join(config.train)} are x{shards.scale}")
    return shards


def build_windows(
    config: DataConfig, shards: ShardSet, *, seed: int, consumed: int, runtime: Runtime
) -> tuple[Windows, PairDataset]:
    """The stream of training windows from a position on, and the data set behind it."""
    if config.batch_size % runtime.world_size:
        raise UserError(f"data.batch_size is {config.batch_size}, not a multiple of the {runtime.world_size} ranks")
    micro_batch = config.micro_batch or config.batch_size // runtime.world_size
    k = micro_batches(batch_size=config.batch_size, micro_batch=micro_batch, world_size=runtime.world_size)
    on_gpu = runtime.device.type == "cuda"
    dataset = PairDataset(shards, patch_size=config.patch_size, seed=seed)
    loader = make_loader(
        dataset,
        consumed=consumed,
        batch_size=config.batch_size,
        micro_batch=micro_batch,
        rank=runtime.rank,
        world_size=runtime.world_size,
        # On a CPU, handing a batch over from another process costs more than reading it.
        workers=config.workers if config.workers is not None else (2 if on_gpu else 0),
        pin_memory=on_gpu,
    )
    return Windows(loader, num_micro_batches=k), dataset


def build_validation_images(folders: Sequence[str], *, scale: int) -> list[ImagePair]:
    """All images of the validation folders."""
    images = list(chain.from_iterable(read_pairs(folder, scale=scale) for folder in folders))
    problem = check_sizes(images, scale=scale)
    if problem:
        raise UserError(f"data.validation: {problem}")
    return images


def refuse_other_data(old: dict[str, Any], new: dict[str, Any], *, allowed: Sequence[str]) -> None:
    """Compare what the order of the data depended on with what it depends on now.

    Args:
        old: `Trainer.stream` of a checkpoint.
        new: That of this run.
        allowed: Names that may differ.

    Raises:
        UserError: Another name differs; it is told with both values.
    """
    for name, value in new.items():
        if old[name] != value and name not in allowed:
            was = "data.train held other shards" if name == "data.train" else f"{name} was {old[name]}, now {value}"
            raise UserError(
                f"{was}: the run cannot go on from its checkpoint to the same next sample; set it back, "
                f"start anew by run.resume=never, or go on all the same by --run.allow_changes={name}"
            )
