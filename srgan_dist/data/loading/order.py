"""The order of training patches: a pure function of (seed, epoch), readable at any position.

The training data is one infinite stream of patches. Its whole state is a position, one integer: nothing is
shuffled, stored or replayed, so that any rank, worker or resumed run can compute any part of it by itself.

An epoch is permuted over the whole set or, where shards are remote or the disk is slow, within shuffle windows: the
shards of the epoch are permuted and read a few at a time, and patches are permuted within such a window only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from srgan_dist.errors import UserError
from srgan_dist.utils.hashing import MASK64, UInts, absorb, hash64, permute

_Ints = NDArray[np.int64]

# What a hash is drawn for. Any change here changes the order of every run: the golden test pins it.
_ORDER, _PATCH, _SHARDS = 1, 2, 3
_PURPOSES = np.array([[1], [2], [3], [4]], dtype=np.uint64)  # top, left, symmetry, key
_CHUNK = 1 << 16  # rows of the index processed together: a few MB, which stay in the processor's cache


class PatchLocations(NamedTuple):
    """Where to read each patch of a batch, as six arrays of the same length.

    Attributes:
        sample: int64, number of the tile in the index.
        top: int64, upper edge in LR pixels; the HR patch begins at top * scale.
        left: int64, left edge in LR pixels.
        symmetry: uint8 0..7; bit 0 flips left-right, bit 1 flips up-down, bit 2 then transposes.
        epoch: int64, the pass over the data that the patch belongs to.
        key: int64, a hash of (seed, epoch, patch), for whatever else is drawn at random for it.
    """

    sample: _Ints
    top: _Ints
    left: _Ints
    symmetry: NDArray[np.uint8]
    epoch: _Ints
    key: _Ints

    def part(self, first: int, end: int) -> PatchLocations:
        """Slice the batch; the arrays share its memory.

        Args:
            first: Index of the first patch.
            end: Index after the last patch.
        """
        chosen = slice(first, end)
        return PatchLocations(
            sample=self.sample[chosen],
            top=self.top[chosen],
            left=self.left[chosen],
            symmetry=self.symmetry[chosen],
            epoch=self.epoch[chosen],
            key=self.key[chosen],
        )


class Upcoming(NamedTuple):
    """The shards that will be read soon.

    Attributes:
        shards: Numbers of the shards of this shuffle window, then of the next one, each once.
        until: First position of the next shuffle window.
    """

    shards: list[int]
    until: int


class _Epoch(NamedTuple):
    number: int
    shards: _Ints  # in this epoch's order
    ends: _Ints  # number of patches up to and including each of them
    window_ends: _Ints


class Order:
    """The infinite stream of patches over a set of tiles.

    An epoch draws max(1, floor(area / side^2)) patches from each tile: about every pixel once, so that
    images are sampled by area.

    Args:
        heights: [n] integers, HR pixels, n >= 1.
        widths: [n] integers, HR pixels.
        patch_size: Side of the HR patch in pixels, a multiple of `scale`.
        margin: HR pixels, a multiple of `scale`, that are read in addition: the side that is read is the sum.
        scale: HR pixels per LR pixel.
        seed: Any integer.
        shard_samples: Tiles of each shard, in the order of the tiles; their sum is n. Needed for shuffle windows only.
        window_shards: Shards in a shuffle window, >= 1; None permutes over the whole set.

    Raises:
        UserError: A tile is smaller than a patch, or a shuffle window has no shards.
    """

    def __init__(
        self,
        *,
        heights: ArrayLike,
        widths: ArrayLike,
        patch_size: int,
        margin: int = 0,
        scale: int,
        seed: int,
        shard_samples: Sequence[int] = (),
        window_shards: int | None = None,
    ) -> None:
        if window_shards is not None and window_shards < 1:
            raise UserError(f"shards in a window are {window_shards}, allowed is a whole number >= 1")
        self._heights, self._widths = np.asarray(heights), np.asarray(widths)
        self._side, self._scale, self._seed = patch_size + margin, scale, seed
        self._ends = _patch_ends(self._heights, self._widths, patch_size, margin)
        self._window_shards = window_shards
        tiles = np.cumsum([0, *shard_samples])
        # In patches, starting with 0.
        self._shard_ends: _Ints = np.where(tiles > 0, self._ends[tiles - 1], 0)
        self._epoch: _Epoch | None = None
        self._keys: tuple[int, UInts, UInts] | None = None
        self.num_patches = int(self._ends[-1])
        """Patches in one epoch."""

    def patches(self, positions: ArrayLike) -> PatchLocations:
        """Locate the patches at some positions of the stream.

        Args:
            positions: [b] integers >= 0, in any order.

        Returns:
            Where to read them, in the order of the positions.

        Raises:
            ValueError: A position is negative.
        """
        places = np.atleast_1d(np.asarray(positions, dtype=np.int64))
        if places.size and places.min() < 0:
            raise ValueError(f"positions must be >= 0, got {places.min()}")
        epoch, place = np.divmod(places, self.num_patches)
        order_key, patch_state = self._keys_of(epoch)
        if self._window_shards:
            number = self._permute_in_windows(epoch, place)
        else:
            number = permute(place, size=self.num_patches, key=order_key)
        sample = np.searchsorted(self._ends, number.astype(np.int64), side="right")
        limits = np.full((3, sample.size), 8, dtype=np.int64)
        limits[0] = (self._heights[sample] - self._side) // self._scale + 1
        limits[1] = (self._widths[sample] - self._side) // self._scale + 1
        random = hash64(absorb(patch_state, number), _PURPOSES)
        top, left, symmetry = _below(limits, random[:3])
        return PatchLocations(
            sample=sample.astype(np.int64),
            top=top,
            left=left,
            symmetry=symmetry.astype(np.uint8),
            epoch=epoch,
            key=random[3].view(np.int64),
        )

    def upcoming_shards(self, position: int) -> Upcoming:
        """List the shards that will be read from a position on, so that they can be fetched ahead.

        Args:
            position: Integer >= 0.

        Returns:
            The shards of the position's shuffle window and of the next one; all shards where there are no windows.
        """
        epoch, place = divmod(position, self.num_patches)
        size = self._window_shards
        if not size:
            return Upcoming(list(range(len(self._shard_ends) - 1)), (epoch + 1) * self.num_patches)
        plan = self._plan(epoch)
        window = int(np.searchsorted(plan.window_ends, place, side="right"))
        shards = plan.shards[window * size : (window + 2) * size].tolist()
        if window + 1 == len(plan.window_ends):
            shards += self._plan(epoch + 1).shards[:size].tolist()
        return Upcoming(list(dict.fromkeys(shards)), epoch * self.num_patches + int(plan.window_ends[window]))

    def _permute_in_windows(self, epoch: _Ints, place: _Ints) -> UInts:
        number = np.empty(place.shape, dtype=np.uint64)
        for one_epoch in np.unique(epoch).tolist():
            plan = self._plan(one_epoch)
            inside = np.flatnonzero(epoch == one_epoch)
            windows = np.searchsorted(plan.window_ends, place[inside], side="right")
            for window in np.unique(windows).tolist():
                here = inside[windows == window]
                start = int(plan.window_ends[window - 1]) if window else 0
                size = int(plan.window_ends[window]) - start
                key = hash64(self._seed, one_epoch, _ORDER, window)
                within = permute(place[here] - start, size=size, key=key).astype(np.int64) + start
                slot = np.searchsorted(plan.ends, within, side="right")
                number[here] = self._shard_ends[plan.shards[slot] + 1] - (plan.ends[slot] - within)
        return number

    def _plan(self, epoch: int) -> _Epoch:
        if self._epoch is None or self._epoch.number != epoch:
            sizes, window = np.diff(self._shard_ends), self._window_shards or 1
            key = hash64(self._seed, epoch, _SHARDS)
            shards = permute(np.arange(sizes.size), size=sizes.size, key=key).astype(np.int64)
            shards = shards[sizes[shards] > 0]  # so that no shuffle window is empty
            ends = np.cumsum(sizes[shards])
            last_slots = np.minimum(np.arange(0, shards.size, window) + window, shards.size) - 1
            self._epoch = _Epoch(epoch, shards, ends, ends[last_slots])
        return self._epoch

    def _keys_of(self, epoch: _Ints) -> tuple[UInts, UInts]:
        first = int(epoch[0]) if epoch.size else 0
        if (epoch != first).any():  # across the end of an epoch: a key for each position
            return hash64(self._seed, epoch, _ORDER), hash64(hash64(self._seed, epoch, _PATCH))
        if self._keys is None or self._keys[0] != first:
            self._keys = (first, hash64(self._seed, first, _ORDER), hash64(hash64(self._seed, first, _PATCH)))
        return self._keys[1:]


def digest(patches: PatchLocations) -> _Ints:
    """Hash each patch of a batch; the wrapping sum of the hashes identifies the batch.

    The sum may be taken over micro-batches and ranks in any order, also by an int64 all-reduce.

    Args:
        patches: Locations of b patches.

    Returns:
        int64 [b], of (sample, top, left, symmetry).
    """
    return hash64(patches.sample, patches.top, patches.left, patches.symmetry).view(np.int64)


def as_hex(value: int) -> str:
    """Format a digest as 16 hexadecimal digits.

    Args:
        value: A sum of digests, signed or not; only its low 64 bits count.

    Returns:
        Lower-case digits.
    """
    return f"{value & MASK64:016x}"


def _below(limit: NDArray[np.integer], random: UInts) -> _Ints:
    # Multiply and shift instead of a remainder: the bias is below limit / 2^32.
    shift = np.uint64(32)
    return (((random >> shift) * limit.astype(np.uint64)) >> shift).astype(np.int64)


def _patch_ends(heights: NDArray[np.integer], widths: NDArray[np.integer], patch_size: int, margin: int) -> _Ints:
    side = patch_size + margin
    ends: _Ints = np.empty(heights.size, dtype=np.int64)
    for start in range(0, heights.size, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        rows, columns = heights[chunk].astype(np.int64), widths[chunk].astype(np.int64)
        if min(rows.min(), columns.min()) < side:
            raise _small_tiles(heights, widths, patch_size, margin)
        ends[chunk] = rows * columns // side**2
    return np.cumsum(np.maximum(ends, 1, out=ends), out=ends)


def _small_tiles(heights: NDArray[np.integer], widths: NDArray[np.integer], patch_size: int, margin: int) -> UserError:
    side = patch_size + margin
    smaller = np.flatnonzero((heights < side) | (widths < side))
    worst = smaller[np.minimum(heights[smaller], widths[smaller]).argmin()]
    patch, settings = f"{side}x{side} patch", "data.patch_size"
    if margin:
        patch += f" (data.patch_size {patch_size} + the degradation's margin {margin})"
        settings += " or data.degradation.margin"
    return UserError(
        f"{smaller.size} of {heights.size} tiles are smaller than the {patch}, the smallest (sample {worst}) is "
        f"{heights[worst]}x{widths[worst]}: lower {settings}, or pack again with --min-side {side}"
    )
