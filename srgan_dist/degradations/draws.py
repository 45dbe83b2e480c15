"""Random numbers that depend only on a key and a counter, not on a generator, a state or the order of calls.

A sample's key is a hash of (seed, epoch, sample). Numbers drawn from it are the same on any rank, in any
micro-batch and at any position in it. Parameters are drawn on the host, because they determine shapes; noise is
drawn on the device, one hash for several pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from srgan_dist.utils.hashing import hash64

# The constants of SplitMix64 as torch's int64 holds them; multiplication wraps there as in uint64.
_GOLDEN, _FIRST, _SECOND = (value - (1 << 64) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


class Draws:
    """Draws the parameters of a batch one after the other: the n-th draw hashes (key, n).

    Inserting a draw changes all draws after it; a golden test pins them.

    Args:
        keys: [b] integers; only the low 64 bits are used.
    """

    def __init__(self, keys: ArrayLike) -> None:
        self._keys = np.atleast_1d(np.asarray(keys)).astype(np.uint64)
        self._number = 0

    def keys(self) -> NDArray[np.int64]:
        """Draw 64 random bits for each sample, as keys for further draws.

        Returns:
            int64 [b].
        """
        self._number += 1
        return hash64(self._keys, self._number).view(np.int64)

    def uniform(self, low: ArrayLike, high: ArrayLike) -> NDArray[np.float64]:
        """Draw numbers in [low, high).

        Args:
            low: Scalar or [b].
            high: Scalar or [b]; `low` itself where it equals `low`.

        Returns:
            float64 [b], of 53 random bits.
        """
        unit = (self.keys().view(np.uint64) >> np.uint64(11)) * 2.0**-53
        least = np.asarray(low, dtype=np.float64)
        return np.asarray(least + unit * (np.asarray(high) - least))

    def integers(self, low: ArrayLike, high: ArrayLike) -> NDArray[np.int64]:
        """Draw whole numbers, both ends included.

        Args:
            low: Scalar or [b].
            high: Scalar or [b], >= `low`.

        Returns:
            int64 [b].
        """
        return np.floor(self.uniform(low, np.asarray(high) + 1)).astype(np.int64)

    def chance(self, probability: float) -> NDArray[np.bool_]:
        """Draw yes or no.

        Args:
            probability: Probability of yes, in [0, 1].

        Returns:
            bool [b].
        """
        return self.uniform(0, 1) < probability

    def choice(self, probabilities: Sequence[float]) -> NDArray[np.int64]:
        """Draw one of several alternatives.

        Args:
            probabilities: Probability of each alternative; their sum is 1.

        Returns:
            int64 [b], in [0, len(probabilities)).
        """
        # Without the last bound, as a sum of 0.999... must not give an index out of range.
        return np.searchsorted(np.cumsum(probabilities)[:-1], self.uniform(0, 1), side="right").astype(np.int64)


def hash_counters(keys: Tensor, count: int) -> Tensor:
    """Hash (key, 0), (key, 1), ... on the device, with the same bits as `hashing.hash64`.

    Args:
        keys: int64 [b].
        count: Number of hashes for each key.

    Returns:
        int64 [b, count].
    """
    counters = torch.arange(count, device=keys.device)
    return _mix((_mix(keys + _GOLDEN)[:, None] ^ counters).add_(_GOLDEN))


def _mix(value: Tensor) -> Tensor:
    value = (value ^ _shifted(value, 30)).mul_(_FIRST)
    value = (value ^ _shifted(value, 27)).mul_(_SECOND)
    return value ^ _shifted(value, 31)


def _shifted(value: Tensor, places: int) -> Tensor:
    # int64's shift repeats the sign bit; the mask makes it the shift of unsigned numbers.
    return (value >> places).bitwise_and_((1 << (64 - places)) - 1)
