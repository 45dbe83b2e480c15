"""Whole batches of aligned HR and LR patches, read from the shards at any positions of the stream."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset

from srgan_dist.data.loading.order import Order, PatchLocations, digest
from srgan_dist.data.shards.patch_reader import PatchReader, Tile
from srgan_dist.data.shards.shard_set import ShardSet
from srgan_dist.errors import UserError


class Arrays(NamedTuple):
    """The content of a `Batch` as NumPy arrays, in which form workers send it.

    Arrays go through a pipe; each tensor would take a file descriptor of shared memory.

    Attributes:
        lr: uint8 [b, p / scale, p / scale, 3]; [b, 0, 0, 3] where LR is not read.
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
    """HR and LR patches as the loader yields them: bytes, on the CPU, not yet flipped.

    Attributes:
        lr: uint8 [b, 3, p / scale, p / scale], channels last; [b, 3, 0, 0] where LR is not read.
        hr: uint8 [b, 3, p, p], channels last.
        symmetry: uint8 [b], 0..7; what `to_device` applies to both images.
        digest: int64 [b], hashes of the patches' locations; see `order.digest`.
        key: int64 [b], a hash of (seed, epoch, patch), which seeds the random degradation of each patch.
    """

    lr: Tensor
    hr: Tensor
    symmetry: Tensor
    digest: Tensor
    key: Tensor

    @classmethod
    def of(cls, arrays: Arrays) -> Batch:
        """Wrap arrays as tensors that share their memory."""
        lr, hr, *others = (torch.from_numpy(array) for array in arrays)
        return cls(lr.permute(0, 3, 1, 2), hr.permute(0, 3, 1, 2), *others)

    def pinned(self) -> Batch:
        """Copy what a GPU needs into page-locked memory."""
        lr, hr, symmetry, key = (part.pin_memory() for part in (self.lr, self.hr, self.symmetry, self.key))
        return self._replace(lr=lr, hr=hr, symmetry=symmetry, key=key)

    def split(self, size: int) -> list[Batch]:
        """Split the batch into micro-batches that share its memory.

        Args:
            size: Patches in a micro-batch; the last one has what remains.
        """
        return [Batch(*parts) for parts in zip(*(torch.split(part, size) for part in self), strict=True)]


class PairDataset(Dataset[Arrays]):
    """Training patches by their location in the tiles, or by their position in the infinite stream.

    Args:
        shards: The opened shards.
        patch_size: Side of the HR patch in pixels, a multiple of the shards' scale.
        margin: HR pixels, a multiple of the scale, that are read in addition; a degradation crops them off again.
        seed: Seed of the order.
        with_lr: Whether to read LR patches too; not needed where a degradation makes them from the HR patches.

    Raises:
        UserError: The patch size is not a multiple of the scale, or a tile is smaller than the patch.
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
        self._reader = PatchReader(shards)

    @property
    def num_patches(self) -> int:
        """Patches in one epoch."""
        return self.order.num_patches

    def at(self, positions: ArrayLike) -> Batch:
        """Read the patches at some positions.

        Args:
            positions: Integers >= 0, [b].

        Returns:
            The batch, in the order of the positions.

        Raises:
            ShardError: A shard cannot be read.
        """
        return Batch.of(self.__getitems__(self.order.patches(positions)))

    def __getitems__(self, patches: PatchLocations) -> Arrays:
        """Read a whole batch of patches; called by torch's `DataLoader`.

        Args:
            patches: Locations of b patches.

        Returns:
            Their pixels, in the same order.

        Raises:
            ShardError: A shard cannot be read.
        """
        scale = self.shards.scale
        rows = self.shards.index[patches.sample]
        heights, widths = rows["height"].astype(np.int64), rows["width"].astype(np.int64)
        sides = (self._side // scale if self._with_lr else 0, self._side)
        lr, hr = (np.empty((len(rows), side, side, 3), dtype=np.uint8) for side in sides)
        locations = zip(
            _tiles(rows, "lr", heights // scale, widths // scale),
            _tiles(rows, "hr", heights, widths),
            patches.top.tolist(),
            patches.left.tolist(),
            lr,
            hr,
            strict=True,
        )
        for small, large, top, left, lr_out, hr_out in locations:
            if not self._with_lr:
                self._reader.read_patch(large, top=top * scale, left=left * scale, out=hr_out)
            elif small.size:
                self._reader.read_patch(small, top=top, left=left, out=lr_out)
                self._reader.read_patch(large, top=top * scale, left=left * scale, out=hr_out)
            else:  # no stored LR: at the patch's borders it depends on pixels of the HR image outside the patch
                self._reader.read_pair(large, scale=scale, top=top, left=left, hr=hr_out, lr=lr_out)
        return Arrays(lr=lr, hr=hr, symmetry=patches.symmetry, digest=digest(patches), key=patches.key)


def _tiles(rows: NDArray[np.void], side: str, heights: NDArray[np.int64], widths: NDArray[np.int64]) -> list[Tile]:
    columns = (rows["shard"], rows[f"{side}_offset"], rows[f"{side}_size"], heights, widths)
    return [Tile(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]
