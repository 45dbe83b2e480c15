"""A job that is started again by what started it resumes its own run: run.resume was for its first start."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from srgan_dist.checkpointing.manager import finished, step_of
from srgan_dist.config.root import Config
from srgan_dist.distributed.launch import JobStart, job_start
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.utils.files import read_file, write_whole

log = logging.getLogger("srgan_dist")

STARTED = "started.json"  # in the run's folder: who started the run, and after which step


def after_restart(config: Config, runtime: Runtime) -> Config:
    """Read run.resume as a job's second start must: otherwise each would start over, and lose what the first one did.

    Args:
        config: As it was given.
        runtime: The ranks, all of which call this.

    Returns:
        The configuration, with run.resume=auto where this is no first start: for ``never`` always, for a path once
        there is a checkpoint of this job's own.
    """
    resume, own = config.run.resume, False
    if runtime.is_main and resume != "auto":
        step = _own_step(config.run.dir)
        saved = map(step_of, finished(config.run.dir / "checkpoints"))
        own = step is not None and (resume == "never" or any(later > step for later in saved))
    if not runtime.broadcast(own):
        return config
    log.info(
        "%s: this job was started again and resumes: run.resume=%s was for its first start", config.run.dir, resume
    )
    return config.model_copy(update={"run": config.run.model_copy(update={"resume": "auto"})})


def was_begun_by_this_job(folder: Path) -> bool:
    """Whether an earlier start of this job began the run in a folder."""
    return _own_step(folder) is not None


def record_start(folder: Path, *, step: int) -> None:
    """Write down who starts this run. Rank 0 calls it.

    Args:
        folder: The run's folder.
        step: The step after which it starts or resumes.
    """
    first = _own_step(folder)
    content = {"step": step if first is None else first, **job_start()._asdict()}
    write_whole(folder / STARTED, json.dumps(content, indent=2) + "\n")


def _own_step(folder: Path) -> int | None:
    """The step after which an earlier start of this job began the run; None where none did."""
    try:
        content = json.loads(read_file(folder / STARTED, max_bytes=1000))
        step = int(content.pop("step"))
        return step if job_start().is_restart_of(JobStart(**content)) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # a run of an earlier version, or none
        return None
