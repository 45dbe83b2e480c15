"""Loads the patches of each global batch: which rank reads which, in which workers, and the copy to the device."""

from __future__ import annotations

import atexit
import itertools
import signal
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from srgan_dist.data.loading.order import Order, PatchLocations
from srgan_dist.data.loading.pairs import Arrays, Batch, PairDataset
from srgan_dist.data.loading.prefetch import Prefetcher
from srgan_dist.data.loading.read_ahead import ReadAhead
from srgan_dist.data.loading.worker_processes import (
    all_or_none,
    check_workers,
    end_workers,
    keeping_sigchld,
    start_worker,
)
from srgan_dist.degradations.degradation import Degradation
from srgan_dist.distributed.signals import STOP_SIGNALS
from srgan_dist.errors import Failure, UserError

_PREFETCH = 4  # batches ahead per worker; patches are small
_PATCHES_PER_DRAW = 1024  # located together: a few microseconds each one by one, half of one together


class Patches(NamedTuple):
    """A micro-batch of HR and LR patches, ready for the networks.

    Attributes:
        lr: Torch's default dtype, [b, 3, p / scale, p / scale] in [0, 1].
        hr: Same dtype as ``lr``, [b, 3, p, p] in [0, 1].
        key: int64 [b], a hash of (seed, epoch, patch), which seeds the random degradation of each patch.
    """

    lr: Tensor
    hr: Tensor
    key: Tensor


def per_rank_batch_size(*, batch_size: int, world_size: int) -> int:
    """Derive how many patches of a global batch each rank trains on.

    Args:
        batch_size: Patches of the global batch: one update, all ranks.
        world_size: Number of ranks.

    Returns:
        `batch_size` / `world_size`.

    Raises:
        UserError: The division leaves a remainder, or a number is below 1.
    """
    if min(batch_size, world_size) < 1 or batch_size % world_size:
        raise UserError(
            f"data.batch_size is {batch_size}, not a multiple of the {world_size} ranks: change one of them"
        )
    return batch_size // world_size


def micro_batches(*, batch_size: int, micro_batch: int, world_size: int) -> int:
    """Derive the number of micro-batches whose gradients each rank accumulates for one update.

    Args:
        batch_size: Patches of the global batch: one update, all ranks.
        micro_batch: Patches of one rank in one forward pass.
        world_size: Number of ranks.

    Returns:
        k = batch_size / (micro_batch * world_size).

    Raises:
        UserError: The division leaves a remainder, or a number is below 1.
    """
    per_pass = micro_batch * world_size
    if min(batch_size, micro_batch, world_size) < 1 or batch_size % per_pass:
        raise UserError(
            f"data.batch_size is {batch_size}, allowed are multiples of {per_pass} "
            f"(data.micro_batch {micro_batch} x {world_size} ranks): change one of them"
        )
    return batch_size // per_pass


class GlobalBatchSampler(Sampler[PatchLocations]):
    """Yields, without end, where one rank's patches of each global batch are to be read.

    A global batch is `batch_size` consecutive positions of the order. Each rank takes an equal, consecutive part of
    them, in the order of the ranks, so that the global batch holds the same patches on any number of ranks.

    Args:
        order: Order of the patches.
        consumed: Patches that all ranks together have trained on; the whole state of the data.
        batch_size: Patches of the global batch.
        rank: 0 to world_size - 1.
        world_size: Number of ranks.
        prefetcher: Is given each position that is certain to have been reached.
        ahead: Batches handed out that workers may not have started to read.

    Raises:
        UserError: The batch size is not a multiple of the number of ranks.
    """

    def __init__(
        self,
        order: Order,
        *,
        consumed: int,
        batch_size: int,
        rank: int,
        world_size: int,
        prefetcher: Prefetcher | None = None,
        ahead: int = 0,
    ) -> None:
        self._order = order
        self._per_rank_batch = per_rank_batch_size(batch_size=batch_size, world_size=world_size)
        self._first = consumed + rank * self._per_rank_batch
        self._batch_size = batch_size
        self._prefetcher, self._ahead = prefetcher, ahead * batch_size

    def __iter__(self) -> Iterator[PatchLocations]:
        num_batches = max(1, _PATCHES_PER_DRAW // self._per_rank_batch)
        places = (self._batch_size * np.arange(num_batches)[:, None] + np.arange(self._per_rank_batch)).ravel()
        for first in itertools.count(self._first, self._batch_size * num_batches):
            patches = self._order.patches(first + places)
            for number in range(num_batches):
                if self._prefetcher:
                    start = first + number * self._batch_size
                    self._prefetcher.reached(max(self._first, start - self._ahead))
                begin = number * self._per_rank_batch
                yield patches.part(begin, begin + self._per_rank_batch)

    def close(self) -> None:
        """Start no further downloads."""
        if self._prefetcher:
            self._prefetcher.close()


def make_loader(
    dataset: PairDataset,
    *,
    consumed: int,
    batch_size: int,
    rank: int,
    world_size: int,
    workers: int,
) -> DataLoader[Arrays]:
    """Make the endless loader of one rank's part of each global batch; read it through `BatchStream`.

    Args:
        dataset: The patches.
        consumed: Patches that all ranks together have trained on.
        batch_size: Patches of the global batch.
        rank: 0 to world_size - 1.
        world_size: Number of ranks.
        workers: Processes that read ahead; 0 reads in this process.

    Returns:
        A loader of `Arrays`.

    Raises:
        UserError: The batch size is not a multiple of the number of ranks.
    """
    sampler: Sampler[Any] = GlobalBatchSampler(
        dataset.order,
        consumed=consumed,
        batch_size=batch_size,
        rank=rank,
        world_size=world_size,
        prefetcher=Prefetcher(dataset.shards, dataset.order) if dataset.shards.is_remote else None,
        ahead=_PREFETCH * workers,
    )
    # No persistent_workers: the stream never ends, so workers live as long as its iterator anyway;
    # persistence would only keep them alive after BatchStream.close().
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_as_is,
        worker_init_fn=start_worker,
        prefetch_factor=_PREFETCH if workers else None,
    )


