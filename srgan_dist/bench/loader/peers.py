"""Methods of reading batches: ours, and those of other trainers, each written as its users write it."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from srgan_dist.data.loading.loader import BatchStream, make_loader, to_device
from srgan_dist.data.loading.pairs import PairDataset
from srgan_dist.data.shards.shard_set import open_shards

PREFETCH = 4  # batches that each worker reads ahead, for every method
_SHUFFLED = 100  # samples in webdataset's buffer, still encoded: 70 MB of raw tiles
_ENDLESS = 2**40
_LMDB_BYTES = 2**40  # of address space, not of disk

_Bytes = NDArray[np.uint8]
_Image = NDArray[Any]


@dataclass(frozen=True)
class PatchShape:
    """Side of the HR patch in pixels, HR pixels per LR pixel, and patches in a batch."""

    size: int
    scale: int
    batch: int


def ours(folder: Path, patches: PatchShape, *, workers: int, device: torch.device | None) -> Generator[Any, None, None]:
    """Read our shards with the loader that training uses.

    Args:
        folder: Folder of packed shards.
        patches: Size, scale and number of the patches.
        workers: Number of worker processes; 0 reads in this one.
        device: Device for the batches as floats, flipped; None leaves them as bytes on the CPU.

    Yields:
        (LR, HR, ...), endlessly.
    """
    loader = make_loader(
        PairDataset(open_shards([folder]), patch_size=patches.size, seed=0),
        consumed=0,
        batch_size=patches.batch,
        rank=0,
        world_size=1,
        workers=workers,
    )
    stream = BatchStream(loader, pin_memory=device is not None and device.type == "cuda")
    try:
        for batch in stream:
            yield batch if device is None else to_device(batch, device)
    finally:
        stream.close()


def webdataset_stream(shards: Sequence[Path], patches: PatchShape, *, workers: int) -> Generator[Any, None, None]:
    """Read raw tars with webdataset's own pipeline; crops and flips, and returns bytes, as ours does.

    Args:
        shards: Tars of raw arrays.
        patches: Size, scale and number of the patches.
        workers: Number of worker processes; 0 reads in this one.

    Yields:
        (LR, HR), endlessly.
    """
    # resampled: what its maintainer recommends for endless streams; without it, every epoch ends with a wait.
    dataset = (
        webdataset.WebDataset([str(path) for path in shards], resampled=True, shardshuffle=False)
        .shuffle(_SHUFFLED, initial=_SHUFFLED)
        .decode()
        .map(_CutSample(patches))
        .batched(patches.batch)
    )
    prefetch = PREFETCH if workers else None
    yield from webdataset.WebLoader(dataset, batch_size=None, num_workers=workers, prefetch_factor=prefetch)


class _CutSample:
    def __init__(self, patches: PatchShape) -> None:
        self.patches = patches

    def __call__(self, sample: dict[str, Any]) -> tuple[Tensor, Tensor]:
        lr, hr = _cut(sample["lr.npy"], sample["hr.npy"], self.patches)
        return _planes(lr), _planes(hr)


def png_loader(pairs: PngPairs, *, workers: int) -> Generator[Any, None, None]:
    """Read single pairs with PyTorch's loader.

    Args:
        pairs: The data set.
        workers: Number of worker processes; 0 reads in this one.

    Yields:
        [LR, HR], endlessly, as every new epoch would restart the workers.
    """
    yield from DataLoader(
        pairs,
        batch_size=pairs.patches.batch,
        sampler=RandomSampler(pairs, replacement=True, num_samples=_ENDLESS),
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
    )


class PngPairs(Dataset[tuple[Tensor, Tensor]]):
    """Pairs of PNG files, each decoded completely for one patch.

    Args:
        read: Returns the bytes of a file, given its side, ``hr`` or ``lr``, and its key.
        decode: Converts bytes to [H, W, 3], and a patch to a float tensor [3, H, W] in [0, 1].
        keys: The keys of the tiles.
        patches: Size, scale and number of the patches.
    """

    def __init__(
        self,
        read: Callable[[str, str], bytes],
        decode: type[Pillow | OpenCV],
        keys: Sequence[str],
        patches: PatchShape,
    ) -> None:
        self.read, self.decode, self.keys, self.patches = read, decode, keys, patches

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        key = self.keys[number]
        hr, lr = (self.decode.image(self.read(side, key)) for side in ("hr", "lr"))
        lr, hr = _cut(lr, hr, self.patches)
        return self.decode.tensor(lr), self.decode.tensor(hr)


class Pillow:
    """Converts to floats after cutting the patch, as the usual data set of a PyTorch tutorial."""

    @staticmethod
    def image(data: bytes) -> _Image:
        """Decode a PNG file whole."""
        return np.asarray(Image.open(io.BytesIO(data), formats=["PNG"]).convert("RGB"))

    @staticmethod
    def tensor(patch: _Image) -> Tensor:
        """Make the patch a float tensor in [0, 1]."""
        return _planes(patch).float() / 255


class OpenCV:
    """Converts the whole image to floats before cutting the patch, as BasicSR does."""

    @staticmethod
    def image(data: bytes) -> _Image:
        """Decode a PNG file whole, and make it float32 in [0, 1]."""
        cv2 = import_module("cv2")
        cv2.setNumThreads(0)
        image: _Image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).astype(np.float32) / 255
        return image

    @staticmethod
    def tensor(patch: _Image) -> Tensor:
        """Turn BGR to RGB."""
        return _planes(import_module("cv2").cvtColor(np.ascontiguousarray(patch), 4))  # 4: COLOR_BGR2RGB


class Files:
    """Reads the PNG files of a folder ``SIDE/KEY.png``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, side: str, key: str) -> bytes:
        return (self.folder / side / f"{key}.png").read_bytes()


class Lmdb:
    """Reads the same PNG files from an LMDB, opened on first use, as workers must not inherit an open one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._transaction: Any = None

    def __call__(self, side: str, key: str) -> bytes:
        if self._transaction is None:
            opened = import_module("lmdb").open(str(self.folder), readonly=True, lock=False, readahead=False)
            self._transaction = opened.begin(buffers=False)
        data: bytes = self._transaction.get(f"{side}/{key}".encode())
        return data


def write_lmdb(source: Files, folder: Path, keys: Sequence[str]) -> None:
    """Copy PNG files into a new LMDB.

    Args:
        source: Reads the files.
        folder: The folder to create.
        keys: The keys of the tiles.
    """
    with import_module("lmdb").open(str(folder), map_size=_LMDB_BYTES) as database, database.begin(write=True) as all:
        for key in keys:
            for side in ("hr", "lr"):
                all.put(f"{side}/{key}".encode(), source(side, key))


def _cut(lr: _Image, hr: _Image, patches: PatchShape) -> tuple[_Image, _Image]:
    scale, small = patches.scale, patches.size // patches.scale
    top, left = (random.randint(0, side - small) for side in lr.shape[:2])
    lr = lr[top : top + small, left : left + small]
    hr = hr[top * scale : (top + small) * scale, left * scale : (left + small) * scale]
    if random.random() < 0.5:
        lr, hr = lr[:, ::-1], hr[:, ::-1]
    if random.random() < 0.5:
        lr, hr = lr[::-1], hr[::-1]
    if random.random() < 0.5:
        lr, hr = lr.swapaxes(0, 1), hr.swapaxes(0, 1)
    return lr, hr


def _planes(patch: _Image) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(patch.transpose(2, 0, 1)))
