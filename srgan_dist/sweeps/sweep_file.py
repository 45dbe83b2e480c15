"""A sweep's file, in the format of W&B's: the same one serves `wandb sweep` and `srgan-dist sweep`."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from srgan_dist.config.fields import accepted_keys
from srgan_dist.config.load import config_from
from srgan_dist.config.root import Config
from srgan_dist.config.suggest import suggestion
from srgan_dist.config.yaml_file import read_yaml
from srgan_dist.errors import UserError
from srgan_dist.records.metrics import METRICS

Method = Literal["bayes", "random", "grid"]

_KEYS = ("program", "method", "metric", "parameters", "early_terminate", "command", "run_cap")
_FOR_WANDB = ("name", "description", "project", "entity")  # which only its server needs
_METHODS = ("bayes", "random", "grid")
_GOALS = {"minimize": "min", "maximize": "max"}
_PLACEHOLDERS = {"${env}": ["/usr/bin/env"], "${interpreter}": [sys.executable]}
_OWN_FOLDER = "run.dir"  # of each trial
_SCALARS = (bool, int, float, str)


@dataclass(frozen=True)
class EarlyTermination:
    """When a trial that falls behind is stopped (Li et al. 2018, Hyperband), counted in validations.

    Attributes:
        min_iter: Validations that each trial gets.
        eta: Of as many trials, about one continues at each step up.
    """

    min_iter: int
    eta: int


@dataclass(frozen=True)
class SweepFile:
    """What a sweep is.

    Attributes:
        path: The file.
        method: How trials are chosen.
        metric: What is compared, such as ``val/perceptual``.
        parameters: What trials differ in, by configuration key.
        constants: What all trials have, by configuration key.
        command: What starts a trial, to which its ``--key=value`` are appended.
        early_termination: When a trial is stopped early, or None.
        run_cap: Number of trials, or None.
        config: The configuration of the first trial that there could be.
    """

    path: Path
    method: Method
    metric: str
    parameters: Mapping[str, BaseDistribution]
    constants: Mapping[str, Any]
    command: Sequence[str]
    early_termination: EarlyTermination | None
    run_cap: int | None
    config: Config

    @property
    def folder(self) -> Path:
        """Of the sweep: the command's ``--run.dir``."""
        return self.config.run.dir

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Which values of the metric are better."""
        return "minimize" if METRICS[self.metric] == "min" else "maximize"

    @property
    def num_validations(self) -> int:
        """Of a trial that comes to its end."""
        return math.ceil(self.config.train.steps / self.config.validation.every)

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every combination of the values, of a sweep whose method is grid."""
        choices = [_choices(distribution) for distribution in self.parameters.values()]
        for values in itertools.product(*choices):
            yield dict(zip(self.parameters, values, strict=True))

    def describe(self) -> dict[str, Any]:
        """What must stay the same for a sweep to be continued, for JSON."""
        return {
            "method": self.method,
            "metric": self.metric,
            "parameters": {name: repr(distribution) for name, distribution in self.parameters.items()},
            "constants": dict(self.constants),
            "command": [word for word in self.command if word != sys.executable],
        }


def overrides(values: Mapping[str, Any]) -> list[str]:
    """Command line arguments of configuration keys, as an agent of W&B's writes them."""
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]


def read_sweep(path: Path) -> SweepFile:
    """Read a sweep's file, and check it against the configuration that its command trains.

    Raises:
        UserError: It is not one, or one of its keys, distributions, parameters or its metric is nothing that a sweep
            here can have; it is named.
    """
    content, lines = read_yaml(path)
    if unknown := [key for key in content if key not in (*_KEYS, *_FOR_WANDB)]:
        at = f"{path}:{lines.get(unknown[0], 1)}"
        raise UserError(f"{at}: {unknown[0]!r:.60} is no key of a sweep; there are {', '.join((*_KEYS, *_FOR_WANDB))}")

    def refuse(key: str, problem: str) -> UserError:
        where = f"{path}:{lines[key]}" if key in lines else str(path)
        return UserError(f"{where}: {key} {problem}")

    method = content.get("method")
    if method not in _METHODS:
        raise refuse("method", f"is {method!r:.60}; choose one of {', '.join(_METHODS)}")
    parameters, constants = _parameters(content.get("parameters"), method=method, refuse=refuse)
    command = _command(content, refuse=refuse)
    config = _config_of(command, {name: _any_of(it) for name, it in parameters.items()} | constants, path=path)
    cap = content.get("run_cap")
    if cap is not None and not (type(cap) is int and cap > 0):
        raise refuse("run_cap", f"is {cap!r:.60}, not a number of trials")
    sweep = SweepFile(
        path=path,
        method=method,
        metric=_metric(content.get("metric"), refuse=refuse),
        parameters=parameters,
        constants=constants,
        command=command,
        early_termination=_early(content.get("early_terminate"), refuse=refuse),
        run_cap=cap,
        config=config,
    )
    if not config.data.validation:
        raise UserError(
            f"{path}: metric.name is {sweep.metric}, which needs data.validation in the trials' configuration"
        )
    if reason := config.why_unmeasured(sweep.metric.removeprefix("val/")):
        raise UserError(f"{path}: metric.name is {sweep.metric}, which is not measured, as {reason}")
    return sweep


