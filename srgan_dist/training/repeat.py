"""A run that repeats another one: where it writes, and whether data and code are those of the other."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from srgan_dist.checkpointing.manager import finished
from srgan_dist.config.compatibility import is_allowed, learning_digest
from srgan_dist.config.load import load_config
from srgan_dist.config.root import Config
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.errors import UserError
from srgan_dist.records.read import read_object
from srgan_dist.records.run import State, read_run
from srgan_dist.training.restart import was_begun_by_this_job
from srgan_dist.utils.names import beside
from srgan_dist.utils.provenance import code_state, versions

log = logging.getLogger("srgan_dist")


def beside_parent(config: Config, parent: Path | None, runtime: Runtime) -> Config:
    """Give a run that repeats another, and has its folder, a folder of its own beside it; on all ranks the same.

    Args:
        config: The run's configuration.
        parent: Folder of the run that it repeats, or None.
        runtime: The ranks, all of which call this.

    Returns:
        The configuration, with another ``run.dir`` where it was the parent's: ``NAME-again``, or the first of
        ``NAME-again-2`` and so on that is free. One that this same experiment began and did not end is no other: as
        everywhere, started again, it resumes.
    """
    if parent is None or not _is_same(config.run.dir, parent):
        return config
    folder = runtime.broadcast(_folder(config, parent) if runtime.is_main else parent)
    return config.model_copy(update={"run": config.run.model_copy(update={"dir": folder})})


def _is_same(folder: Path, parent: Path) -> bool:
    return folder.resolve() == parent.resolve()


def _folder(config: Config, parent: Path) -> Path:
    named = parent if parent.name not in ("", "..") else parent.resolve()
    later = (f"-again-{number}" for number in itertools.count(2))
    names = (beside(named, after=after) for after in itertools.chain(["-again"], later))
    return next(folder for folder in names if _is_free(folder) or _is_unfinished(folder, config, parent))


def _is_free(folder: Path) -> bool:
    """Whether nothing is there, or nothing but what a start leaves that was refused."""
    return not folder.exists() or (folder.is_dir() and {path.name for path in folder.iterdir()} <= {"train.log"})


def _is_unfinished(folder: Path, config: Config, parent: Path) -> bool:
    """Whether a folder has an earlier start of this very run, which resumes there."""
    run = read_run(folder)
    has_broken_off = run.state in (State.CRASHED, State.PREEMPTED)  # a killed one may still hold its folder
    if run.info.get("parent") != str(parent.absolute()) or not (has_broken_off or was_begun_by_this_job(folder)):
        return False
    try:
        begun = load_config(folder / "config.yaml")
    except UserError:  # damaged, or of another version: not to be resumed
        return False
    return learning_digest(begun) == learning_digest(config) and begun.train.steps == config.train.steps


def compare_with_parent(config: Config, parent: Path | None, runtime: Runtime, *, shards: str) -> None:
    """Refuse other data than a repeated run's, and log what else makes the numbers come out otherwise.

    Args:
        config: The run's configuration; ``run.allow_changes`` may name ``data.train``.
        parent: Folder of the run that it repeats, or None.
        runtime: The ranks, all of which call this.
        shards: Digest of the training shards.

    Raises:
        UserError: The shards are others.
    """
    if parent is None:
        return
    info, problems = read_object(parent / "run.json", []) or {}, list[str]()
    digest = runtime.broadcast(_data_digest(parent, info, problems) if runtime.is_main else None)
    if digest and digest != shards and not is_allowed("data.train", config):
        raise UserError(
            f"data.train: shards {shards[:8]}, where {parent} was trained on shards {digest[:8]}: give the same ones, "
            "or repeat it on these all the same by --run.allow_changes=data.train"
        )
    if not runtime.is_main:
        return
    if not digest:
        log.warning("%s does not say which data it was trained on: whether it is the same is not checked", parent)
    if differing := list(_differing(info, ranks=runtime.world_size)):
        log.warning("numbers may come out other than those of %s: %s", parent, ", ".join(differing))


def _data_digest(parent: Path, info: Mapping[str, Any], problems: list[str]) -> str | None:
    """The digest of the parent's shards, of one of an earlier version by its newest checkpoint."""
    if isinstance(digest := info.get("data_digest"), str):
        return digest
    for checkpoint in finished(parent / "checkpoints"):
        origin = (read_object(checkpoint / "state.json", problems) or {}).get("origin")
        if isinstance(origin, dict) and isinstance(digest := origin.get("shards"), str):
            return digest
    return None


def _differing(info: Mapping[str, Any], *, ranks: int) -> Iterator[str]:
    """What was otherwise, by run.json."""
    code = code_state()
    was, now = _code(info.get("commit"), info.get("dirty")), _code(code.commit, code.dirty)
    if was != now:
        yield f"its code was {was}, this is {now}"
    elif code.dirty:
        yield f"the code is {now} that are on no record"
    libraries, torch = info.get("libraries"), versions("torch")["torch"]
    if isinstance(libraries, Mapping) and (torch_was := libraries.get("torch")) not in (None, torch):
        yield f"torch was {torch_was}, this is {torch}"
    if (ranks_were := info.get("ranks")) not in (None, ranks):
        yield f"ranks were {ranks_were}, these are {ranks}"
    starts = info.get("starts")
    first = starts[0] if isinstance(starts, list) and starts else None
    if isinstance(first, Mapping) and first.get("step"):
        yield f"it began after step {first['step']}, from another run's checkpoint"


def _code(commit: object, dirty: object) -> str:
    if not isinstance(commit, str):
        return "of an unknown commit"
    return f"commit {commit[:12]}{' with changes' if dirty else ''}"
