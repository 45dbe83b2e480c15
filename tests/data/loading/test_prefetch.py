"""Shards are fetched before they are read, and one that fails stops no other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from srgan_dist.data.loading.order import Order, Upcoming
from srgan_dist.data.loading.prefetch import Prefetcher
from srgan_dist.data.packing.pack import pack
from srgan_dist.data.shards.shard_set import ShardSet, open_shards
from tests.data.webserver import WebServer, serving


class ScriptedOrder:
    """An order whose shuffle windows the test prescribes."""

    def __init__(self, *windows: tuple[list[int], int]) -> None:
        self.windows, self.asked = windows, 0

    def upcoming_shards(self, position: int) -> Upcoming:
        self.asked += 1
        return next(Upcoming(shards, until) for shards, until in self.windows if position < until)


@pytest.fixture
def web(photos: Path, tmp_path: Path) -> Iterator[WebServer]:
    pack(photos, tmp_path / "root/set", scale=4, tile=32, shard_bytes=20_000)
    with serving(tmp_path / "root") as web:
        yield web


def opened(web: WebServer, cache: Path, *, room: int) -> ShardSet:
    """Opened remote shards with a cache that has room for `room` of them."""
    largest = max(path.stat().st_size for path in (web.folder / "set").glob("*.tar"))
    return open_shards([f"{web.url}/set"], window_shards=room // 2, cache_dir=cache, cache_bytes=room * largest)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_cached_shard_of_the_next_window_is_not_evicted_for_another(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srgan_dist.data.loading.prefetch._FETCHERS", 1)
    shards = opened(web, tmp_path / "cache", room=2)
    shards.fetch(5)  # used longest ago
    shards.fetch(6)
    prefetcher = Prefetcher(shards, cast("Order", ScriptedOrder(([7, 5], 10))))
    prefetcher.reached(0)
    wait_for(lambda: shards.shard_paths[7].exists())
    prefetcher.close()
    assert shards.shard_paths[5].exists()
    assert not shards.shard_paths[6].exists()
    assert web.requests["shard-000005.tar"] == 1


def test_the_order_is_asked_once_per_shuffle_window(web: WebServer, tmp_path: Path) -> None:
    script = ScriptedOrder(([0], 10), ([1], 20))
    prefetcher = Prefetcher(opened(web, tmp_path / "cache", room=4), cast("Order", script))
    for position in range(20):
        prefetcher.reached(position)
    assert script.asked == 2
    prefetcher.close()
    prefetcher.reached(20)
    assert script.asked == 2


def test_a_shard_that_cannot_be_fetched_does_not_stop_the_others(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srgan_dist.data.loading.prefetch._FETCHERS", 1)
    web.faults["shard-000000.tar"] = [404]
    shards = opened(web, tmp_path / "cache", room=4)
    prefetcher = Prefetcher(shards, cast("Order", ScriptedOrder(([0, 1], 10))))
    prefetcher.reached(0)
    wait_for(lambda: shards.shard_paths[1].exists())
    prefetcher.close()
    assert web.requests["shard-000000.tar"] == 1
