"""The packed folder of all tests, opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from srgan_dist.data.shards.shard_set import ShardSet, open_shards


@pytest.fixture
def shards(packed: Path) -> ShardSet:
    return open_shards([packed])
