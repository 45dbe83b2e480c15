"""A run that is killed a dozen times ends like an undisturbed one; `tests.ranks.kills` kills it hundreds of times."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.ranks.kills import SETUPS, run_setup


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("ranks", "workers"), SETUPS)
def test_kills_cost_no_more_than_they_must(shards: Path, tmp_path: Path, ranks: int, workers: int) -> None:
    chance = random.Random(f"{ranks} {workers}")
    totals = run_setup(tmp_path, shards, ranks=ranks, workers=workers, kills=4, chance=chance)
    assert totals.kills == 4
    assert totals.is_sound, totals
