"""The order of training patches: pinned, uniform, and readable at any position."""

from __future__ import annotations

import numpy as np
import pytest

from srgan_dist.data.loading.order import Order, PatchLocations, as_hex, digest
from srgan_dist.errors import UserError
from srgan_dist.utils.hashing import hash64, permute
from tests.effort import effort

GOLDEN = {
    "sample": [2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2],
    "top": [1, 6, 16, 2, 13, 10, 0, 10, 12, 14, 17, 14],
    "left": [11, 13, 7, 1, 1, 15, 0, 19, 0, 10, 13, 14],
    "symmetry": [7, 4, 1, 0, 3, 7, 7, 0, 7, 6, 2, 2],
    "digest": "2f0dec594dd4e011",
}
WINDOWED = {
    "sample": [14, 10, 2, 4, 11, 6, 22, 14],
    "shard": [3, 3, 0, 0, 3, 3, 6, 3],
    "digest": "38b40d83f9ced8fd",
}
SIZES = [1, 2, 3, 7, 480, 1000, 65537]


def small_order(seed: int = 7) -> Order:
    return Order(heights=[48, 24, 96], widths=[24, 24, 100], patch_size=24, scale=4, seed=seed)


def test_the_order_of_patches_is_the_stored_one() -> None:
    # Stored once. A change here means that every run's data order changed, and with it all resumed runs.
    patches = small_order().patches([*range(8), 17, 18, 19, 1_000_000_007])
    assert patches.sample.tolist() == GOLDEN["sample"]
    assert patches.top.tolist() == GOLDEN["top"]
    assert patches.left.tolist() == GOLDEN["left"]
    assert patches.symmetry.tolist() == GOLDEN["symmetry"]
    assert patches.epoch.tolist() == [0] * 10 + [1, 52_631_579]
    assert as_hex(int(digest(patches).sum())) == GOLDEN["digest"]


def test_hash_and_permutation_are_the_stored_ones() -> None:
    # The first output of SplitMix64 from state 0, as its authors publish it.
    assert as_hex(int(hash64(0)[0])) == "e220a8397b1dcdaf"
    assert hash64(-1, 5)[0] == hash64(2**64 - 1, 5)[0] != hash64(5, -1)[0]
    assert permute(np.arange(8), size=1000, key=1).tolist() == [16, 10, 810, 371, 571, 676, 148, 307]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("key", [0, 1, 2**64 - 1])
def test_permute_is_a_bijection(size: int, key: int) -> None:
    assert sorted(permute(np.arange(size), size=size, key=key).tolist()) == list(range(size))


def test_permute_can_be_evaluated_anywhere() -> None:
    whole = permute(np.arange(1000), size=1000, key=5)
    np.testing.assert_array_equal(permute([999, 3, 3], size=1000, key=5), whole[[999, 3, 3]])
    huge = permute(np.arange(50), size=2**61 + 3, key=5)
    assert len(set(huge.tolist())) == 50


def test_permute_mixes() -> None:
    images = np.stack([permute(np.arange(256), size=256, key=key) for key in range(400)]).astype(float)
    # Each place receives every value about equally often: its mean is near 127.5 (deviation 74 / 20 = 3.7).
    assert np.abs(images.mean(axis=0) - 127.5).max() < 18
    neighbours = [np.corrcoef(image[:-1], image[1:])[0, 1] for image in images]
    assert abs(np.mean(neighbours)) < 0.02
    assert len(np.unique(images, axis=0)) == 400


def test_every_patch_is_read_once_an_epoch() -> None:
    order = small_order()
    assert order.num_patches == 2 + 1 + 16
    for epoch in range(3):
        patches = order.patches(np.arange(order.num_patches) + epoch * order.num_patches)
        assert np.bincount(patches.sample).tolist() == [2, 1, 16]
        assert set(patches.epoch.tolist()) == {epoch}


