"""Weights & Biases: online where it answers, offline otherwise, and never in the way of training."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger("srgan_dist")

_REACH_SECONDS = 3.0
_FINISH_SECONDS = 60.0


def wandb_mode() -> tuple[str, str]:
    """Decide before `wandb.init`, which would prompt, or wait for minutes. Returns the mode and why not online."""
    import wandb

    settings = wandb.setup().settings
    if settings.mode in ("offline", "disabled", "shared"):
        return settings.mode, ""
    if not wandb.login(prompt=False, verify=False):
        return "offline", "no API key (WANDB_API_KEY, or 'wandb login')"
    url = urlsplit(settings.base_url)
    if url.scheme in getproxies():
        return "online", ""  # only the proxy knows, and W&B asks it
    try:
        port = url.port or (443 if url.scheme == "https" else 80)
        socket.create_connection((url.hostname or "", port), timeout=_REACH_SECONDS).close()
    except OSError as error:
        return "offline", f"{url.hostname} does not answer ({error})"
    return "online", ""


def start_wandb(
    accelerator: Accelerator,
    *,
    folder: Path,
    project: str,
    group: str | None,
    tags: tuple[str, ...],
    config: Mapping[str, Any],
    run_id: str | None,
) -> str:
    """Start a run, or resume one, online where W&B can be reached and offline elsewhere; never prompts.

    Args:
        accelerator: Holds the tracker.
        folder: The training's folder: its name is the run's, and offline files go into it.
        project: Project.
        group: Group of runs, or None.
        tags: Labels.
        config: The resolved configuration.
        run_id: The run to resume, or None.

    Returns:
        The run's id.
    """
    import wandb

    mode, why = wandb_mode()
    if why:
        log.info(
            "W&B: %s: logging offline under %s; upload later with 'wandb sync'",
            why,
            folder / "wandb",
        )
    options: dict[str, Any] = {
        "mode": mode,
        "dir": str(folder),
        "name": folder.name,
        "group": group,
        "tags": list(tags),
        "settings": wandb.Settings(silent=True, init_timeout=30, finish_timeout=_FINISH_SECONDS, x_graphql_retry_max=2),
    }
    if run_id:
        options |= {"id": run_id, "resume": "allow"}
    try:
        accelerator.init_trackers(project, config=dict(config), init_kwargs={"wandb": options})
    except (wandb.errors.CommError, wandb.errors.AuthenticationError, wandb.errors.UsageError) as error:
        log.warning("W&B: %s: logging offline", " ".join(str(error).split()))
        accelerator.trackers.clear()
        wandb.teardown()
        options["mode"] = "offline"
        accelerator.init_trackers(project, config=dict(config), init_kwargs={"wandb": options})
    run = accelerator.get_tracker("wandb", unwrap=True)
    run.define_metric("*", step_metric="step")
    if run.url:
        log.info("W&B: %s", run.url)
    return str(run.id)


def send_to_wandb(accelerator: Accelerator, action: Callable[[Any], object]) -> None:
    """Do something with the run, if it is still there: schedulers send SIGTERM to all of a job's processes, W&B's too.

    Args:
        accelerator: Holds the tracker; a lost one is removed.
        action: Gets the run.
    """
    tracker = accelerator.get_tracker("wandb")
    try:
        action(tracker.tracker)
    except Exception as error:  # noqa: BLE001 - OSError and several private kinds
        log.warning("W&B: lost its process (%s); metrics.jsonl continues without it", " ".join(str(error).split()))
        accelerator.trackers.remove(tracker)
        import wandb

        with contextlib.suppress(Exception):  # it would be reported again at the end of the process
            wandb.teardown()
