from __future__ import annotations

import numpy as np
import pytest
import torch

from srgan_dist.degradations.draws import Draws, hash_counters
from srgan_dist.utils.hashing import hash64

KEYS = np.array([0, 1, -1, 2**62, -(2**63), 123456789], dtype=np.int64)


def test_the_device_hashes_as_the_host_does() -> None:
    expected = hash64(KEYS[:, None], np.arange(1000)[None]).view(np.int64)
    np.testing.assert_array_equal(hash_counters(torch.from_numpy(KEYS), 1000).numpy(), expected)


def test_draws_are_the_stored_ones() -> None:
    # Another value means that every run with a degradation trains on other images.
    draws = Draws([7, 2**63])
    assert draws.keys().tolist() == hash64(np.array([7, 2**63], dtype=np.uint64), 1).view(np.int64).tolist()
    assert draws.uniform(2, 4).tolist() == pytest.approx([2.551964866654335, 2.6208549023405743], abs=1e-15)
    assert draws.integers(1, 100).tolist() == [43, 41]


def test_a_sample_draws_the_same_in_any_batch() -> None:
    whole = Draws(KEYS)
    values = [whole.uniform(0, 1), whole.uniform([1, 2, 3, 4, 5, 6], 9), whole.integers(0, 50)]
    alone = Draws(KEYS[2:3])
    assert [float(v[2]) for v in values] == [alone.uniform(0, 1)[0], alone.uniform(3, 9)[0], alone.integers(0, 50)[0]]


def test_draws_are_independent_and_as_likely_as_asked() -> None:
    draws = Draws(np.arange(40_000))
    first, second = draws.uniform(0, 1), draws.uniform(0, 1)
    counts = np.histogram2d(first, second, bins=10, range=[[0, 1], [0, 1]])[0]
    assert ((counts - 400) ** 2 / 400).sum() < 150  # chi-square of 99 degrees: 150 is p = 0.0007
    integers = draws.integers(3, 7)
    assert np.bincount(integers).tolist()[:3] == [0, 0, 0]
    np.testing.assert_allclose(np.bincount(integers)[3:] / 40_000, 0.2, atol=0.01)
    choice = draws.choice((0.5, 0.0, 0.3, 0.2))
    np.testing.assert_allclose(np.bincount(choice, minlength=4) / 40_000, (0.5, 0, 0.3, 0.2), atol=0.01)
    assert not draws.chance(0.0).any()
    assert draws.chance(1.0).all()


def test_a_range_of_one_value() -> None:
    assert Draws([1, 2]).uniform(0.3, 0.3).tolist() == [0.3, 0.3]
    assert Draws([1, 2]).integers(30, 30).tolist() == [30, 30]
