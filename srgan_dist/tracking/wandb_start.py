"""Before a W&B run: whether W&B can be reached, which run it will be, and how it is to begin."""

from __future__ import annotations

import logging
import secrets
import signal
import socket
import string
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from srgan_dist.tracking.wandb_files import WandbAddress

log = logging.getLogger("srgan_dist")

FINISH_SECONDS = 60.0  # for W&B to take what is left at the end
_REACH_SECONDS = 3.0
_VERIFY_SECONDS = 10
_PROJECT = "srgan-dist"


@dataclass(frozen=True)
class Labels:
    """Where a run belongs in W&B, and what it is called there; what is None, W&B's variables may say.

    Attributes:
        project: Its project.
        entity: The user or team that the project belongs to.
        group: Group of runs.
        tags: Labels, beside those of W&B's variable.
        job_type: Kind of run.
        notes: What it is for.
    """

    project: str | None = None
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    job_type: str | None = None
    notes: str | None = None


def wandb_mode() -> tuple[str, str]:
    """Decide before `wandb.init`, which would prompt, or wait for minutes. Returns the mode and why not online."""
    import wandb

    try:
        # Silent also where it would advise 'wandb sync' for what was online, which sends again what the server has.
        settings = wandb.setup(settings=wandb.Settings(silent=True)).settings
    except Exception as error:  # noqa: BLE001 - pydantic's and W&B's own: a WANDB_ variable, or a settings file
        return "disabled", reason(error)
    mode = {"dryrun": "offline", "run": "online"}.get(settings.mode, settings.mode)
    if mode != "online":
        return mode, f"WANDB_MODE is {settings.mode}"
    try:
        if not wandb.login(prompt=False, verify=False):
            return "offline", "no API key (WANDB_API_KEY, or 'wandb login')"
        url = urlsplit(settings.base_url)
        if url.scheme not in getproxies():  # else only the proxy knows, and W&B asks it
            port = url.port or (443 if url.scheme == "https" else 80)
            socket.create_connection((url.hostname or "", port), timeout=_REACH_SECONDS).close()
        wandb.Api(timeout=_VERIFY_SECONDS)  # `wandb.init` says '<no message>' of a key that is rejected
    except OSError as error:
        return "offline", f"{url.hostname} does not answer ({error})"
    except Exception as error:  # noqa: BLE001 - several private kinds
        return "offline", reason(error)
    return mode, ""


def find_address(labels: Labels, settings: Any, recorded: WandbAddress | None) -> tuple[WandbAddress, bool]:
    """Which W&B run it will be, and whether that has begun before. W&B's variables count, or are said not to.

    Args:
        labels: What the configuration asks for.
        settings: W&B's own, as its variables and files have them.
        recorded: The W&B run that the folder has begun, or None.
    """
    if settings.sweep_id:  # its agent has decided
        if labels.project not in (None, settings.project):
            log.info("W&B: the sweep's project is used, not tracker.project=%s", labels.project)
        begun = recorded is not None and recorded.id == settings.run_id
        return WandbAddress(settings.run_id or _new_id()), begun
    project, entity = labels.project or settings.project, labels.entity or settings.entity
    for key, ours, theirs in (
        ("project", labels.project, settings.project),
        ("entity", labels.entity, settings.entity),
        ("group", labels.group, settings.run_group),
        ("job_type", labels.job_type, settings.run_job_type),
        ("notes", labels.notes, settings.run_notes),
    ):
        if ours and theirs not in (None, "", ours):
            log.info("W&B: tracker.%s=%s is used, not W&B's setting %s", key, ours, theirs)
    if recorded is None or settings.run_id not in (None, recorded.id):
        return WandbAddress(settings.run_id or _new_id(), project or _PROJECT, entity), False
    if recorded.project is None:  # in a checkpoint of an earlier version
        return WandbAddress(recorded.id, project or _PROJECT, entity), True
    stays = f"{recorded.entity}/{recorded.project}" if recorded.entity else recorded.project
    if project not in (None, recorded.project) or entity not in (None, recorded.entity):
        asked = f"{entity}/{project or recorded.project}" if entity else project
        log.info("W&B: the run began in %s and stays there; %s is for new runs", stays, asked)
    if settings.resume in ("never", "auto"):
        log.info("W&B: WANDB_RESUME=%s is for new runs; this one resumes its own", settings.resume)
    return recorded, True


def init_options(
    folder: Path,
    labels: Labels,
    address: WandbAddress,
    settings: Any,
    *,
    resumes: bool,
    stop: Callable[[], None],
) -> dict[str, Any]:
    """The arguments of `wandb.init`. What is not given, W&B takes from its variables.

    Args:
        folder: The training's folder.
        labels: What the configuration asks for.
        address: Which W&B run it will be.
        settings: W&B's own, as its variables and files have them.
        resumes: Whether that run has begun before.
        stop: Called, in another thread, when somebody stops the run in W&B.
    """
    import wandb

    more: dict[str, Any] = {}
    if settings.console == wandb.Settings().console:
        # The terminal's lines would arrive as errors, since they are on stderr, and with every redrawn bar.
        more = {"console": "off", "capture_loggers": {"srgan_dist": "INFO"}}
    options: dict[str, Any] = {
        "dir": str(folder) if Path(settings.root_dir) == Path.cwd() else settings.root_dir,
        "group": labels.group,
        "job_type": labels.job_type,
        "notes": labels.notes,
        "tags": [*dict.fromkeys((*labels.tags, *(settings.run_tags or ())))] or None,
        "settings": wandb.Settings(
            silent=True,
            init_timeout=30,
            finish_timeout=FINISH_SECONDS,
            finish_timeout_raises=True,
            x_graphql_retry_max=2,
            stop_fn=stop,
            **more,
        ),
    }
    if not settings.sweep_id:
        options |= {"id": address.id, "project": address.project, "entity": address.entity}
    if resumes:  # not the first time: 'wandb sync' of such a log could not be repeated
        options["resume"] = settings.resume if settings.resume == "must" else "allow"
    elif not settings.run_name:
        options["name"] = folder.resolve().name
    return options


def interrupt() -> None:
    """Ask this process to stop, as Ctrl-C does."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def is_stopped_by_server(run: Any) -> bool:
    """Whether the server has stopped the run of a sweep: its agent then sends a signal, as a scheduler does.

    Args:
        run: The W&B run.
    """
    if run.offline or not run.sweep_id:
        return False
    import wandb

    query = """query RunStoppedStatus($entity: String, $project: String, $run: String!) {
        project(name: $project, entityName: $entity) { run(name: $run) { stopped } }
    }"""
    try:
        api = wandb.Api(timeout=_VERIFY_SECONDS)
        names = {"entity": run.entity, "project": run.project, "run": run.id}
        answer: Any = api._service_api.execute_graphql(query, names, timeout=_VERIFY_SECONDS)
        return bool(answer["project"]["run"]["stopped"])
    except Exception as error:  # noqa: BLE001 - several private kinds
        log.warning("W&B: does not say whether the sweep has stopped this run (%s)", reason(error))
        return False


def _new_id() -> str:
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))  # as W&B's own


def reason(error: BaseException) -> str:
    """One line of an error's message. Pydantic's has several: the setting, what is wrong with it, and a link."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 2 and "validation error" in lines[0]:
        return f"{lines[1]}: {lines[2].partition(' [type=')[0]}"
    return " ".join(lines)[:500] or type(error).__name__