def _metric(content: Any, *, refuse: Any) -> str:
    if not isinstance(content, dict) or not isinstance(content.get("name"), str):
        raise refuse("metric", f"must have a name, one of {', '.join(METRICS)}, and a goal, minimize or maximize")
    name, goal = content["name"], content.get("goal", "minimize")
    if name not in METRICS:
        raise refuse("metric.name", f"is {name!r:.60}; runs are compared by one of {', '.join(METRICS)}")
    if goal not in _GOALS:
        raise refuse("metric.goal", f"is {goal!r:.60}; choose minimize or maximize")
    if _GOALS[goal] != METRICS[name]:
        right = next(word for word, direction in _GOALS.items() if direction == METRICS[name])
        raise refuse("metric.goal", f"is {goal}, but of {name} the other direction is better: {right}")
    return str(name)


def _early(content: Any, *, refuse: Any) -> EarlyTermination | None:
    if content is None:
        return None
    if not isinstance(content, dict) or content.get("type") != "hyperband":
        raise refuse(
            "early_terminate", "must have type: hyperband, and min_iter, or max_iter and s; eta is 3 if it is not given"
        )
    if unknown := content.keys() - {"type", "min_iter", "max_iter", "s", "eta", "strict"}:
        raise refuse("early_terminate", f"has an unknown key {min(map(str, unknown))!r:.60}")
    eta = content.get("eta", 3)
    if not (type(eta) is int and eta >= 2):
        raise refuse("early_terminate.eta", f"is {eta!r:.60}, not a whole number of at least 2")
    if "min_iter" in content:
        min_iter = content["min_iter"]
    elif type(content.get("max_iter")) is int and type(content.get("s")) is int:
        min_iter = max(1, content["max_iter"] // eta ** content["s"])
    else:
        raise refuse("early_terminate", "needs min_iter, or max_iter and s, counted in validations")
    if not (type(min_iter) is int and min_iter >= 1):
        raise refuse("early_terminate.min_iter", f"is {min_iter!r:.60}, not a number of validations")
    return EarlyTermination(min_iter, eta)


def _parameters(content: Any, *, method: str, refuse: Any) -> tuple[dict[str, BaseDistribution], dict[str, Any]]:
    """What trials differ in, and what all of them have."""
    if not isinstance(content, dict) or not content:
        raise refuse("parameters", "must have at least one configuration key, such as train.g_per_d: {values: [1, 2]}")
    found: dict[str, BaseDistribution] = {}
    constants: dict[str, Any] = {}
    known = set(accepted_keys())
    for name, options in content.items():
        key = f"parameters.{name}"
        if name not in known:
            nested = isinstance(options, dict) and any(f"{name}.{inner}" in known for inner in options)
            hint = " (keys are dotted here, not nested)" if nested else suggestion(str(name))
            raise refuse(key, f"is no configuration key{hint}")
        if name == _OWN_FOLDER:
            raise refuse(key, "is each trial's own; the command's --run.dir is the folder of all of them")
        if not isinstance(options, dict):
            raise refuse(key, f"is {options!r:.60}; write {{values: [...]}}, {{value: ...}} or {{min: ..., max: ...}}")
        if "value" in options:
            constants[name] = options["value"]
            continue
        distribution = _distribution(options, refuse=lambda problem, key=key: refuse(key, problem))
        if method == "grid" and not _choices(distribution):
            raise refuse(key, "has endless values, which a grid cannot have: give values, or whole numbers")
        found[name] = distribution
    if not found:
        raise refuse("parameters", "are all constant: there is nothing to compare")
    return found, constants


def _distribution(options: Mapping[str, Any], *, refuse: Any) -> BaseDistribution:
    if "values" in options:
        values = options["values"]
        if not isinstance(values, list) or not values:
            raise refuse("needs values: [...] with at least one value")
        texts = [value if value is None or isinstance(value, _SCALARS) else json.dumps(value) for value in values]
        if len({repr(text) for text in texts}) < len(texts):
            raise refuse("has a value twice")
        return CategoricalDistribution(texts)
    low, high = options.get("min"), options.get("max")
    if not all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in (low, high)):
        raise refuse("needs values, value, or numbers min and max (1.0e-4 is a number in YAML, 1e-4 a text)")
    assert low is not None
    assert high is not None
    if not all(math.isfinite(end) for end in (low, high)):
        raise refuse(f"has min {low:g} and max {high:g}, which must both be finite")
    if low >= high:
        raise refuse(f"has min {low:g}, not below max {high:g}")
    both_whole = isinstance(low, int) and isinstance(high, int)
    kind = options.get("distribution", "int_uniform" if both_whole else "uniform")
    step = options.get("q", 1)
    is_step = isinstance(step, (int, float)) and not isinstance(step, bool) and 0 < step <= high - low
    if kind in ("int_uniform", "q_uniform") and not (is_step and (kind == "q_uniform" or isinstance(step, int))):
        raise refuse(f"has the step q {step!r:.60}, which must be above 0 and at most max - min; whole for int_uniform")
    if kind == "int_uniform" and both_whole:
        return IntDistribution(low, high, step=step)
    if kind in ("uniform", "q_uniform"):
        return FloatDistribution(low, high, step=step if kind == "q_uniform" else None)
    if kind == "log_uniform_values":
        if low <= 0:
            raise refuse(f"has min {low:g}, which has no logarithm")
        return FloatDistribution(low, high, log=True)
    allowed = "uniform, q_uniform, int_uniform (whole numbers), log_uniform_values; or values, or value"
    raise refuse(f"has distribution {kind!r:.60}; here there are {allowed}")


