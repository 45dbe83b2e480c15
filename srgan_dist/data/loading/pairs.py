"""Whole batches of aligned HR and LR patches, cut from the shards at any positions of the stream."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset

from srgan_dist.data.loading.order import CropBatch, Order, digest
from srgan_dist.data.shards.patch_reader import Store, Tile
from srgan_dist.data.shards.shard_set import ShardSet
from srgan_dist.errors import UserError


class Arrays(NamedTuple):
    """What `Batch` holds, as workers send it: arrays go through a pipe, tensors would each take a file.

    Attributes:
        lr: uint8 [b, p / scale, p / scale, 3]; [b, 0, 0, 3] where it was not asked for.
        hr: uint8 [b, p, p, 3].
        symmetry: uint8 [b].
        digest: int64 [b].
        key: int64 [b].
    """

    lr: NDArray[np.uint8]
    hr: NDArray[np.uint8]
    symmetry: NDArray[np.uint8]
    digest: NDArray[np.int64]
    key: NDArray[np.int64]


class Batch(NamedTuple):
    """Patches as the loader hands them out: small, on the CPU, not yet flipped.

    Attributes:
        lr: uint8 [b, 3, p / scale, p / scale], channels last; [b, 3, 0, 0] where it was not asked for.
        hr: uint8 [b, 3, p, p], channels last.
        symmetry: uint8 [b], 0..7; what `to_device` applies to both images.
        digest: int64 [b], hashes of the crops; see `order.digest`.
        key: int64 [b], a hash of (seed, epoch, crop) for what is drawn at random for each.
    """

    lr: Tensor
    hr: Tensor
    symmetry: Tensor
    digest: Tensor
    key: Tensor

    @classmethod
    def of(cls, arrays: Arrays) -> Batch:
        """Make tensors of arrays, which share their memory."""
        lr, hr, *others = (torch.from_numpy(array) for array in arrays)
        return cls(lr.permute(0, 3, 1, 2), hr.permute(0, 3, 1, 2), *others)

    def pinned(self) -> Batch:
        """Copy what goes to a GPU into page-locked memory."""
        lr, hr, symmetry, key = (part.pin_memory() for part in (self.lr, self.hr, self.symmetry, self.key))
        return self._replace(lr=lr, hr=hr, symmetry=symmetry, key=key)

    def split(self, size: int) -> list[Batch]:
        """Cut the batch into pieces, which share its memory.

        Args:
            size: patches in a piece; the last one has what remains.
        """
        return [Batch(*parts) for parts in zip(*(torch.split(part, size) for part in self), strict=True)]


class PairDataset(Dataset[Arrays]):
    """Training patches by their place in the tiles, or by their position in the infinite stream.

    Args:
        shards: the opened shards.
        patch_size: side of the HR patch in pixels, a multiple of the shards' scale.
        margin: HR pixels, likewise, that patches are cut longer and wider: a degradation cuts them off again.
        seed: of the order.
        with_lr: read LR patches too; not needed where LR images are made of HR ones.

    Raises:
        UserError: the patch size is not a multiple of the scale, or a tile is smaller than the patch.
    """

    def __init__(self, shards: ShardSet, *, patch_size: int, margin: int = 0, seed: int, with_lr: bool = True) -> None:
        for name, side, least in (("patch_size", patch_size, 1), ("degradation.margin", margin, 0)):
            if side % shards.scale or side < least:
                raise UserError(
                    f"data.{name} is {side}, allowed are multiples of the shards' scale {shards.scale}: "
                    f"take {max(side // shards.scale, least) * shards.scale}, for example"
                )
        self.shards = shards
        self._side = patch_size + margin
        self.order = Order(
            heights=shards.index["height"],
            widths=shards.index["width"],
            patch_size=patch_size,
            margin=margin,
            scale=shards.scale,
            seed=seed,
            shard_samples=shards.shard_samples,
            window_shards=shards.window_shards,
        )
        self._with_lr = with_lr
        self._store = Store(shards)

    @property
    def num_crops(self) -> int:
        """Positions in one epoch."""
        return self.order.num_crops

    def at(self, positions: ArrayLike) -> Batch:
        """Cut the patches at some positions.

        Args:
            positions: b integers >= 0.

        Returns:
            The batch, in the order of the positions.

        Raises:
            ShardError: a shard cannot be read.
        """
        return Batch.of(self.__getitems__(self.order.crops(positions)))

    def __getitems__(self, crops: CropBatch) -> Arrays:
        """Cut some patches; for torch's loader.

        Args:
            crops: b crops.

        Returns:
            The patches, in the order of the crops.

        Raises:
            ShardError: a shard cannot be read.
        """
        scale = self.shards.scale
        rows = self.shards.index[crops.sample]
        heights, widths = rows["height"].astype(np.int64), rows["width"].astype(np.int64)
        sides = (self._side // scale if self._with_lr else 0, self._side)
        lr, hr = (np.empty((len(rows), side, side, 3), dtype=np.uint8) for side in sides)
        places = zip(
            _tiles(rows, "lr", heights // scale, widths // scale),
            _tiles(rows, "hr", heights, widths),
            crops.top.tolist(),
            crops.left.tolist(),
            lr,
            hr,
            strict=True,
        )
        for small, large, top, left, lr_out, hr_out in places:
            if not self._with_lr:
                self._store.read_crop(large, top=top * scale, left=left * scale, out=hr_out)
            elif small.size:
                self._store.read_crop(small, top=top, left=left, out=lr_out)
                self._store.read_crop(large, top=top * scale, left=left * scale, out=hr_out)
            else:  # shards without LR: only its whole HR image tells what the LR image has at the crop's borders
                self._store.read_pair(large, scale=scale, top=top, left=left, hr=hr_out, lr=lr_out)
        return Arrays(lr=lr, hr=hr, symmetry=crops.symmetry, digest=digest(crops), key=crops.key)


def _tiles(rows: NDArray[np.void], side: str, heights: NDArray[np.int64], widths: NDArray[np.int64]) -> list[Tile]:
    columns = (rows["shard"], rows[f"{side}_offset"], rows[f"{side}_size"], heights, widths)
    return [Tile(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]
