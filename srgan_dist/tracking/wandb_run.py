"""Weights & Biases: online where it answers, offline otherwise, and never in the way of training."""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import string
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from srgan_dist.errors import Stopped
from srgan_dist.tracking.wandb_files import (
    LocalLog,
    WandbAddress,
    how_to_upload,
    local_logs,
    read_address,
    write_address,
)

if TYPE_CHECKING:
    from accelerate import Accelerator
    from PIL import Image

log = logging.getLogger("srgan_dist")

_REACH_SECONDS = 3.0
_VERIFY_SECONDS = 10
_FINISH_SECONDS = 60.0
_PROJECT = "srgan-dist"
_FAILED, _PREEMPTED = 1, 75  # exit codes, as the commands return them


def wandb_mode() -> tuple[str, str]:
    """Decide before `wandb.init`, which would prompt, or wait for minutes. Returns the mode and why not online."""
    import wandb

    try:
        # Silent also where it would advise 'wandb sync' for what was online, which sends again what the server has.
        settings = wandb.setup(settings=wandb.Settings(silent=True)).settings
    except Exception as error:  # noqa: BLE001 - pydantic's and W&B's own: a WANDB_ variable, or a settings file
        return "disabled", _reason(error)
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
        return "offline", _reason(error)
    return mode, ""


