"""The order of training crops: a pure function of (seed, epoch), readable at any position.

The training data is one infinite stream of crops. Its whole state is a position, one integer: nothing is
shuffled, stored or replayed, so that any rank, worker or resumed run can compute any part of it by itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from srgan_dist.errors import UserError

_UInts = NDArray[np.uint64]
_Ints = NDArray[np.int64]

_MASK64 = (1 << 64) - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS = 6  # four suffice for large domains; two more cost little and mix the small ones
# The purposes a hash is drawn for. Any change here changes the order of every run: the golden test pins it.
_ORDER, _CROP = 1, 2
_TOP, _LEFT, _SYMMETRY = 1, 2, 3


class CropBatch(NamedTuple):
    """Where to cut each patch of a batch, as five arrays of the same length.

    Attributes:
        sample: int64, number of the tile in the index.
        top: int64, upper edge in LR pixels; the HR patch begins at top * scale.
        left: int64, left edge in LR pixels.
        symmetry: uint8 0..7; bit 0 flips left-right, bit 1 flips up-down, bit 2 then transposes.
        epoch: int64, the pass over the data that the crop belongs to.
    """

    sample: _Ints
    top: _Ints
    left: _Ints
    symmetry: NDArray[np.uint8]
    epoch: _Ints


class Order:
    """The stream of crops over a set of tiles.

    An epoch draws max(1, floor(area / patch_size^2)) crops from each tile: about every pixel once, so that
    images are sampled by area.

    Args:
        heights: [n] integers, HR pixels, n >= 1.
        widths: [n] integers, HR pixels.
        patch_size: side of the HR patch in pixels, a multiple of `scale`.
        scale: HR pixels per LR pixel.
        seed: any integer.

    Raises:
        UserError: a tile is smaller than the patch.
    """

    def __init__(self, *, heights: ArrayLike, widths: ArrayLike, patch_size: int, scale: int, seed: int) -> None:
        self._heights, self._widths = np.asarray(heights), np.asarray(widths)
        _refuse_small_tiles(self._heights, self._widths, patch_size)
        crops = self._heights.astype(np.int64) * self._widths // patch_size**2
        self._ends: _Ints = np.cumsum(np.maximum(crops, 1))
        self._patch_size, self._scale, self._seed = patch_size, scale, seed
        self.num_crops = int(self._ends[-1])
        """Crops in one epoch."""

    def crops(self, positions: ArrayLike) -> CropBatch:
        """Find the crops at some positions of the stream.

        Args:
            positions: [b] integers >= 0, in any order.

        Returns:
            The crops, in the order of the positions.

        Raises:
            ValueError: a position is negative.
        """
        places = np.atleast_1d(np.asarray(positions, dtype=np.int64))
        if places.size and places.min() < 0:
            raise ValueError(f"positions must be >= 0, got {places.min()}")
        epoch, place = np.divmod(places, self.num_crops)
        number = permute(place, size=self.num_crops, key=hash64(self._seed, epoch, _ORDER))
        sample = np.searchsorted(self._ends, number.astype(np.int64), side="right")
        draw = hash64(hash64(self._seed, epoch, _CROP), number)
        free_rows = (self._heights[sample] - self._patch_size) // self._scale + 1
        free_columns = (self._widths[sample] - self._patch_size) // self._scale + 1
        return CropBatch(
            sample=sample.astype(np.int64),
            top=_below(free_rows, hash64(draw, _TOP)),
            left=_below(free_columns, hash64(draw, _LEFT)),
            symmetry=_below(np.full(sample.shape, 8), hash64(draw, _SYMMETRY)).astype(np.uint8),
            epoch=epoch,
        )


def digest(crops: CropBatch) -> _Ints:
    """Hash each crop of a batch; the wrapping sum of the hashes identifies the batch.

    A sum may be taken over micro-batches and ranks in any order, also by an int64 all-reduce.

    Args:
        crops: b crops.

    Returns:
        int64 [b], of (sample, top, left, symmetry).
    """
    return hash64(crops.sample, crops.top, crops.left, crops.symmetry).view(np.int64)


def as_hex(value: int) -> str:
    """Write a digest as 16 hexadecimal digits.

    Args:
        value: a sum of digests, signed or not; only its low 64 bits count.

    Returns:
        Lower-case digits.
    """
    return f"{value & _MASK64:016x}"


def hash64(*values: ArrayLike | int) -> _UInts:
    """Hash tuples of integers, element by element.

    Args:
        values: integers or integer arrays that broadcast together; only the low 64 bits of each count.

    Returns:
        uint64 [b], b >= 1.

    Source: the finaliser of SplitMix64; Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators", 2014.
    """
    state: _UInts = np.zeros(1, dtype=np.uint64)
    for value in values:
        state = _mix((state ^ _as_uint64(value)) + _GOLDEN)
    return state


def permute(index: ArrayLike, *, size: int, key: ArrayLike) -> _UInts:
    """Send each index to another one by a keyed bijection of [0, size), in constant memory.

    A balanced Feistel network permutes the next power of four; indices that land outside walk on until they
    are inside.

    Args:
        index: [b] integers in [0, size).
        size: length of the domain, 1 to 2^62.
        key: [b] or [1] uint64, each selecting a bijection.

    Returns:
        uint64 [b] in [0, size).

    Source: Luby and Rackoff, "How to construct pseudorandom permutations", 1988; cycle walking of Black and
    Rogaway, "Ciphers with arbitrary finite domains", 2002, section 3.
    """
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    start = np.atleast_1d(_as_uint64(index))
    keys = np.broadcast_to(_as_uint64(key), start.shape)
    value = _feistel(start, keys, half_bits)
    outside = np.flatnonzero(value >= size)
    while outside.size:
        value[outside] = _feistel(value[outside], keys[outside], half_bits)
        outside = outside[value[outside] >= size]
    return value


def _feistel(value: _UInts, key: _UInts, half_bits: int) -> _UInts:
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = value >> shift, value & mask
    for _ in range(_ROUNDS):
        key = key + _GOLDEN
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << shift) | right


def _mix(value: _UInts) -> _UInts:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _below(limit: NDArray[np.integer], random: _UInts) -> _Ints:
    # Multiply and shift instead of a remainder: the bias is below limit / 2^32.
    shift = np.uint64(32)
    return (((random >> shift) * limit.astype(np.uint64)) >> shift).astype(np.int64)


def _as_uint64(value: ArrayLike | int) -> _UInts:
    if isinstance(value, int):
        return np.array([value & _MASK64], dtype=np.uint64)
    return np.asarray(value).astype(np.uint64)


def _refuse_small_tiles(heights: NDArray[np.integer], widths: NDArray[np.integer], patch_size: int) -> None:
    smaller = np.flatnonzero((heights < patch_size) | (widths < patch_size))
    if smaller.size:
        worst = smaller[np.minimum(heights[smaller], widths[smaller]).argmin()]
        raise UserError(
            f"{smaller.size} of {heights.size} tiles are smaller than the {patch_size}x{patch_size} patch, "
            f"the smallest (sample {worst}) is {heights[worst]}x{widths[worst]}: "
            f"lower data.patch_size, or pack again with --min-side {patch_size}"
        )