def _choices(distribution: BaseDistribution) -> list[Any]:
    """All values, if they can be counted."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return list(range(distribution.low, distribution.high + 1, distribution.step))
    return []


def _any_of(distribution: BaseDistribution) -> Any:
    choices = _choices(distribution)
    return choices[0] if choices else getattr(distribution, "low", None)


def _command(content: Mapping[str, Any], *, refuse: Any) -> list[str]:
    """The words that start a trial, without those of its parameters, which stand at the end."""
    words = content.get("command", ["${env}", "${interpreter}", "${program}", "${args}"])
    if not isinstance(words, list) or not words or not all(isinstance(word, (str, int, float)) for word in words):
        raise refuse("command", "must be a list of words")
    words = [str(word) for word in words]
    if words.count("${args}") != 1 or words[-1] != "${args}":
        raise refuse("command", "must end with ${args}, where the trial's --key=value come")
    program = content.get("program")
    command: list[str] = []
    for word in words[:-1]:
        if word == "${program}":
            if not isinstance(program, str):
                raise refuse("program", "is needed by ${program} in the command: train.py, usually")
            command.append(program)
        elif word.startswith("${"):
            if word not in _PLACEHOLDERS:
                allowed = ", ".join((*_PLACEHOLDERS, "${program}", "${args}"))
                raise refuse("command", f"has {word}; here there are {allowed}")
            command += _PLACEHOLDERS[word]
        else:
            command.append(word)
    return command


def _config_of(command: Sequence[str], values: Mapping[str, Any], *, path: Path) -> Config:
    """The configuration that a command trains with these values."""
    own = [at for at, word in enumerate(command) if word.endswith(".py") or word == "train"]
    arguments = [*command[own[0] + 1 if own else len(command) :], *overrides(values)]
    try:
        return config_from(arguments, prog="srgan-dist train")
    except UserError as error:
        raise UserError(f"{path}: its trials cannot be started: {error}") from None