def test_epochs_and_seeds_differ() -> None:
    place = np.arange(19)
    orders = [small_order(seed).patches(place + start) for seed in (7, 8, -1) for start in (0, 19)]
    assert len({tuple(patches.sample.tolist()) for patches in orders}) == 6
    assert len({tuple(patches.left.tolist()) for patches in orders}) == 6
    assert len({int(digest(patches).sum()) for patches in orders}) == 6


def test_positions_do_not_depend_on_each_other() -> None:
    order = small_order()
    whole = order.patches(np.arange(100))
    for start in (0, 13, 50):
        part = order.patches(np.arange(start, start + 50))
        for found, expected in zip(part, whole, strict=True):
            np.testing.assert_array_equal(found, np.asarray(expected)[start : start + 50])


def test_locations_are_uniform() -> None:
    order = Order(heights=[64], widths=[48], patch_size=32, scale=4, seed=0)
    patches = order.patches(np.arange(27_000))
    for values, count in ((patches.top, 9), (patches.left, 5), (patches.symmetry, 8)):
        fraction = np.bincount(values, minlength=count) / 27_000
        assert len(fraction) == count
        np.testing.assert_allclose(fraction, 1 / count, rtol=0.08)
    pairs = np.bincount(patches.top * 5 + patches.left, minlength=45) / 27_000
    np.testing.assert_allclose(pairs, 1 / 45, rtol=0.2)


def test_patches_stay_inside_their_tiles() -> None:
    heights, widths = np.array([24, 100, 28]), np.array([24, 24, 60])
    patches = Order(heights=heights, widths=widths, patch_size=24, scale=4, seed=1).patches(np.arange(2000))
    assert patches.top.min() == 0
    assert (patches.top * 4 + 24 <= heights[patches.sample]).all()
    assert (patches.left * 4 + 24 <= widths[patches.sample]).all()


def test_digest_is_a_commutative_sum() -> None:
    order = small_order()
    whole = digest(order.patches(np.arange(64))).sum()
    parts = [digest(order.patches(np.arange(start, start + 16))).sum() for start in (48, 0, 32, 16)]
    assert np.sum(parts) == whole
    assert as_hex(-1) == "f" * 16
    assert as_hex(2**64 + 10) == "000000000000000a"


def test_small_tiles_are_counted() -> None:
    with pytest.raises(UserError, match=r"2 of 4 tiles are smaller than the 48x48 patch.*sample 3\) is 40x12"):
        Order(heights=[96, 20, 48, 40], widths=[96, 96, 48, 12], patch_size=48, scale=4, seed=0)


def test_negative_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="must be >= 0, got -3"):
        small_order().patches([2, -3])


def test_a_million_samples_start_without_a_loop_over_them() -> None:
    sides = np.full(1_000_000, 480, dtype=np.uint16)

    def start() -> tuple[Order, PatchLocations]:
        order = Order(heights=sides, widths=sides, patch_size=96, scale=4, seed=0)
        return order, order.patches(np.arange(16))

    cost = effort(start)
    assert cost.lines < 20_000  # no loop over samples
    assert cost.peak_bytes < 20e6  # ten bytes a sample, and nothing for each of 25 million patches
    order, patches = start()
    assert order.num_patches == 25_000_000
    assert patches.sample.max() < 1_000_000


SHARD_SAMPLES = [5, 1, 0, 9, 3, 4, 2]  # one of them is empty


def windowed(window_shards: int | None = 2, *, seed: int = 7) -> Order:
    """24 tiles in 7 shards, with 1 to 16 patches each."""
    heights, widths = np.resize([48, 24, 96, 50], 24), np.resize([24, 24, 100], 24)
    return Order(heights=heights, widths=widths, patch_size=24, scale=4, seed=seed, shard_samples=SHARD_SAMPLES,
                 window_shards=window_shards)  # fmt: skip


def shard_of(patches: PatchLocations) -> np.ndarray:
    return np.repeat(np.arange(7), SHARD_SAMPLES)[patches.sample]


