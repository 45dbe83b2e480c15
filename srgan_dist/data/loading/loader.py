"""From positions to windows: which rank reads what, with which workers, and onto the device."""

from __future__ import annotations

import atexit
import itertools
import signal
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from srgan_dist.data.loading.order import CropBatch, Order
from srgan_dist.data.loading.pairs import Arrays, Batch, PairDataset
from srgan_dist.data.loading.prefetch import Prefetcher
from srgan_dist.data.loading.read_ahead import ReadAhead
from srgan_dist.degradations.degradation import Degradation
from srgan_dist.errors import Failure, UserError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_PREFETCH = 4  # windows ahead per worker; patches are small
_DRAWN = 1024  # crops whose places are drawn together: a few microseconds each by themselves, half of one together


class Patches(NamedTuple):
    """A micro-batch ready for the networks.

    Attributes:
        lr: torch's default dtype, [b, 3, p / scale, p / scale] in [0, 1].
        hr: like ``lr``, [b, 3, p, p] in [0, 1].
        key: int64 [b], a hash of (seed, epoch, crop) for what is drawn at random for each.
    """

    lr: Tensor
    hr: Tensor
    key: Tensor


def per_rank_batch_size(*, batch_size: int, world_size: int) -> int:
    """Derive how many patches of a window each rank trains on.

    Args:
        batch_size: patches of all ranks in one update.
        world_size: ranks.

    Returns:
        batch_size / world_size.

    Raises:
        UserError: the division leaves a remainder, or a number is below 1.
    """
    if min(batch_size, world_size) < 1 or batch_size % world_size:
        raise UserError(
            f"data.batch_size is {batch_size}, not a multiple of the {world_size} ranks: change one of them"
        )
    return batch_size // world_size


def micro_batches(*, batch_size: int, micro_batch: int, world_size: int) -> int:
    """Derive the number of micro-batches that each rank adds up for one update.

    Args:
        batch_size: patches of all ranks in one update.
        micro_batch: patches of one rank in one forward pass.
        world_size: ranks.

    Returns:
        k = batch_size / (micro_batch * world_size).

    Raises:
        UserError: the division leaves a remainder, or a number is below 1.
    """
    together = micro_batch * world_size
    if min(batch_size, micro_batch, world_size) < 1 or batch_size % together:
        raise UserError(
            f"data.batch_size is {batch_size}, allowed are multiples of {together} "
            f"(data.micro_batch {micro_batch} x {world_size} ranks): change one of them"
        )
    return batch_size // together


class GlobalBatchSampler(Sampler[CropBatch]):
    """Yields, without end, the crops of one rank's share of a window, window after window.

    A window is `batch_size` positions in a row; each rank has as many of them, in a row too, in the ranks' order, so
    that the window holds the same crops on any number of ranks.

    Args:
        order: of the crops.
        consumed: patches that all ranks together have trained on; the whole state of the data.
        batch_size: patches of all ranks in one window.
        rank: 0 to world_size - 1.
        world_size: ranks.
        prefetcher: told of each position that is surely read now.
        ahead: windows handed out that workers may not have begun with.

    Raises:
        UserError: the batch size cannot be divided so.
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
        self._share = per_rank_batch_size(batch_size=batch_size, world_size=world_size)
        self._first = consumed + rank * self._share
        self._batch_size = batch_size
        self._prefetcher, self._ahead = prefetcher, ahead * batch_size

    def __iter__(self) -> Iterator[CropBatch]:
        num_windows = max(1, _DRAWN // self._share)
        places = (self._batch_size * np.arange(num_windows)[:, None] + np.arange(self._share)).ravel()
        for first in itertools.count(self._first, self._batch_size * num_windows):
            crops = self._order.crops(first + places)
            for window in range(num_windows):
                if self._prefetcher:
                    start = first + window * self._batch_size
                    self._prefetcher.reached(max(self._first, start - self._ahead))
                yield crops.part(window * self._share, (window + 1) * self._share)

    def close(self) -> None:
        """Begin no further download."""
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
    """Make the endless loader of one rank's shares; read it through `BatchStream`.

    Args:
        dataset: the patches.
        consumed: patches that all ranks together have trained on.
        batch_size: patches of all ranks in one window.
        rank: 0 to world_size - 1.
        world_size: ranks.
        workers: processes that read ahead, 0 reads in this one.

    Returns:
        A loader of `Arrays`.

    Raises:
        UserError: the batch size cannot be divided so.
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
    # No persistent_workers: the stream never ends, so that workers live as long as its iterator anyway;
    # persistence would only keep them alive after BatchStream.close().
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_as_is,
        worker_init_fn=_start_worker,
        prefetch_factor=_PREFETCH if workers else None,
    )


