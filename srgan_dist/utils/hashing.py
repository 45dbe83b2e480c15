"""Random numbers that are pure functions: a hash of integers, and a permutation that needs no table."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

UInts = NDArray[np.uint64]

MASK64 = (1 << 64) - 1
# SplitMix64's increment and multipliers, as integers and for arrays.
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_GOLDEN_U8, _FIRST_U8, _SECOND_U8 = np.uint64(_GOLDEN), np.uint64(_FIRST), np.uint64(_SECOND)
_ROUNDS = 6  # four suffice for large domains; two more cost little and mix the small ones
_FEW = 12  # up to so many indices, Python's integers are faster than one more pass of numpy


def hash64(*values: ArrayLike | int) -> UInts:
    """Hash tuples of integers, element by element.

    Args:
        values: integers or integer arrays that broadcast together; only the low 64 bits of each count.

    Returns:
        uint64 [b], b >= 1.

    Source: the finaliser of SplitMix64; Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators", 2014.
    """
    state: UInts = np.zeros(1, dtype=np.uint64)
    for value in values:
        state = absorb(state, _as_uint64(value))
    return state


def absorb(state: UInts, value: UInts) -> UInts:
    """Add one more integer to a hash: `hash64(a, b)` is `absorb(hash64(a), b)`.

    Args:
        state: uint64 [b] or [1], made by `hash64`.
        value: uint64, broadcasting with it.

    Returns:
        uint64 [b].
    """
    return _mix((state ^ value) + _GOLDEN_U8)


def permute(index: ArrayLike, *, size: int, key: ArrayLike) -> UInts:
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
    while outside.size > _FEW:
        value[outside] = _feistel(value[outside], keys[outside], half_bits)
        outside = outside[value[outside] >= size]
    for place in outside.tolist():
        one, one_key = int(value[place]), int(keys[place])
        while one >= size:
            one = _feistel_one(one, one_key, half_bits)
        value[place] = one
    return value


def _feistel(value: UInts, key: UInts, half_bits: int) -> UInts:
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = value >> shift, value & mask
    for _ in range(_ROUNDS):
        key = key + _GOLDEN_U8
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << shift) | right


def _feistel_one(value: int, key: int, half_bits: int) -> int:
    mask = (1 << half_bits) - 1
    left, right = value >> half_bits, value & mask
    for _ in range(_ROUNDS):
        key = (key + _GOLDEN) & MASK64
        mixed = right ^ key
        mixed = (mixed ^ (mixed >> 30)) * _FIRST & MASK64
        mixed = (mixed ^ (mixed >> 27)) * _SECOND & MASK64
        left, right = right, left ^ ((mixed ^ (mixed >> 31)) & mask)
    return (left << half_bits) | right


def _mix(value: UInts) -> UInts:
    value = (value ^ (value >> np.uint64(30))) * _FIRST_U8
    value = (value ^ (value >> np.uint64(27))) * _SECOND_U8
    return value ^ (value >> np.uint64(31))


def _as_uint64(value: ArrayLike | int) -> UInts:
    if isinstance(value, int):
        return np.array([value & MASK64], dtype=np.uint64)
    return np.asarray(value).astype(np.uint64)
