"""What a sweep has found: sweep.json, a table of its trials, and which parameters mattered."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table
from rich.text import Text

from srgan_dist.records.metrics import METRICS
from srgan_dist.sweeps.sweep_file import SweepFile
from srgan_dist.utils import strict_json
from srgan_dist.utils.files import write_whole

RESULT = "sweep.json"  # in the sweep's folder
_STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}
_FEWEST = 8  # finished trials that say something of which parameters matter


def write_report(study: optuna.Study, file: SweepFile, folder: Path) -> dict[str, Any]:
    """Write sweep.json, and return its content.

    Args:
        study: The trials.
        file: What the sweep is.
        folder: The sweep's folder.

    Returns:
        ``metric``, ``direction``, ``trials`` from the best on (each with ``number``, ``state``, ``value``, the metric's
        best, ``step`` of it, ``parameters``, ``folder``, ``reason`` of a failure), and ``importances``: of each
        parameter the fraction of what it explains; empty while too few trials have finished.
    """
    trials = [_trial(trial) for trial in study.get_trials(deepcopy=False) if trial.state in _STATES]
    sign = -1 if METRICS[file.metric] == "max" else 1

    def rank(trial: Mapping[str, Any]) -> tuple[bool, float, int]:
        value = trial["value"]
        return trial["state"] != "finished", math.inf if value is None else sign * value, trial["number"]

    report = {
        "sweep": str(file.path),
        "metric": file.metric,
        "direction": file.direction,
        "trials": sorted(trials, key=rank),
        "importances": _importances(study),
    }
    write_whole(folder / RESULT, strict_json.dumps(report, indent=2) + "\n")
    return report


def _trial(trial: FrozenTrial) -> dict[str, Any]:
    facts = trial.user_attrs
    return {
        "number": trial.number,
        "state": _STATES[trial.state],
        "value": facts.get("value"),
        "step": facts.get("step"),
        "parameters": dict(trial.params),
        "folder": f"trial-{trial.number:03d}",
        "reason": facts.get("reason"),
    }


def _importances(study: optuna.Study) -> dict[str, float]:
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(finished) < _FEWEST or len({trial.value for trial in finished}) < 2:
        return {}
    varied = {name for name in finished[0].params if len({repr(trial.params[name]) for trial in finished}) > 1}
    if not varied:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        # Watanabe et al. 2023: it needs no further package, and looks at what sets the best trials apart.
        found = optuna.importance.get_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(), params=sorted(varied)
        )
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def trial_table(report: Mapping[str, Any]) -> Table:
    """The trials as a table, the best first and bold."""
    better = "larger is better" if report["direction"] == "maximize" else "smaller is better"
    table = Table(title=f"{len(report['trials'])} trials, best {report['metric']} ({better})")
    names = list(dict.fromkeys(name for trial in report["trials"] for name in trial["parameters"]))
    for column in ("trial", "state", report["metric"], "step", *names):
        table.add_column(Text(column), justify="left" if column in ("trial", "state") else "right")
    for place, trial in enumerate(report["trials"]):
        value, step = trial["value"], trial["step"]
        cells = [
            trial["folder"],
            trial["state"],
            "" if value is None else f"{value:.5g}",
            "" if step is None else str(step),
        ]
        cells += [_shown(trial["parameters"].get(name)) for name in names]
        is_best = place == 0 and trial["state"] == "finished"
        table.add_row(*(Text(cell, style="bold" if is_best else "") for cell in cells))
    return table


def importance_table(report: Mapping[str, Any]) -> Table | None:
    """Which parameters mattered, or None while too few trials have finished."""
    if not report["importances"]:
        return None
    table = Table(title="what sets the best trials apart")
    table.add_column("parameter")
    table.add_column("importance", justify="right")
    for name, value in report["importances"].items():
        table.add_row(Text(name), f"{100 * value:.0f} %")
    return table


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
