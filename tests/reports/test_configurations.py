"""What differs between configurations, which runs are seeds of one, and what runs and groups are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srgan_dist.config.root import Config
from srgan_dist.reports.configurations import (
    completed,
    differing_keys,
    group_names,
    mean_and_spread,
    run_names,
    seed_groups,
)
from srgan_dist.utils.dotted import flat


def config(**sections: Any) -> dict[str, Any]:
    """A run's configuration as `completed` gives it."""
    return completed(flat(Config(**sections).model_dump(mode="json", by_alias=True)))


def test_only_the_keys_that_differ_are_named_and_what_changes_speed_alone_comes_last() -> None:
    runs = [
        config(run={"dir": "runs/a"}, data={"workers": 1}, optimizer={"betas": [0.9, 0.99]}, log={"every": 5}),
        config(run={"dir": "runs/b"}, train={"g_per_d": 2}, optimizer={"betas": [0.5, 0.99]}, tracker={"name": "none"}),
    ]
    assert differing_keys(runs) == ["train.g_per_d", "optimizer.betas", "data.workers"]


def test_a_key_that_an_earlier_version_lacks_has_its_default() -> None:
    now = config(train={"steps": 10})
    old = flat(Config(train={"steps": 10}).model_dump(mode="json", by_alias=True))
    for key in ("train.clip_grad_norm", "loss.adversarial.ramp_steps", "stability.patience"):
        del old[key]
    assert differing_keys([now, completed(old)]) == []
    assert differing_keys([config(train={"steps": 10}, stability={"patience": 2}), completed(old)]) == [
        "stability.patience"
    ]


def test_a_configuration_that_this_version_refuses_is_compared_as_it_stands() -> None:
    later = {**config(), "train.invented": 3, "train.clip_grad_norm": None}
    assert completed(later) == later
    assert differing_keys([config(), completed(later)]) == ["train.invented"]


def test_of_another_architecture_its_choice_is_named_and_not_every_key_that_only_it_has() -> None:
    runs = [config(generator={"name": name}) for name in ("srresnet", "rrdb")]
    found = differing_keys(runs)
    assert "generator.name" in found
    assert not {"generator.growth", "generator.skip"} & set(found)
    growths = [config(generator={"name": "rrdb", "growth": growth}) for growth in (16, 32)]
    assert "generator.growth" in differing_keys([*runs, *growths])


def test_a_run_without_a_configuration_makes_no_key_differ_and_is_a_group_of_its_own() -> None:
    runs = [config(), completed({}), config(run={"seed": 1}), {}]
    assert differing_keys(runs) == ["run.seed"]
    assert seed_groups(runs) == [[0, 2], [1], [3]]


def test_seeds_of_one_experiment_are_grouped_however_fast_each_ran() -> None:
    runs = [
        config(run={"seed": 0, "dir": "runs/0"}),
        config(
            run={"seed": 1, "dir": "runs/1"}, data={"workers": 1}, tracker={"name": "none"}, train={"compile": True}
        ),
        config(run={"seed": 0}, train={"g_per_d": 4}),
        config(run={"seed": 0}, train={"steps": 7}),
    ]
    assert seed_groups(runs) == [[0, 1], [2], [3]]


def test_secrets_of_a_url_do_not_come_through() -> None:
    source = "https://me:word@host/shards.tar?token=abc"
    refused = completed({"data.train": [source], "train.invented": 1})
    for one in (config(data={"train": [source]}), refused):
        assert one["data.train"] == ["https://***@host/shards.tar?***"]


def test_groups_are_named_by_what_tells_them_apart() -> None:
    runs = [config(run={"seed": seed}, train={"g_per_d": ratio}) for ratio in (1, 2) for seed in (0, 1)]
    runs.append(config(train={"g_per_d": "auto"}))
    names = ["a-0", "a-1", "b-0", "b-1", "alone"]
    assert group_names(seed_groups(runs), names, runs) == ["g_per_d=1", "g_per_d=2", "alone"]
    other = config(generator={"name": "rrdb"}, loss={"pixel": {"weight": 3}}, train={"steps": 9, "ema_decay": 0.5})
    assert group_names(seed_groups([*runs, other]), [*names, "z"], [*runs, other])[:2] == ["g_per_d=1", "g_per_d=2"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["n2-seed10", "n2-seed11"], "n2"),
        (["n2-s0", "n2-s1"], "n2"),
        (["g4-0", "g4-1"], "g4"),
        (["study/seed0", "study/seed1"], "study"),
        (["left", "right"], "left and 1 more"),
    ],
)
def test_the_only_group_is_named_by_what_its_runs_names_share(names: list[str], expected: str) -> None:
    runs = [config(run={"seed": seed}) for seed in range(2)]
    assert group_names([[0, 1]], names, runs) == [expected]


def test_runs_are_named_by_the_shortest_ends_that_tell_them_apart() -> None:
    folders = [Path(name) for name in ("/data/a/n1", "/data/b/n1", "/data/b/n2", "/n1", "/x\ny")]
    assert run_names(folders) == ["a/n1", "b/n1", "n2", "/n1", "x\\ny"]


def test_the_spread_is_that_of_a_sample_and_one_run_has_none() -> None:
    assert mean_and_spread([1.0, 3.0]) == {"mean": 2.0, "sd": pytest.approx(2**0.5), "count": 2}
    assert mean_and_spread([1.0]) == {"mean": 1.0, "sd": None, "count": 1}
    assert mean_and_spread([]) == {"mean": None, "sd": None, "count": 0}


def test_an_rrdb_of_an_earlier_version_is_not_that_of_this_one() -> None:
    now = config(generator={"name": "rrdb"}, data={"scale": 2})
    old = {key: value for key, value in now.items() if key != "generator.padding"}
    assert differing_keys([now, completed(old)]) == ["generator.padding"]