class BatchStream(Iterator[Batch]):
    """One rank's shares of the windows, one after the other; measures how long they were waited for.

    A thread reads the next one meanwhile: with or without workers, a step seldom waits.

    Args:
        loader: made by `make_loader`.
        pin_memory: put batches into page-locked memory, for CUDA.

    Attributes:
        wait_seconds: time spent waiting for the last window.
    """

    def __init__(self, loader: DataLoader[Arrays], *, pin_memory: bool = False) -> None:
        self.wait_seconds = 0.0
        self._sampler = loader.batch_sampler
        gpu = torch.cuda.current_device() if pin_memory else None
        # Workers inherit the mask, so that no signal can end one before it has run _start_worker; and the thread
        # does, so that signals interrupt the main one.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._arrays = iter(loader)
            self._batches: ReadAhead[Batch] | None = ReadAhead(_batches(self._arrays, gpu))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # The interpreter ends workers by SIGTERM at its exit and then waits for them, but they ignore it.
        atexit.register(self.close)

    def __next__(self) -> Batch:
        if self._batches is None:
            raise StopIteration
        started = time.perf_counter()
        try:
            window = next(self._batches)
        except (UserError, Failure) as error:
            # From a worker, torch wraps the message in "Caught ... in DataLoader worker" and a whole traceback.
            raise type(error)(str(error).rstrip().rpartition("\n")[2].removeprefix(_qualified(error))) from error
        self.wait_seconds = time.perf_counter() - started
        return window

    def close(self) -> None:
        """End the thread and the workers; there are no more windows afterwards."""
        if self._batches:
            self._batches.close()
        # Dropping the iterator would do it, but after an error the traceback still holds it.
        if shutdown := getattr(self._arrays, "_shutdown_workers", None):
            workers = list(getattr(self._arrays, "_workers", []))
            shutdown()
            for worker in workers:  # one that waits for a silent server heeds neither torch nor SIGTERM
                worker.kill()
        self._batches = None
        if isinstance(self._sampler, GlobalBatchSampler):
            self._sampler.close()
        atexit.unregister(self.close)


def to_device(
    batch: Batch, device: torch.device | str, *, channels_last: bool = True, degradation: Degradation | None = None
) -> Patches:
    """Copy a batch to the device without waiting, and make it floating-point and flipped there.

    Args:
        batch: from the loader.
        device: where the networks are.
        channels_last: memory format of the result; contiguous NCHW otherwise.
        degradation: makes the LR images of the HR ones, there; None where they were read.

    Returns:
        The patches in [0, 1], HR and LR turned alike.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    on_cpu = torch.device(device).type == "cpu"
    symmetry = batch.symmetry.to(device, non_blocking=True)

    def ready(image: Tensor) -> Tensor:
        # Turned as bytes: a quarter of the memory traffic of floats.
        image = image.to(device, non_blocking=True)
        turned = turn_each(image, symmetry) if on_cpu else turn_all(image, symmetry)
        return turned.contiguous(memory_format=layout).to(torch.get_default_dtype()).div_(255)

    key = batch.key.to(device, non_blocking=True)
    if degradation is None:
        return Patches(lr=ready(batch.lr), hr=ready(batch.hr), key=key)
    lr, hr = (image.to(torch.get_default_dtype()) for image in degradation(ready(batch.hr), batch.key))
    return Patches(lr=lr.contiguous(memory_format=layout), hr=hr.contiguous(memory_format=layout), key=key)


def turn_each(image: Tensor, symmetry: Tensor) -> Tensor:
    """Flip and transpose each square image of a batch by its own code; looks at the codes, so not for a GPU.

    Args:
        image: [b, C, n, n], any dtype.
        symmetry: integer [b], 0..7; bit 0 flips left-right, bit 1 up-down, bit 2 then transposes.

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
    """Do what `turn_each` does without looking at the codes, for which the host would wait for the GPU.

    Args:
        image: as there.
        symmetry: as there.

    Returns:
        As there.
    """
    symmetry = symmetry[:, None, None, None]
    image = torch.where((symmetry & 1).bool(), image.flip(-1), image)
    image = torch.where((symmetry & 2).bool(), image.flip(-2), image)
    return torch.where((symmetry & 4).bool(), image.transpose(-1, -2), image)


def _qualified(error: Exception) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}: "


def _batches(arrays: Iterator[Arrays], gpu: int | None) -> Iterator[Batch]:
    if gpu is not None:
        torch.cuda.set_device(gpu)  # a thread begins with the first one, and page-locking opens it
    for batch in map(Batch.of, arrays):
        yield batch if gpu is None else batch.pinned()


def _as_is(batch: Any) -> Any:
    return batch  # PairDataset assembles whole batches


def _start_worker(_: int) -> None:
    # Signals meant for the training process reach its workers too; without them no checkpoint could be saved.
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
