"""Weights & Biases: online where it answers, offline otherwise, and never in the way of training."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from srgan_dist.errors import Stopped
from srgan_dist.tracking import wandb_rows
from srgan_dist.tracking.background import Background
from srgan_dist.tracking.logged import Logged
from srgan_dist.tracking.wandb_files import (
    LocalLog,
    WandbAddress,
    how_to_upload,
    local_logs,
    read_address,
    write_address,
)
from srgan_dist.tracking.wandb_start import (
    FINISH_SECONDS,
    Labels,
    find_address,
    init_options,
    interrupt,
    is_stopped_by_server,
    reason,
    wandb_mode,
)

log = logging.getLogger("srgan_dist")

LogWeights = Literal["none", "final", "best"]

_FAILED, _PREEMPTED = 1, 75  # exit codes, as the commands return them
_GRACE_SECONDS = 15.0  # for what waits to be handed over to W&B's process at the end


class WandbRun:
    """One W&B run, however often the training is started again; whatever fails here, the training continues.

    Whatever is logged is handed over to W&B's process in a thread of its own: a table alone asks the server something,
    and waits minutes for one that does not answer.

    Args:
        folder: The training's folder: its name is the run's, and W&B's files go into it.
        labels: Where the run belongs in W&B.
        goals: For each metric that runs are compared by, ``min`` or ``max``: that one is in the summary.
        log_weights: Which weights W&B gets at the end.
    """

    def __init__(self, folder: Path, *, labels: Labels, goals: Mapping[str, str], log_weights: LogWeights) -> None:
        self.folder, self.labels, self.goals, self.log_weights = folder, labels, goals, log_weights
        self.address: WandbAddress | None = None
        self._last_step = 0
        self._best: dict[str, float] = {}
        self._run: Any = None  # None: it never started, or its process died
        self._background = Background()
        self._row_time: float | None = None  # of the row that has begun
        self._is_told_to_stop = False

    @property
    def last_step(self) -> int | None:
        """W&B has the steps up to this one, and gets none of them again; None: there is no run to log to."""
        return None if self._run is None else self._last_step

    def start(
        self,
        config: Mapping[str, Any],
        *,
        step: int,
        old_id: str | None,
        redone: bool,
        configuration: str | None,
    ) -> None:
        """Start a run, or resume one, online where W&B can be reached and offline elsewhere; never prompts.

        Args:
            config: What is stored with the run: the resolved configuration, and what else there is to know.
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
        address, resumes = find_address(self.labels, settings, recorded)
        self.address = replace(address, configuration=configuration)
        write_address(self.folder, self.address)
        options = init_options(
            self.folder, self.labels, self.address, settings, resumes=resumes, stop=self._stop_function()
        )
        for attempt in dict.fromkeys((mode, "offline")):
            try:
                run = self._init(config, options | {"mode": attempt})
                self._last_step = self._find_last_step(run, why)
                if of_earlier_version:  # which counted W&B's own steps otherwise
                    self._last_step = max(self._last_step, step)
                self._run = run
                return
            except Exception as error:  # noqa: BLE001 - W&B's, pydantic's, OSError
                why = reason(error)
                self._tear_down()
        log.warning("W&B: %s: training continues without it; metrics.jsonl has everything", why)

    def _find_last_step(self, run: Any, why: str) -> int:
        """Up to which step W&B has everything; says where the run is, and writes it down.

        Args:
            run: The W&B run.
            why: Why it is offline, if it is.
        """
        assert self.address
        others = [part for part in local_logs(Path(run.settings.wandb_dir), run.id) if part.path != _log_of(run).path]
        if run.offline:
            missing = [part for part in others if not part.is_uploaded]
            log.warning("W&B: %s: logging offline; %s", why, how_to_upload([*missing, _log_of(run)]))
            return next((last for part in reversed(others) if (last := part.last_step())), 0)
        for part in others:  # what the server lacks of them it gets now
            part.mark_uploaded()
        # What the server made of it: a run that resumes must not depend on the environment.
        self.address = replace(self.address, project=run.project, entity=run.entity)
        write_address(self.folder, self.address)
        log.info("W&B: %s", run.url)
        return run.starting_step - 1 if run.resumed else 0

    def _init(self, config: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        import wandb

        run = wandb.init(**options)
        run.config.update(dict(config), allow_val_change=True)  # type: ignore[no-untyped-call]
        run.define_metric("*", step_metric="step")
        for name, goal in self.goals.items():
            run.define_metric(name, step_metric="step", summary=goal)
        return run

    def _tear_down(self) -> None:
        import wandb

        self._run = None
        with contextlib.suppress(Exception):  # it would be reported again at the end of the process
            wandb.teardown()

    def _stop_function(self) -> Callable[[], None]:
        """What W&B calls, in another thread, when somebody stops the run there; W&B copies it, but no function."""

        def stop() -> None:
            self._is_told_to_stop = True
            interrupt()

        return stop

    def log(self, logged: Logged) -> None:
        """Send something of a step that W&B lacks; what is of one step makes one row, which `commit` ends.

        Args:
            logged: The step is also W&B's own, by which a resumed run knows what the server has.
        """
        self._note_best(logged.values)
        if self.last_step is None or logged.step <= self.last_step:
            return
        if self._row_time is None:
            self._row_time = logged.seconds
        logged = replace(logged, seconds=self._row_time)
        self._do(lambda run: run.log(wandb_rows.row(logged), step=logged.step))
        if logged.validation:
            what = f"the validation images of step {logged.step}"
            self._try(what, lambda run: run.log(wandb_rows.table(logged), step=logged.step))
        if "alert" in logged.values and not logged.is_again:  # a message is for when it happens
            title = f"{self.folder.resolve().name[:40]}, step {logged.step}"
            self._do(lambda run: run.alert(title, str(logged.values["alert"]), level="WARN"))

    def commit(self, step: int) -> None:
        """Send the step's row, which would otherwise wait for the next step's.

        Args:
            step: The training step.
        """
        if (seconds := self._row_time) is not None:
            self._row_time = None
            self._do(lambda run: run.log({wandb_rows.TIME: seconds}, step=step, commit=True))
            if self._last_step and self._best:  # W&B's own summary forgets what was before this start
                best = {name: {self.goals[name]: value} for name, value in self._best.items()}
                self._do(lambda run: run.summary.update(best))

    def _note_best(self, values: Mapping[str, Any]) -> None:
        for name, goal in self.goals.items():
            value = values.get(name)
            if isinstance(value, (int, float)) and math.isfinite(value):
                self._best[name] = {"min": min, "max": max}[goal](value, self._best.get(name, value))

    def finish(self, result: Mapping[str, Any], weights: Mapping[str, Path]) -> None:
        """Put the result into the summary, and send the weights.

        Args:
            result: The content of result.json.
            weights: Files of weights: ``final``, and ``best`` where there are any.
        """
        self._do(lambda run: run.summary.update({"result": dict(result)}))
        which = "final" if self.log_weights == "best" and "best" not in weights else self.log_weights
        if which == "none":
            return

        def send(run: Any) -> None:
            folder = _log_of(run).path.parent
            artifact = wandb_rows.weights(weights[which], name=f"weights-{run.id}", keep_in=folder, result=result)
            run.log_artifact(artifact, aliases=[which])

        self._try("the weights", send)

    def close(self, ended_by: BaseException | None) -> None:
        """Finish the run.

        Args:
            ended_by: What ended the training; None: it came to its end.
        """
        if self._run is None:
            return
        part = _log_of(self._run)
        self._do(partial(self._finish, ended_by=ended_by))
        if not self._background.wait(FINISH_SECONDS + _GRACE_SECONDS):
            self._run = None  # what still waits for the server ends with the process
            _warn_not_taken(part)

    def _finish(self, run: Any, *, ended_by: BaseException | None) -> None:
        if isinstance(ended_by, Stopped):
            # With a code other than 0: neither failed nor finished, and to be started again. One that was stopped in
            # W&B, or by its sweep, is not.
            if not (self._is_told_to_stop or is_stopped_by_server(run)):
                run.mark_preempting()
            code = _PREEMPTED
        elif ended_by is not None:
            run.summary["failed"] = reason(ended_by)
            code = _FAILED
        else:
            code = 0
        part, was_online = _log_of(run), not run.offline
        try:
            run.finish(exit_code=code)
        except TimeoutError:
            _warn_not_taken(part)
        else:
            if was_online:
                part.mark_uploaded()

    def _try(self, what: str, action: Callable[[Any], object]) -> None:
        """Do something that may fail although the run is there: W&B asks the server before it takes an artifact."""

        def attempt(run: Any) -> None:
            try:
                action(run)
            except Exception as error:  # noqa: BLE001 - several private kinds
                if self._run is not None:
                    log.warning("W&B: has not taken %s (%s)", what, reason(error))

        self._do(attempt)

    def _do(self, action: Callable[[Any], object]) -> None:
        """Do something with the run, if it is still there: schedulers send SIGTERM to all of a job's processes."""
        if self._run is not None:
            self._background.do(partial(self._attempt, action))

    def _attempt(self, action: Callable[[Any], object]) -> None:
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:  # noqa: BLE001 - OSError and several private kinds
            if self._run is None:
                return
            log.warning(
                "W&B: lost its process (%s); metrics.jsonl continues without it, and the next start of this run sends "
                "what W&B lacks",
                reason(error),
            )
            self._tear_down()


def _log_of(run: Any) -> LocalLog:
    return LocalLog(Path(run.settings.sync_file))


def _warn_not_taken(part: LocalLog) -> None:
    waited = f"it has not taken everything within {FINISH_SECONDS:.0f} s"
    log.warning("W&B: %s: %s", waited, how_to_upload([part]))
