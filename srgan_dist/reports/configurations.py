"""What differs between the configurations of runs, which of them are seeds of one experiment, and their names."""

from __future__ import annotations

import json
import os
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from srgan_dist.config.compatibility import HARMLESS, former_generator
from srgan_dist.config.fields import choosers
from srgan_dist.config.root import Config
from srgan_dist.utils.dotted import flat
from srgan_dist.utils.names import printable
from srgan_dist.utils.secrets import shown_tree

Flat = Mapping[str, Any]

# Keys, and sections of keys, that say nothing about what was tried.
_LEFT_OUT = (
    "run.dir",
    "run.resume",
    "run.allow_changes",
    "run.hang_seconds",
    "run.stop_lead",
    "data.cache_dir",
    "data.cache_size",
    "log",
    "checkpoint",
    "tracker",
)
_SEED = "run.seed"
# Harmless to a run that resumes; two runs that differ in them are two experiments.
_MATTERS = ("train.steps", "data.validation")
_MOST_KEYS = 3  # in the name of a group
_SEED_OF_NAME = re.compile(
    r"([-_./ =]+(seed|s)?[-_=]?|seed)\d*$"
)  # what is left of "n2-seed10" and "n2-seed11" behind "n2"


def completed(config: Flat) -> dict[str, Any]:
    """A run's configuration with the defaults of keys that its version did not have yet, and without secrets.

    Args:
        config: Dotted keys and values in JSON's types, as an earlier or later version wrote them, or a hand.

    Returns:
        The same of this version; what this version refuses stays as it is, and what is empty stays empty.
    """
    if not config:
        return {}
    nested: dict[str, Any] = {}
    for key, value in config.items():
        *sections, name = key.split(".")
        place = nested
        for section in sections:
            inner = place.get(section)
            place[section] = inner if isinstance(inner, dict) else {}
            place = place[section]
        place[name] = value
    if "generator" in nested:
        nested["generator"] = former_generator(nested["generator"])
    try:
        nested = Config(**nested).shown()
    except (ValueError, TypeError):  # of another version
        nested = shown_tree(nested)
    return flat(nested)


def differing_keys(configs: Sequence[Flat]) -> list[str]:
    """The keys in which configurations differ: in their order, but the seed and mere speed last.

    A key that some lack differs from a value, but not from null; where another class of the section was chosen, as by
    generator.name, it is compared among those that have it.

    Args:
        configs: As `completed` gives them; empty ones, of runs that have none, are left out.
    """
    configs = [config for config in configs if config]
    keys = dict.fromkeys(key for config in configs for key in config if not _is_in(key, _LEFT_OUT))

    def differs(key: str, among: Sequence[Flat]) -> bool:
        return len({_text(config.get(key)) for config in among}) > 1

    chosen = [chooser.rpartition(".")[0] for chooser in choosers() if differs(chooser, configs)]
    found = [
        key for key in keys if differs(key, [config for config in configs if key in config or not _is_in(key, chosen)])
    ]
    return sorted(found, key=lambda key: not _is_learnt(key))


def seed_groups(configs: Sequence[Flat]) -> list[list[int]]:
    """Group the runs that differ in run.seed alone, or besides in what does not change what is learnt.

    Args:
        configs: As `completed` gives them; a run without one is a group of its own.

    Returns:
        The positions of each group's runs; groups in the order of their first run.
    """
    groups: dict[object, list[int]] = {}
    for position, config in enumerate(configs):
        learnt = {key: value for key, value in config.items() if _is_learnt(key)}
        same = _text({key: value for key, value in sorted(learnt.items()) if value is not None}) if config else position
        groups.setdefault(same, []).append(position)
    return list(groups.values())


def group_names(groups: Sequence[Sequence[int]], names: Sequence[str], configs: Sequence[Flat]) -> list[str]:
    """Name groups: one run by its own name, several by what tells them from the others, or by what their names share.

    Args:
        groups: As `seed_groups` gives them.
        names: Of the runs.
        configs: Of the runs.

    Returns:
        Names, each only once.
    """
    several = [configs[group[0]] for group in groups if len(group) > 1]
    keys = [key for key in differing_keys(several) if _is_learnt(key)]
    short = dict(zip(keys, _tails([key.split(".") for key in keys], "."), strict=True))
    found: list[str] = []
    for group in groups:
        values = [f"{short[key]}={_plain(configs[group[0]].get(key))}" for key in keys]
        stem = _shared_start([names[run] for run in group])
        if len(group) == 1:
            name = names[group[0]]
        elif values and len(values) <= _MOST_KEYS:
            name = ", ".join(values)
        else:
            name = stem or f"{names[group[0]]} and {len(group) - 1} more"
        found.append(name)
    twice = {name for name, count in Counter(found).items() if count > 1}
    return [f"{name} ({names[group[0]]})" if name in twice else name for name, group in zip(found, groups, strict=True)]


def run_names(folders: Sequence[Path]) -> list[str]:
    """Name runs by the shortest ends of their folders' paths that tell them apart.

    Args:
        folders: Absolute, each only once.
    """
    return [printable(name) for name in _tails([folder.parts for folder in folders], "/")]


def mean_and_spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and sample standard deviation (n - 1; null of a single value), and of how many values."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values) if values else None, "sd": spread, "count": len(values)}


def _tails(paths: Sequence[Sequence[str]], separator: str) -> list[str]:
    found: dict[int, str] = {}
    depth = 1
    while len(found) < len(paths):
        ends = [tuple(path[-depth:]) for path in paths]
        counts = Counter(ends)
        for position, (path, end) in enumerate(zip(paths, ends, strict=True)):
            if counts[end] == 1 or depth >= len(path):
                found.setdefault(position, separator.join(end).replace("//", "/"))
        depth += 1
    return [found[position] for position in range(len(paths))]


def _shared_start(names: Sequence[str]) -> str:
    """What names begin with, without the word seed and separators at its end."""
    return _SEED_OF_NAME.sub("", os.path.commonprefix(list(names)))  # noqa: RUF071 - characters are meant


def _is_learnt(key: str) -> bool:
    return key != _SEED and not _is_in(key, _LEFT_OUT) and (key in _MATTERS or not _is_in(key, HARMLESS))


def _is_in(key: str, sections: Sequence[str]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1.0 and 1 are the same
    return json.dumps(value, sort_keys=True, default=str)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
