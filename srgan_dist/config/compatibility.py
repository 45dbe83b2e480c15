"""What may differ between a run and the checkpoint that it resumes from."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from srgan_dist.config.fields import Part, choosers, known_keys, lists_of_sections
from srgan_dist.config.perceptual import OLD_PERCEPTUAL_KEYS, completed
from srgan_dist.config.root import Config
from srgan_dist.errors import UserError
from srgan_dist.utils.dotted import flat
from srgan_dist.utils.secrets import shown_tree

log = logging.getLogger("srgan_dist")

# Keys, and sections of keys, that change where a run writes or how fast it goes, but not what it learns.
HARMLESS = (
    "run.dir",
    "run.resume",
    "run.allow_changes",
    "run.ranks",
    "run.hang_seconds",
    "run.stop_lead",
    "data.micro_batch",
    "data.workers",
    "data.cache_dir",
    "data.cache_size",
    "data.validation",
    "train.steps",  # as long as they are not fewer than were done
    "train.channels_last",
    "train.threads",
    "train.compile",
    "train.recompute",
    "loss.perceptual.preset",  # the keys that it stands for are compared
    "log",
    "checkpoint",
    "validate",
    "tracker",
)

_FORMER_GENERATORS = {"rrdb": {"padding": "replicate"}}
"""What a generator did before it had a key for it, where the key's default is another."""


def former_generator(section: Any) -> Any:
    """The section of a generator from a file, with what its version did where it lacks a key."""
    if not isinstance(section, Mapping):  # whose validation says so
        return section
    return {**_FORMER_GENERATORS.get(str(section.get("name")), {}), **section}


def as_begun(config: Config, old: Mapping[str, Any]) -> Config:
    """Leave a run that resumes what a generator did by default when it began, unless the configuration says otherwise.

    Args:
        config: The run's configuration.
        old: `config_fingerprint` of the checkpoint.
    """
    generator, before = config.generator, old["configuration"].get("generator")
    if not isinstance(before, Mapping) or before.get("name") != generator.name:
        return config  # which `refuse_changes` reports
    before = former_generator(before)
    keys = _FORMER_GENERATORS.get(generator.name, {}).keys() - generator.model_fields_set
    try:
        section = type(generator).model_validate(generator.model_dump() | {key: before[key] for key in keys})
    except ValidationError:  # of a value that no version wrote: reported as a change, too
        return config
    return config.model_copy(update={"generator": section})


def config_fingerprint(config: Config, *, shards: str) -> dict[str, Any]:
    """What a checkpoint keeps for `refuse_changes`, in JSON's types and without secrets.

    Args:
        config: The resolved configuration.
        shards: Digest of the training shards: the same ones in another place are no change.
    """
    return {"configuration": config.shown(), "shards": shards}


def learning_digest(config: Config) -> str:
    """A hash of what decides how a step comes out: of all keys but the `HARMLESS` ones."""
    values = {key: value for key, value in _by_key(config.shown()).items() if not _is_in(key, HARMLESS)}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def is_allowed(key: str, config: Config) -> bool:
    """Whether run.allow_changes names a key, or a section that it is in."""
    return _is_in(key, _allowed(config))


def _allowed(config: Config) -> tuple[str, ...]:
    """run.allow_changes, with what old keys in it stand for."""
    allowed = tuple(map(str, config.run.allow_changes))
    return (*allowed, "loss.perceptual.layers") if {*OLD_PERCEPTUAL_KEYS} & {*allowed} else allowed


def refuse_changes(old: Mapping[str, Any], config: Config, *, shards: str, step: int) -> None:
    """Compare a run's configuration with a checkpoint's, key by key.

    Args:
        old: `config_fingerprint` of the checkpoint.
        config: The run's configuration; it says what else may differ, in run.allow_changes.
        shards: Digest of its training shards.
        step: The checkpoint's step.

    Raises:
        UserError: Other keys differ: each is named with both values. Or fewer steps are asked for than were done.
    """
    if config.train.steps < step:
        raise UserError(
            f"train.steps is {config.train.steps}, but the checkpoint is of step {step}: ask for at least as many, "
            "resume from an earlier checkpoint by run.resume, or start over by run.resume=never"
        )
    allowed = (*HARMLESS, *_allowed(config))
    changes = {key: change for key, change in _changes(old, config, shards).items() if not _is_in(key, allowed)}
    if changes:
        listed = ", ".join(f"{key}: {was} -> {now}" for key, (was, now) in changes.items())
        listed = " ".join(listed.split())  # a text in a checkpoint may be of several lines
        raise UserError(
            f"not the configuration of the checkpoint: {listed}; set it back, start over by run.resume=never, or "
            f"resume all the same by --run.allow_changes={','.join(changes)}"
        )
    _log_stretched_schedules(old["configuration"], config)


def _changes(old: Mapping[str, Any], config: Config, shards: str) -> dict[str, tuple[Any, Any]]:
    """By key, the value that it had and the one that it has."""
    content = old["configuration"]
    content = {**content, "generator": former_generator(content.get("generator"))}
    before = _by_key(_with_layers(shown_tree(content)))  # 0.1.0 kept secrets
    now = _by_key(config.shown())
    before["data.train"], now["data.train"] = f"shards {old['shards'][:8]}", f"shards {shards[:8]}"
    for key, items in lists_of_sections().items():
        if isinstance(sections := before.get(key), list):
            before[key] = [_completed(section, items) for section in sections]
    changes = {key: (before[key], now[key]) for key in now if key in before and before[key] != now[key]}
    # A key that is new belongs to a choice that changed, which is reported; or to a newer version: its default to both.
    chosen = [key.rpartition(".")[0] for key in choosers() if key in changes]
    set_now = _by_key(shown_tree(config.model_dump(mode="json", by_alias=True, exclude_defaults=True)))
    new = (key for key in set_now if key not in before and not _is_in(key, chosen))
    return changes | {key: ("not known", now[key]) for key in new}


def _completed(section: Any, items: Sequence[Part]) -> Any:
    """A section of a list, with the defaults of the keys that the version that wrote it did not have yet."""
    for part in items:
        if part.chosen and isinstance(section, Mapping) and section.get(part.chosen.key) == part.chosen.value:
            return part.defaults.model_dump(mode="json") | dict(section)
    return section


def _with_layers(config: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's configuration with the layers of the feature network as this version writes them."""
    loss = config.get("loss")
    if not isinstance(loss, Mapping) or not isinstance(perceptual := loss.get("perceptual"), Mapping):
        return config
    return {**config, "loss": {**loss, "perceptual": completed(perceptual)}}


def _by_key(config: Mapping[str, Any]) -> dict[str, Any]:
    return flat(config, values=known_keys())


def _is_in(key: str, sections: tuple[str, ...] | list[str]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _log_stretched_schedules(old: Mapping[str, Any], config: Config) -> None:
    was, now = old["train"]["steps"], config.train.steps
    schedules = {"generator": config.optimizer.generator, "discriminator": config.optimizer.discriminator}
    stretched = [f"optimizer.{name}" for name, schedule in schedules.items() if schedule.schedule == "cosine"]
    if was != now and config.adversarial_steps and stretched:
        log.info(
            "train.steps: %d -> %d: the cosine of %s is stretched to the new end, so the learning rate jumps here",
            was,
            now,
            " and ".join(stretched),
        )
