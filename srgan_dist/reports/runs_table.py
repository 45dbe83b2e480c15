"""The table of ``srgan-dist runs``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from srgan_dist.records.metrics import LABELS, METRICS
from srgan_dist.records.run import RunRecord, State, Value, find_runs, read_run
from srgan_dist.records.time_left import TimeLeft, time_left
from srgan_dist.utils.names import printable

_NAME = 8  # characters of a name that stay together on the narrowest terminal

STYLES: Mapping[State, str] = {
    State.RUNNING: "bold green",
    State.FINISHED: "",
    State.PREEMPTED: "yellow",
    State.CRASHED: "red",
    State.BROKEN: "red",
}


@dataclass(frozen=True)
class RunRow:
    """A run, without its lines.

    Attributes:
        name: Where it is below the folder that was asked for.
        record: Its record, without metrics, validation and images.
        left: The time left, or None.
        final: By metric, its last value.
        best: By metric, its best value.
        changed: When it was last written to, in seconds since 1970.
    """

    name: str
    record: RunRecord
    left: TimeLeft | None
    final: Mapping[str, Value]
    best: Mapping[str, Value]
    changed: float


def list_runs(folder: Path) -> list[RunRow]:
    """The runs at and below a folder: running ones, then the others, those that were written last first."""
    rows = [_row(found, folder) for found in find_runs(folder)]
    return sorted(rows, key=lambda row: (row.record.state != State.RUNNING, -row.changed, row.name))


def _row(place: Path, folder: Path) -> RunRow:
    record = read_run(place)
    return RunRow(
        name=record.name if place == folder else str(place.relative_to(folder)),
        record=record.without_lines(),
        left=time_left(record),
        final={key: value for key in METRICS if (value := record.final(key))},
        best={key: value for key in METRICS if (value := record.best(key))},
        changed=_changed(place),
    )


def _changed(place: Path) -> float:
    times = []
    for name in ("metrics.jsonl", "config.yaml", "result.json", "stopped.json", "failed.json"):
        try:
            times.append((place / name).stat().st_mtime)
        except OSError:  # not there
            continue
    return max(times, default=0.0)


def to_table(rows: list[RunRow]) -> Table:
    """Render runs as a table: of each metric the last value, and below it the best one with its step."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("run", overflow="fold", min_width=_NAME)
    table.add_column("state", no_wrap=True)
    table.add_column("step\ntime left", justify="right", overflow="fold")
    table.add_column("hours", justify="right", no_wrap=True)
    shown = [key for key in METRICS if any(key in row.final for row in rows)]
    for key in shown:
        table.add_column(Text(f"{LABELS[key].column}\nbest"), justify="right", overflow="fold")
    for row in rows:
        record = row.record
        hours = "" if record.hours is None else f"{record.hours:.2f}"
        state = Text(record.state.value, style=STYLES[record.state])
        table.add_row(Text(printable(row.name)), state, _steps(row), hours, *(_values(row, key) for key in shown))
    return table


def _steps(row: RunRow) -> str:
    record = row.record
    if record.state == State.BROKEN:
        return ""
    planned = "" if record.planned_steps is None else f"/{record.planned_steps}"
    left = f"\n{row.left}".replace(" and ", "\n+ ") if row.left else ""
    return f"{record.step}{planned}{left}"


def _values(row: RunRow, key: str) -> Text:
    final, best = row.final.get(key), row.best.get(key)
    if not final or not best:
        return Text("")
    digits = LABELS[key].digits
    text = Text(f"{final.value:.{digits}f}")
    if best.step != final.step:
        text.append(f"\n{best.value:.{digits}f}@{best.step}", style="dim")
    return text


def notes(rows: list[RunRow]) -> list[tuple[str, State]]:
    """What there is to say of runs that did not end well, or cannot be read whole: lines, with the run's state."""
    said = []
    for row in rows:
        record = row.record
        problems = [one for one in record.problems if one != record.reason]
        lines = [f"{record.state.value}: {record.reason}"] if record.reason else []
        said += [(printable(f"{row.name}: {line}"), record.state) for line in [*lines, *problems]]
    return said


def to_json(rows: list[RunRow]) -> list[dict[str, Any]]:
    """The same as JSON's types."""
    return [
        {
            "folder": str(row.record.folder),
            "name": row.name,
            "state": row.record.state.value,
            "reason": row.record.reason,
            "step": row.record.step,
            "planned_steps": row.record.planned_steps,
            "seconds_left": row.left and row.left.seconds,
            "later_steps": row.left and row.left.later_steps,
            "hours": row.record.hours,
            "final": {key: value.value for key, value in row.final.items()},
            "best": {key: value._asdict() for key, value in row.best.items()},
            "problems": list(row.record.problems),
        }
        for row in rows
    ]