class BatchStream(Iterator[Batch]):
    """Yields one rank's part of each global batch, without end, and measures how long the training waited for it.

    A thread reads the next batch during the step, so that a step seldom waits, with or without workers.

    Args:
        loader: Made by `make_loader`.
        pin_memory: Put batches into page-locked memory, for CUDA.

    Attributes:
        wait_seconds: Seconds that the last `next` waited for its batch.
    """

    def __init__(self, loader: DataLoader[Arrays], *, pin_memory: bool = False) -> None:
        self.wait_seconds = 0.0
        self._sampler = loader.batch_sampler
        gpu = torch.cuda.current_device() if pin_memory else None
        # Workers inherit the mask, so that no signal can end one before it has run start_worker; the thread
        # inherits it too, so that signals interrupt the main thread.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            with keeping_sigchld(), all_or_none():
                self._arrays: Any = iter(loader)
            self._batches: ReadAhead[Batch] | None = ReadAhead(
                _batches(self._arrays, gpu), while_waiting=partial(check_workers, self._arrays)
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # The interpreter ends workers by SIGTERM at its exit and then waits for them, but they ignore it.
        atexit.register(self.close)

    def __next__(self) -> Batch:
        if self._batches is None:
            raise StopIteration
        started = time.perf_counter()
        try:
            batch = next(self._batches)
        except (UserError, Failure) as error:
            # From a worker, torch wraps the message in "Caught ... in DataLoader worker" and a whole traceback.
            raise type(error)(str(error).rstrip().rpartition("\n")[2].removeprefix(_qualified(error))) from error
        except RuntimeError:
            check_workers(self._arrays)
            raise
        self.wait_seconds = time.perf_counter() - started
        return batch

    def close(self) -> None:
        """End the thread and the workers; the stream is exhausted afterwards."""
        if self._batches:
            self._batches.close()
        end_workers(self._arrays)
        self._batches = None
        if isinstance(self._sampler, GlobalBatchSampler):
            self._sampler.close()
        atexit.unregister(self.close)


def to_device(
    batch: Batch, device: torch.device | str, *, channels_last: bool = True, degradation: Degradation | None = None
) -> Patches:
    """Copy a batch to the device without blocking, and flip and convert it to floating point there.

    Args:
        batch: From the loader.
        device: Device of the networks.
        channels_last: Memory format of the result; contiguous NCHW otherwise.
        degradation: Makes the LR patches from the HR ones on the device; None where they were read.

    Returns:
        The patches in [0, 1], HR and LR flipped alike.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    on_cpu = torch.device(device).type == "cpu"
    symmetry = batch.symmetry.to(device, non_blocking=True)

    def ready(image: Tensor) -> Tensor:
        # Flipped as bytes: a quarter of the memory traffic of floats.
        image = image.to(device, non_blocking=True)
        turned = turn_each(image, symmetry) if on_cpu else turn_all(image, symmetry)
        return turned.contiguous(memory_format=layout).to(torch.get_default_dtype()).div_(255)

    key = batch.key.to(device, non_blocking=True)
    if degradation is None:
        return Patches(lr=ready(batch.lr), hr=ready(batch.hr), key=key)
    lr, hr = (image.to(torch.get_default_dtype()) for image in degradation(ready(batch.hr), batch.key))
    return Patches(lr=lr.contiguous(memory_format=layout), hr=hr.contiguous(memory_format=layout), key=key)


def turn_each(image: Tensor, symmetry: Tensor) -> Tensor:
    """Flip and transpose each square image of a batch by its own code.

    Reads the codes on the host, which would make it wait for a GPU: see `turn_all` there.

    Args:
        image: [b, C, n, n], any dtype.
        symmetry: Integer [b], 0..7; bit 0 flips left-right, bit 1 up-down, bit 2 then transposes.

    Returns:
        [b, C, n, n], same dtype and layout.
    """
    turned = torch.empty_like(image)
    for source, code, target in zip(image, symmetry.tolist(), turned, strict=True):
        axes = [axis for bit, axis in ((1, -1), (2, -2)) if code & bit]
        flipped = source.flip(axes) if axes else source
        target.copy_(flipped.mT if code & 4 else flipped)
    return turned


def turn_all(image: Tensor, symmetry: Tensor) -> Tensor:
    """Do what `turn_each` does without reading the codes on the host, which would have to wait for the GPU.

    Args:
        image: [b, C, n, n], any dtype.
        symmetry: Integer [b], 0..7, as in `turn_each`.

    Returns:
        [b, C, n, n], same dtype.
    """
    symmetry = symmetry[:, None, None, None]
    image = torch.where((symmetry & 1).bool(), image.flip(-1), image)
    image = torch.where((symmetry & 2).bool(), image.flip(-2), image)
    return torch.where((symmetry & 4).bool(), image.transpose(-1, -2), image)


def _qualified(error: Exception) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}: "


def _batches(arrays: Iterator[Arrays], gpu: int | None) -> Iterator[Batch]:
    if gpu is not None:
        torch.cuda.set_device(gpu)  # a new thread starts on the first GPU, and page-locking would open a context there
    for batch in map(Batch.of, arrays):
        yield batch if gpu is None else batch.pinned()


def _as_is(batch: Any) -> Any:
    return batch  # PairDataset assembles whole batches