class WandbRun:
    """One W&B run, however often the training is started again; whatever fails here, the training continues.

    Args:
        accelerator: Holds the tracker.
        folder: The training's folder: its name is the run's, and W&B's files go into it.
        project: Project; None: what the environment says, or srgan-dist.
        group: Group of runs, or None.
        tags: Labels.
        config: The resolved configuration.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        *,
        folder: Path,
        project: str | None,
        group: str | None,
        tags: tuple[str, ...],
        config: Mapping[str, Any],
    ) -> None:
        self.accelerator, self.folder, self.config = accelerator, folder, config
        self.project, self.group, self.tags = project, group, tags
        self.address: WandbAddress | None = None
        self.last_step = 0  # W&B has the steps up to this one, and gets none of them again
        self._has_row = False

    @property
    def is_lost(self) -> bool:
        """Whether there is no run to log to: it never started, or its process died."""
        return not any(tracker.name == "wandb" for tracker in self.accelerator.trackers)

    def start(self, *, step: int, old_id: str | None, redone: bool, configuration: str | None) -> None:
        """Start a run, or resume one, online where W&B can be reached and offline elsewhere; never prompts.

        Args:
            step: The step after which the training starts or resumes.
            old_id: The W&B run that the checkpoint of an earlier version names, or None.
            redone: Whether later steps were logged before, and are now taken again.
            configuration: A hash of what decides how a step comes out; None: unknown.
        """
        import wandb

        mode, why = wandb_mode()
        if mode == "disabled":
            log.warning("W&B: %s: training continues without it; metrics.jsonl has everything", why)
            return
        settings = wandb.setup().settings
        recorded, of_earlier_version = read_address(self.folder), False
        if recorded is None and old_id:
            recorded, of_earlier_version = WandbAddress(old_id), True
        if redone and recorded and recorded.configuration not in (None, configuration):
            log.info("W&B: steps are taken again that come out differently now: they begin another W&B run")
            recorded = None
        address, resumes = self._address(settings, recorded)
        self.address = replace(address, configuration=configuration)
        write_address(self.folder, self.address)
        options = self._options(settings, resumes=resumes)
        run = None
        for attempt in dict.fromkeys((mode, "offline")):
            try:
                run = self._init(options | {"mode": attempt})
                break
            except Exception as error:  # noqa: BLE001 - W&B's, pydantic's, OSError
                why = _reason(error)
                self._tear_down()
        if run is None:
            log.warning("W&B: %s: training continues without it; metrics.jsonl has everything", why)
            return
        others = [part for part in local_logs(Path(run.settings.wandb_dir), run.id) if part.path != _log_of(run).path]
        if run.offline:
            self.last_step = next((last for part in reversed(others) if (last := part.last_step())), 0)
            missing = [part for part in others if not part.is_uploaded]
            log.warning("W&B: %s: logging offline; %s", why, how_to_upload([*missing, _log_of(run)]))
        else:
            self.last_step = run.starting_step - 1 if run.resumed else 0
            for part in others:  # what the server lacks of them it gets now
                part.mark_uploaded()
            # What the server made of it: a run that resumes must not depend on the environment.
            self.address = replace(self.address, project=run.project, entity=run.entity)
            write_address(self.folder, self.address)
            log.info("W&B: %s", run.url)
        if of_earlier_version:  # which counted W&B's own steps otherwise
            self.last_step = max(self.last_step, step)

    def _address(self, settings: Any, recorded: WandbAddress | None) -> tuple[WandbAddress, bool]:
        """Which W&B run it will be, and whether that has begun before. W&B's variables count, or are said not to."""
        if settings.sweep_id:  # its agent has decided
            if self.project not in (None, settings.project):
                log.info("W&B: the sweep's project is used, not tracker.project=%s", self.project)
            begun = recorded is not None and recorded.id == settings.run_id
            return WandbAddress(settings.run_id or _new_id()), begun
        project, entity = self.project or settings.project, settings.entity
        for key, ours, theirs in (
            ("project", self.project, settings.project),
            ("group", self.group, settings.run_group),
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

    def _options(self, settings: Any, *, resumes: bool) -> dict[str, Any]:
        """The arguments of `wandb.init`. What is not given, W&B takes from its variables: notes, job type and so on."""
        import wandb

        assert self.address
        more: dict[str, Any] = {}
        if settings.console == wandb.Settings().console:
            # The terminal's lines would arrive as errors, since they are on stderr, and with every redrawn bar.
            more = {"console": "off", "capture_loggers": {"srgan_dist": "INFO"}}
        options: dict[str, Any] = {
            "dir": str(self.folder) if Path(settings.root_dir) == Path.cwd() else settings.root_dir,
            "group": self.group,
            "tags": [*dict.fromkeys((*self.tags, *(settings.run_tags or ())))] or None,
            "settings": wandb.Settings(
                silent=True,
                init_timeout=30,
                finish_timeout=_FINISH_SECONDS,
                finish_timeout_raises=True,
                x_graphql_retry_max=2,
                **more,
            ),
        }
        if not settings.sweep_id:
            options |= {"id": self.address.id, "entity": self.address.entity}
        if resumes:  # not the first time: 'wandb sync' of such a log could not be repeated
            options["resume"] = settings.resume if settings.resume == "must" else "allow"
        elif not settings.run_name:
            options["name"] = self.folder.resolve().name
        return options

    def _init(self, options: Mapping[str, Any]) -> Any:
        assert self.address
        project = self.address.project or ""  # in a sweep W&B takes the sweep's
        self.accelerator.init_trackers(project, config=dict(self.config), init_kwargs={"wandb": dict(options)})
        run = self.accelerator.get_tracker("wandb", unwrap=True)
        run.define_metric("*", step_metric="step")
        return run

    def _tear_down(self) -> None:
        import wandb

        self.accelerator.trackers[:] = [tracker for tracker in self.accelerator.trackers if tracker.name != "wandb"]
        with contextlib.suppress(Exception):  # it would be reported again at the end of the process
            wandb.teardown()

    def log(self, step: int, values: Mapping[str, Any], picture: Image.Image | Path | None = None) -> None:
        """Send values of a step that W&B lacks; those of one step make one row, which `commit` ends.

        Args:
            step: The training step. It is also W&B's own, by which a resumed run knows what the server has.
            values: Numbers and texts by logged name.
            picture: The step's sample picture.
        """
        if step <= self.last_step:
            return
        row = {"step": step, **values}
        if picture is not None:
            import wandb

            row["samples"] = wandb.Image(picture)
        self._has_row = True
        self._do(lambda run: run.log(row, step=step))

    def commit(self, step: int) -> None:
        """Send the step's row, which would otherwise wait for the next step's."""
        if self._has_row:
            self._has_row = False
            self._do(lambda run: run.log({}, step=step, commit=True))

    def close(self, ended_by: BaseException | None) -> None:
        """Finish the run.

        Args:
            ended_by: What ended the training; None: it came to its end.
        """

        def finish(run: Any) -> None:
            if isinstance(ended_by, Stopped):
                run.mark_preempting()  # with a code other than 0: neither failed nor finished, and to be started again
                code = _PREEMPTED
            elif ended_by is not None:
                run.summary["failed"] = _reason(ended_by)
                code = _FAILED
            else:
                code = 0
            part, was_online = _log_of(run), not run.offline
            try:
                run.finish(exit_code=code)
            except TimeoutError:
                waited = f"it has not taken everything within {_FINISH_SECONDS:.0f} s"
                log.warning("W&B: %s: %s", waited, how_to_upload([part]))
            else:
                if was_online:
                    part.mark_uploaded()

        self._do(finish)

    def _do(self, action: Callable[[Any], object]) -> None:
        """Do something with the run, if it is still there: schedulers send SIGTERM to all of a job's processes."""
        if self.is_lost:
            return
        try:
            action(self.accelerator.get_tracker("wandb", unwrap=True))
        except Exception as error:  # noqa: BLE001 - OSError and several private kinds
            log.warning(
                "W&B: lost its process (%s); metrics.jsonl continues without it, and the next start of this run sends "
                "what W&B lacks",
                _reason(error),
            )
            self._tear_down()


def _new_id() -> str:
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))  # as W&B's own


def _log_of(run: Any) -> LocalLog:
    return LocalLog(Path(run.settings.sync_file))


def _reason(error: BaseException) -> str:
    """One line of an error's message. Pydantic's has several: the setting, what is wrong with it, and a link."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 2 and "validation error" in lines[0]:
        return f"{lines[1]}: {lines[2].partition(' [type=')[0]}"
    return " ".join(lines)[:500] or type(error).__name__
