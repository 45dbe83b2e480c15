"""Whole batches of aligned HR and LR patches, cut from the shards at any positions of the stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from srgan_dist.data.index import ShardSet
from srgan_dist.data.order import Order, digest
from srgan_dist.data.store import Store, Tile
from srgan_dist.errors import UserError


class Batch(NamedTuple):
    """A micro-batch as the loader hands it out: small, on the CPU, not yet flipped.

    Attributes:
        lr: uint8 [b, 3, p / scale, p / scale], channels last.
        hr: uint8 [b, 3, p, p], channels last.
        symmetry: uint8 [b], 0..7; what `to_device` applies to both images.
        digest: int64 scalar, the wrapping sum of the crops' hashes.
    """

    lr: Tensor
    hr: Tensor
    symmetry: Tensor
    digest: Tensor


class PairDataset(Dataset[Batch]):
    """Training patches by their position in the infinite stream; a list of positions is one batch.

    Args:
        shards: the opened shards.
        patch_size: side of the HR patch in pixels, a multiple of the shards' scale.
        seed: of the order.

    Raises:
        UserError: the patch size is not a multiple of the scale, or a tile is smaller than the patch.
    """

    def __init__(self, shards: ShardSet, *, patch_size: int, seed: int) -> None:
        if patch_size < shards.scale or patch_size % shards.scale:
            raise UserError(
                f"data.patch_size is {patch_size}, allowed are multiples of the shards' scale "
                f"{shards.scale}: "
                f"take {max(patch_size // shards.scale, 1) * shards.scale}, for example"
            )
        self.shards = shards
        self.patch_size = patch_size
        self.order = Order(
            heights=shards.index["height"],
            widths=shards.index["width"],
            patch_size=patch_size,
            scale=shards.scale,
            seed=seed,
        )
        self._store = Store(shards)

    @property
    def num_crops(self) -> int:
        """Positions in one epoch."""
        return self.order.num_crops

    def __getitem__(self, position: int) -> Batch:
        """Cut the patch at one position, as a batch of one."""
        return self.__getitems__([position])

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        """Cut the patches at some positions.

        Args:
            positions: b integers >= 0.

        Returns:
            The batch, in the order of the positions.

        Raises:
            ShardError: a shard cannot be read.
        """
        scale = self.shards.scale
        crops = self.order.crops(positions)
        rows = self.shards.index[crops.sample]
        heights, widths = rows["height"].astype(np.int64), rows["width"].astype(np.int64)
        lr, hr = (
            self._cut(
                _tiles(rows, side, heights // shrink, widths // shrink),
                tops=crops.top * grow,
                lefts=crops.left * grow,
                size=self.patch_size // shrink,
            )
            for side, shrink, grow in (("lr", scale, 1), ("hr", 1, scale))
        )
        return Batch(
            lr=lr,
            hr=hr,
            symmetry=torch.from_numpy(crops.symmetry),
            digest=torch.from_numpy(digest(crops)).sum(),
        )

    def _cut(self, tiles: Sequence[Tile], *, tops: NDArray[np.int64], lefts: NDArray[np.int64], size: int) -> Tensor:
        patches = np.empty((len(tiles), size, size, 3), dtype=np.uint8)
        for tile, top, left, out in zip(tiles, tops.tolist(), lefts.tolist(), patches, strict=True):
            self._store.read_crop(tile, top=top, left=left, out=out)
        return torch.from_numpy(patches).permute(0, 3, 1, 2)


def _tiles(rows: NDArray[np.void], side: str, heights: NDArray[np.int64], widths: NDArray[np.int64]) -> list[Tile]:
    columns = (rows["shard"], rows[f"{side}_offset"], rows[f"{side}_size"], heights, widths)
    return [Tile(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]
