"""Reads a checkpoint: the types of what its state.json holds are checked before any of it is used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from srgan_dist.checkpointing.format import CheckpointError, TrainingState, usable
from srgan_dist.checkpointing.manager import Checkpoints
from srgan_dist.tracking.logged import SCORE_BINS
from srgan_dist.training.interval import TOTALS

_DEEPEST = 20  # sections within sections; a configuration has five


def _compared(configuration: dict[str, Any]) -> dict[str, Any]:
    """What `srgan_dist.config.compatibility` relies on; it reports every other difference itself."""
    level: list[Any] = [configuration]
    for _ in range(_DEEPEST):
        level = [inner for outer in level if isinstance(outer, Mapping) for inner in outer.values()]
    if any(isinstance(inner, Mapping) for inner in level):
        raise ValueError("is nested too deeply")
    if not (isinstance(configuration.get("train"), Mapping) and type(configuration["train"].get("steps")) is int):
        raise ValueError("lacks train.steps")
    return configuration


Count = Annotated[int, Field(ge=0, le=2**53)]
_Counts = Annotated[list[Count], Field(min_length=SCORE_BINS, max_length=SCORE_BINS)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Factor = Annotated[float, Field(gt=0, le=1)]


class _Counters(BaseModel):
    model_config = ConfigDict(strict=True)  # no number out of a text, no whole number out of a fraction


class _Origin(_Counters):
    configuration: Annotated[dict[str, Any], AfterValidator(_compared)]
    shards: str


class _DiscriminatorSchedule(_Counters):
    smoothed: dict[str, float]
    paused: bool
    learned: bool


class _CollapseMonitor(_Counters):
    best: float | None
    is_collapsed: bool
    since: Count | None
    recent: list[float]
    bad: Count


class _CollapseResponse(_Counters):
    pace: _DiscriminatorSchedule
    monitor: _CollapseMonitor
    rollbacks: Count
    d_rate: Factor


class _Interval(_Counters):
    names: list[list[str]]
    ranks: list[list[Finite]]

    @model_validator(mode="after")
    def _fits(self) -> _Interval:
        of_rank = TOTALS * sum(map(len, self.names))
        if not self.ranks or any(len(row) != of_rank for row in self.ranks):
            raise ValueError(f"does not have {of_rank} numbers for each rank")
        return self


class _Validated(_Counters):
    """The step, and the measures by name: which ones, the run that wrote it decided."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Finite | None]

    step: Count


class _State(_Counters):
    step: Count
    consumed: Count
    origin: _Origin
    averaged: Count
    discriminator_updates: Count
    discriminator_stats: dict[str, float]
    score_histograms: dict[str, _Counts] = {}
    stability: _CollapseResponse
    seconds: Seconds
    results: dict[str, dict[str, float | None]]
    validations: list[_Validated] = []  # it and the next are not there in a run of an earlier version
    interval: _Interval | None = None
    tracker_id: str | None


def check_counters(counters: Mapping[str, Any]) -> None:
    """Check every value of a state.json that a resumed run uses.

    Args:
        counters: Its content.

    Raises:
        CheckpointError: One is missing or not of its type or range; it is named.
    """
    try:
        _State.model_validate(counters)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(f"state.json: {where!r:.100} {first['msg'][:100]}") from None


def load_state(checkpoints: Checkpoints, path: Path) -> TrainingState:
    """Read a checkpoint, with the types of its counters checked; whether the networks fit is seen when they load it.

    Args:
        checkpoints: The checkpoints of the run.
        path: Folder of the checkpoint.

    Raises:
        UserError: It is not a sound checkpoint; the file is named.
    """
    state = checkpoints.load(path)
    with usable(path):
        check_counters(state.counters)
    return state
