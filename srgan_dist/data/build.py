"""From the configuration to the data: shards, windows, validation images."""

from __future__ import annotations

from srgan_dist.config.data import DataConfig
from srgan_dist.data.loading.loader import BatchStream, make_loader, micro_batches, per_rank_batch_size
from srgan_dist.data.loading.pairs import PairDataset
from srgan_dist.data.shards.shard_set import ShardSet, open_shards
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.errors import UserError


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


def micro_batch_size(config: DataConfig, *, world_size: int) -> int:
    """Crops of one rank in one forward pass: as configured, else the rank's whole share of the window.

    Raises:
        UserError: The window cannot be divided so.
    """
    per_rank_batch = per_rank_batch_size(batch_size=config.batch_size, world_size=world_size)
    micro_batch = config.micro_batch if isinstance(config.micro_batch, int) else per_rank_batch
    micro_batches(batch_size=config.batch_size, micro_batch=micro_batch, world_size=world_size)
    return micro_batch


def build_stream(
    config: DataConfig, shards: ShardSet, *, seed: int, consumed: int, margin: int = 0, runtime: Runtime
) -> tuple[BatchStream, PairDataset]:
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
    return BatchStream(loader, pin_memory=on_gpu), dataset
