"""The sweep: which trials there are, which one trains where, and which have had their chance."""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from srgan_dist.distributed.launch import trial_environment
from srgan_dist.distributed.signals import stop_signals
from srgan_dist.errors import Failure, Stopped, UserError
from srgan_dist.records.run import State
from srgan_dist.sweeps.report import write_report
from srgan_dist.sweeps.sweep_file import SweepFile, overrides
from srgan_dist.sweeps.trial import Trial, is_alive
from srgan_dist.utils.files import why_unwritable
from srgan_dist.utils.locks import FolderLock, is_held

log = logging.getLogger("srgan_dist")

JOURNAL = "sweep.journal"  # in the sweep's folder: Optuna's record of all trials
_INTERVAL = 0.5  # seconds between two looks at the trials
_PATIENCE = 120.0  # seconds for trials to save and end
_FEWEST = 3  # trials that have all failed, after which the next would, too
_MOST_RESTARTS = 20  # of a trial that others stop again and again


class Sweep:
    """A sweep, as far as it has come in its folder.

    Args:
        file: What it is.
        num_trials: Trials in all, those of earlier starts included; None: as many as the file says, or the whole grid.
        parallel: Trials at a time.

    Raises:
        UserError: Nothing says how many trials there are, or the folder has another sweep.
    """

    def __init__(self, file: SweepFile, *, num_trials: int | None, parallel: int) -> None:
        self.file, self.parallel, self.folder = file, parallel, file.folder
        grid = len(list(file.grid())) if file.method == "grid" else None
        wished = num_trials or file.run_cap or grid
        if wished is None:
            raise UserError(f"{file.path}: say how many trials there are, by --trials N or run_cap in the file")
        self.num_trials = min(wished, grid) if grid else wished
        self.num_gpus = torch.cuda.device_count()
        self._trials: dict[int, Trial] = {}  # by place
        self._restarts: dict[int, int] = {}

    def run(self) -> dict[str, Any]:
        """Train until there are as many trials as asked for. Returns what sweep.json has.

        Raises:
            UserError: Another sweep trains in the folder, or has begun one that differs.
            Stopped: A signal came; everything is saved, and the same call resumes it.
            Failure: The first trials have all failed.
        """
        if problem := why_unwritable(self.folder):
            raise UserError(f"run.dir is {self.folder}, which cannot be written: {problem}")
        lock = FolderLock(self.folder)
        if holder := lock.acquire():
            raise UserError(f"run.dir is {self.folder}, where another sweep trains ({holder}): wait for its end")
        try:
            with stop_signals() as signals, _quiet_optuna():
                self.study = self._open()
                try:
                    while self._is_going_on():
                        if signals.received:
                            self._stop_all()
                            raise Stopped(f"{self.folder}: stopped by a signal; the same command resumes it")
                        self._fill_places()
                        for place in list(self._trials):
                            self._look_at(place)
                        time.sleep(_INTERVAL)
                finally:
                    for trial in self._trials.values():
                        trial.kill()
                    report = write_report(self.study, self.file, self.folder)
        finally:
            lock.release()
        return report

    def _open(self) -> optuna.Study:
        _cut_unfinished_line(self.folder / JOURNAL)
        sampler = _sampler(self.file)
        storage = JournalStorage(JournalFileBackend(str(self.folder / JOURNAL)))
        study = optuna.create_study(
            study_name="sweep",
            storage=storage,
            sampler=sampler,
            pruner=_pruner(self.file),
            direction=self.file.direction,
            load_if_exists=True,
        )
        description = self.file.describe()
        before = study.user_attrs.get("sweep")
        if before is None:
            study.set_user_attr("sweep", description)
        elif before != description:
            other = ", ".join(key for key in description if before.get(key) != description[key])
            raise UserError(
                f"{self.folder} has a sweep that was begun with another {other} than {self.file.path} has now: choose "
                "another --run.dir in its command, or move that folder away"
            )
        known = study.get_trials(deepcopy=False)
        sampler.reseed_rng()
        if self.file.method == "grid":
            for values in islice(self.file.grid(), len(known), self.num_trials):
                study.enqueue_trial(values, skip_if_exists=True)
        if ended := sum(trial.state.is_finished() for trial in known):
            log.info("%s: resumes; %d of %d trials have ended", self.folder, ended, self.num_trials)
        return study

    def _is_going_on(self) -> bool:
        return bool(self._trials) or self._next_exists()

    def _next_exists(self) -> bool:
        trials = self.study.get_trials(deepcopy=False)
        begun = [trial for trial in trials if trial.state != TrialState.WAITING]
        return len(begun) < self.num_trials or any(trial.state == TrialState.RUNNING for trial in begun)

    def _fill_places(self) -> None:
        training = {trial.number for trial in self._trials.values()}
        begun = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        left = [frozen for frozen in begun if frozen.number not in training]
        # Their processes may have outlived a sweep that was killed: they train on, and are taken over at their end.
        waiting = [frozen for frozen in left if not self._trains_elsewhere(frozen)]
        num_free = self.parallel - len(self._trials) - (len(left) - len(waiting))
        free = (place for place in range(self.parallel) if place not in self._trials)
        for frozen in [frozen for frozen in waiting if frozen.user_attrs.get("pruned")]:
            waiting.remove(frozen)
            self.study.tell(frozen.number, state=TrialState.PRUNED)
        for place in list(islice(free, max(0, num_free))):
            number = waiting.pop(0).number if waiting else self._new_trial()
            if number is not None:
                self._begin(place, number)

    def _trains_elsewhere(self, frozen: FrozenTrial) -> bool:
        return is_held(self._folder_of(frozen.number)) or is_alive(frozen.user_attrs.get("process"))

    def _new_trial(self) -> int | None:
        """The number of another trial, or None when there are enough."""
        known = self.study.get_trials(deepcopy=False)
        if sum(trial.state != TrialState.WAITING for trial in known) >= self.num_trials:
            return None
        return self.study.ask().number

    def _folder_of(self, number: int) -> Path:
        return self.folder / f"trial-{number:03d}"

    def _begin(self, place: int, number: int) -> None:
        folder, handle = self._folder_of(number), self._handle(number)
        # Those of a trial that was begun stay what they are; a kill may have come before all of them had a value.
        chosen = {name: _suggest(handle, name, it) for name, it in self.file.parameters.items()}
        values = {**self.file.constants, **chosen}
        group = {} if self.file.config.tracker.group else {"tracker.group": self.folder.name}
        options = overrides({**group, **values, "run.dir": str(folder)})
        verb = "resumes" if folder.exists() else "starts"
        log.info("%s %s: %s", folder.name, verb, ", ".join(f"{key}={_brief(value)}" for key, value in chosen.items()))
        self._trials[place] = Trial(
            number,
            folder,
            command=[*self.file.command, *options],
            environment=trial_environment(place, parallel=self.parallel, num_gpus=self.num_gpus),
            metric=self.file.metric,
        )
        self._keep(number, {"process": self._trials[place].process})

    def _look_at(self, place: int) -> None:
        """Report what a trial has logged, stop it if it fell behind, and take its outcome if it has ended."""
        trial = self._trials[place]
        has_ended = trial.has_ended  # first: what it logs before its end is then read
        self._report(trial)
        if not has_ended:
            return
        end = trial.end()
        if end == State.PREEMPTED and not trial.pruned and self._restarts.get(trial.number, 0) < _MOST_RESTARTS:
            self._restarts[trial.number] = self._restarts.get(trial.number, 0) + 1
            log.info("%s was stopped by another process, and resumes", trial.folder.name)
            trial.restart()
            self._keep(trial.number, {"process": trial.process})
            return
        del self._trials[place]
        outcome = trial.outcome()
        if trial.pruned and end in (State.FINISHED, State.PREEMPTED):
            state, value = TrialState.PRUNED, None
        elif end == State.FINISHED and outcome["value"] is not None:
            state, value = TrialState.COMPLETE, outcome["value"]
        else:
            state, value = TrialState.FAIL, None
            reason = f"it has no {self.file.metric}" if end == State.FINISHED else trial.why()
            self._keep(trial.number, {"reason": reason})
            log.warning("%s failed: %s", trial.folder.name, reason)
        self._keep(trial.number, outcome)
        self.study.tell(trial.number, value, state)
        if value is not None:
            log.info("%s: %s %.5g at step %d", trial.folder.name, self.file.metric, value, outcome["step"])
        self._stop_if_hopeless()

    def _report(self, trial: Trial) -> None:
        handle = self._handle(trial.number)
        for value in trial.validations():
            known = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
            at = trial.seen = trial.seen + 1
            if at not in known:  # a trial that resumes after a kill logs some again
                handle.report(value, at)
        if self.file.early_termination and not trial.pruned and trial.seen and handle.should_prune():
            log.info("%s is stopped after %d validations: it has fallen behind", trial.folder.name, trial.seen)
            trial.pruned = True
            self._keep(trial.number, {"pruned": True})  # first: a sweep that is killed now must not let it continue
            trial.stop()

    def _handle(self, number: int) -> optuna.trial.Trial:
        return optuna.trial.Trial(self.study, self.study.get_trials(deepcopy=False)[number]._trial_id)

    def _keep(self, number: int, facts: dict[str, Any]) -> None:
        handle = self._handle(number)
        for name, value in facts.items():
            handle.set_user_attr(name, value)

    def _stop_if_hopeless(self) -> None:
        """A mistake in the configuration fails every trial: it is said once, not a hundred times."""
        trials = self.study.get_trials(deepcopy=False)
        ended = [trial for trial in trials if trial.state.is_finished()]
        failed = [trial for trial in ended if trial.state == TrialState.FAIL]
        if len(failed) == len(ended) and len(failed) >= min(_FEWEST, self.num_trials):
            self._stop_all()
            reason = failed[-1].user_attrs.get("reason", "unknown")
            which = f"all of the first {len(failed)} trials" if len(failed) > 1 else "the first trial"
            raise Failure(f"{self.folder}: {which} failed: {reason}")

    def _stop_all(self) -> None:
        """Let all trials save and end; they stay begun, and resume at the next start."""
        for trial in self._trials.values():
            trial.stop()
        deadline = time.monotonic() + _PATIENCE
        while not all(trial.has_ended for trial in self._trials.values()) and time.monotonic() < deadline:
            time.sleep(_INTERVAL / 5)
        for trial in self._trials.values():
            trial.kill()  # one that hangs; its last checkpoint is whole
        self._trials.clear()


def _cut_unfinished_line(journal: Path) -> None:
    """Remove the end of a journal that a full disk or a power cut left incomplete; Optuna would append to it."""
    if journal.is_file():
        content = journal.read_bytes()
        if not content.endswith(b"\n") and content:
            os.truncate(journal, content.rfind(b"\n") + 1)


def _suggest(trial: optuna.trial.Trial, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step)
    assert isinstance(distribution, FloatDistribution)
    step, log_scale = distribution.step, distribution.log
    return trial.suggest_float(name, distribution.low, distribution.high, step=step, log=log_scale)


def _sampler(file: SweepFile) -> BaseSampler:
    if file.method == "bayes":
        return TPESampler(constant_liar=True)  # others train meanwhile
    return RandomSampler()


def _pruner(file: SweepFile) -> BasePruner:
    early = file.early_termination
    if early is None or early.min_iter >= file.num_validations:
        return NopPruner()
    return HyperbandPruner(min_resource=early.min_iter, max_resource=file.num_validations, reduction_factor=early.eta)


def _brief(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value) if not isinstance(value, str) else value


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Optuna's own log lines say what ours do."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