def test_the_order_within_windows_is_the_stored_one() -> None:
    # Stored once, like the order without windows.
    patches = windowed().patches([*range(6), 100, 10_000_019])
    assert patches.sample.tolist() == WINDOWED["sample"]
    assert shard_of(patches).tolist() == WINDOWED["shard"]
    assert as_hex(int(digest(windowed().patches(np.arange(5000))).sum())) == WINDOWED["digest"]


@pytest.mark.parametrize("window_shards", [1, 2, 3, 7, 100])
def test_shuffle_windows_hold_every_patch_once_an_epoch(window_shards: int) -> None:
    order, without = windowed(window_shards), windowed(None)
    assert order.num_patches == without.num_patches
    for epoch in range(3):
        place = np.arange(order.num_patches) + epoch * order.num_patches
        patches, others = order.patches(place), without.patches(place)
        # The same patches, in another order: a patch's location depends on its number alone.
        assert sorted(digest(patches).tolist()) == sorted(digest(others).tolist())
        assert (patches.sample != others.sample).any()


@pytest.mark.parametrize("window_shards", [1, 2, 3])
def test_shuffle_windows_read_few_shards_at_a_time_and_announce_them(window_shards: int) -> None:
    order = windowed(window_shards)
    position, previous = 0, None
    orders: dict[int, list[int]] = {}
    while position < 3 * order.num_patches:
        shards, until = order.upcoming_shards(position)
        assert order.upcoming_shards(until - 1) == (shards, until)
        read = set(shard_of(order.patches(np.arange(position, until))).tolist())
        assert len(read) <= window_shards
        assert read <= set(shards[:window_shards])
        assert previous is None or read <= previous
        assert len(shards) == len(set(shards)) <= 2 * window_shards
        assert position // order.num_patches == (until - 1) // order.num_patches
        previous = set(shards)
        orders.setdefault(position // order.num_patches, []).extend(shards[: len(read)])
        position = until
    assert len({tuple(shards) for shards in orders.values()}) == 3  # every epoch takes the shards in another order
    assert all(sorted(shards) == [0, 1, 3, 4, 5, 6] for shards in orders.values())


def test_shuffle_windows_can_be_read_anywhere() -> None:
    order = windowed()
    whole = windowed().patches(np.arange(3 * order.num_patches))
    place = np.random.default_rng(0).permutation(3 * order.num_patches)[:500]
    for found, expected in zip(order.patches(place), whole, strict=True):
        np.testing.assert_array_equal(found, np.asarray(expected)[place])
    for position in place[:50].tolist():
        assert order.patches(position).sample == whole.sample[position]


def test_shuffle_windows_mix_their_shards_and_differ_by_seed() -> None:
    order = windowed(7)
    assert len({tuple(windowed(3, seed=seed).patches(np.arange(50)).sample) for seed in range(5)}) == 5
    shards = shard_of(order.patches(np.arange(order.num_patches)))
    assert np.abs(np.diff(shards)).mean() > 1  # one window of all shards has no runs of a shard


def test_without_windows_all_shards_are_upcoming() -> None:
    order = windowed(None)
    assert order.upcoming_shards(order.num_patches + 3) == (list(range(7)), 2 * order.num_patches)


def test_a_shuffle_window_needs_a_shard() -> None:
    with pytest.raises(UserError, match="shards in a window are 0, allowed is a whole number >= 1"):
        windowed(0)


def test_ten_thousand_shards_are_planned_without_a_loop_over_them() -> None:
    sides = np.full(100_000, 480, dtype=np.uint16)
    order = Order(heights=sides, widths=sides, patch_size=96, scale=4, seed=0, shard_samples=[10] * 10_000,
                  window_shards=16)  # fmt: skip
    assert effort(lambda: (order.patches(np.arange(16)), order.upcoming_shards(0))).lines < 8_000
    assert order.upcoming_shards(0).until == 16 * 10 * 25
