"""Builds the training data from the configuration: shards, the data set, the stream of batches."""

from __future__ import annotations

from srgan_dist.config.data import DataConfig
from srgan_dist.data.loading.loader import BatchStream, make_loader, micro_batches, per_rank_batch_size
from srgan_dist.data.loading.pairs import PairDataset
from srgan_dist.data.shards.shard_set import ShardSet, open_shards
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.errors import UserError
from srgan_dist.utils.secrets import shown


def build_shards(config: DataConfig) -> ShardSet:
    """Open the training shards.

    Args:
        config: What is read, and at which scale.

    Returns:
        The opened shards.

    Raises:
        UserError: No shards are named, they cannot be opened, or they have another scale than the configuration.
        Failure: A remote folder cannot be reached.
    """
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
        names = ", ".join(map(shown, config.train))
        raise UserError(f"data.scale is {config.scale}, but the shards {names} are x{shards.scale}")
    return shards


def micro_batch_size(config: DataConfig, *, world_size: int) -> int:
    """Return the patches of one rank in one forward pass: as configured, else its whole part of the global batch.

    Args:
        config: With `batch_size` and `micro_batch`; "auto" counts as not configured.
        world_size: Number of ranks.

    Raises:
        UserError: The global batch is not a multiple of `micro_batch` x ranks.
    """
    per_rank_batch = per_rank_batch_size(batch_size=config.batch_size, world_size=world_size)
    micro_batch = config.micro_batch if isinstance(config.micro_batch, int) else per_rank_batch
    micro_batches(batch_size=config.batch_size, micro_batch=micro_batch, world_size=world_size)
    return micro_batch


def build_stream(
    config: DataConfig, shards: ShardSet, *, seed: int, consumed: int, margin: int = 0, runtime: Runtime
) -> tuple[BatchStream, PairDataset]:
    """Build the stream of this rank's batches from a position on.

    Args:
        config: Patch size, batch size, workers and degradation.
        shards: The opened shards.
        seed: Seed of the order.
        consumed: The position: patches that all ranks together have trained on.
        margin: HR pixels that a degradation needs beyond the patch.
        runtime: This rank, the number of ranks, and the device.

    Returns:
        The stream, and the data set that it reads.

    Raises:
        UserError: The patch size, the margin or the batch size does not fit.
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
        # On a CPU, receiving a batch from another process costs more than reading it.
        workers=config.workers if config.workers is not None else (2 if on_gpu else 0),
    )
    return BatchStream(loader, pin_memory=on_gpu), dataset
