"""The curves of a run: columns of what it logged, thinned so that no peak is lost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Column = list[float | None]

MOST_ROWS = 1500
_ROWS_OF_ALL = 30_000  # of all runs together: with twenty curves 5 MB of the page
_FEWEST_ROWS = 200
_DIGITS = 5  # significant ones: a curve is drawn on some hundred pixels
_AXES = ("step", "images", "hours")
_VALIDATION = "val/"
_UPDATES = "d/updates"
_RATIO = "n"
_NO_CURVES = (*_AXES, "epoch", _UPDATES)

_LABELS = {
    "val/psnr_y": "PSNR-Y (dB)",
    "val/ssim_y": "SSIM-Y",
    "val/perceptual": "perceptual distance",
    "val/lpips": "LPIPS",
    "val/dists": "DISTS",
    "g/total": "G: loss",
    "g/pixel": "G: pixel loss",
    "g/perceptual": "G: perceptual loss",
    "g/adversarial": "G: adversarial loss",
    "g/psnr": "PSNR of training patches (dB)",
    "g/psnr_gain": "PSNR of training patches above bicubic (dB)",
    "g/saturated": "G: saturated values",
    "d/loss": "D: loss",
    "d/r1": "D: R1 penalty",
    "d/real_accuracy": "D: accuracy on real",
    "d/fake_accuracy": "D: accuracy on generated",
    "d/real_score": "D: score of real",
    "d/fake_score": "D: score of generated",
    "grad_norm/g": "G: gradient norm",
    "grad_norm/d": "D: gradient norm",
    "grad_norm/ratio": "gradient norms, D over G",
    _RATIO: "n: generator updates for each of D",
    "learning_rate": "learning rate of G",
    "learning_rate/d": "learning rate of D",
    "perf/images_per_second": "patches a second",
    "perf/data_wait": "fraction of time waiting for data",
    "perf/memory_gib": "peak memory (GiB)",
}
# Curves in the order in which they are looked at; of a kind that has none here, behind, by name.
_ORDER = tuple(_LABELS)
_KINDS = ("val/", "g/", "d/", "grad_norm/", _RATIO, "learning_rate", "loss_scale/", "perf/")
_LOG_SCALE = ("grad_norm/", "learning_rate", "loss_scale/")


def number(value: Any) -> float | None:
    """A value as JSON and a browser know it: a finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # a whole number beyond floating point
        return None


def curves(metrics: Iterable[Sequence[Row]]) -> list[dict[str, Any]]:
    """Which curves runs have, in the order in which they are looked at.

    Args:
        metrics: Of each run, the lines of metrics.jsonl.

    Returns:
        ``key``, ``label``, and ``log``: whether its axis is logarithmic at first.
    """
    keys: dict[str, None] = {}
    for rows in metrics:
        names = {name: None for row in rows for name in row}
        keys |= {
            name: None
            for name in names
            if name not in _NO_CURVES and any(number(r.get(name)) is not None for r in rows)
        }
        if any(number(row.get(_UPDATES)) for row in rows):
            keys[_RATIO] = None

    def place(key: str) -> tuple[int, int, str]:
        kind = next((at for at, start in enumerate(_KINDS) if key.startswith(start)), len(_KINDS))
        return kind, _ORDER.index(key) if key in _ORDER else len(_ORDER), key

    return [
        {"key": key, "label": _LABELS.get(key, key), "log": key.startswith(_LOG_SCALE)}
        for key in sorted(keys, key=place)
    ]


def series(metrics: Sequence[Row], keys: Sequence[str], *, most_rows: int = MOST_ROWS) -> dict[str, Any]:
    """The columns of a run's curves.

    Rows with a validation stay as they are. Of the others, where there are too many, each interval of about as many
    rows becomes two, which hold the least and the greatest value of each column in the order in which they came: no
    value is made up and no peak lost, and none moves further than its interval.

    Args:
        metrics: The lines of metrics.jsonl, ascending by step; several lines of one step become one row.
        keys: Of the curves.
        most_rows: Rows to keep, apart from those with a validation.

    Returns:
        ``step``, ``images`` and ``hours``, of which the last two may be null, and ``values`` by key, each a column.
        A column without any number is left out.
    """
    rows = _with_ratio(_one_a_step(metrics))
    kept = _thinned(rows, (*_AXES, *keys), most_rows=most_rows)
    columns: dict[str, Column] = {axis: [number(row.get(axis)) for row in kept] for axis in _AXES}
    columns["hours"] = [None if hours is None else round(hours, 6) for hours in columns["hours"]]
    values = {key: [_short(row.get(key)) for row in kept] for key in keys}
    present = {key: column for key, column in values.items() if any(value is not None for value in column)}
    return {**columns, "values": present}


def rows_for(num_runs: int) -> int:
    """How many rows each of so many runs may have, so that the page stays small."""
    return max(_FEWEST_ROWS, min(MOST_ROWS, _ROWS_OF_ALL // max(num_runs, 1)))


def _one_a_step(metrics: Sequence[Row]) -> list[dict[str, Any]]:
    rows: dict[float, dict[str, Any]] = {}
    for row in metrics:
        if (step := number(row.get("step"))) is not None:
            rows.setdefault(step, {}).update(row)
    return [
        rows[step]
        for step in sorted(rows)
        if any(number(rows[step].get(key)) is not None for key in rows[step] if key != "step")
    ]


def _with_ratio(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the n of n:1 as it was: steps over D's updates since the last row with fewer of them."""
    before: tuple[float, float] | None = None
    for row in rows:
        updates = number(row.get(_UPDATES))
        if updates is None:
            continue
        if before and updates > before[1]:
            row[_RATIO] = (row["step"] - before[0]) / (updates - before[1])
        if not before or updates != before[1] or not updates:  # in pretraining D has none, and n would count it
            before = row["step"], updates
    return rows


def _thinned(rows: Sequence[Row], keys: Sequence[str], *, most_rows: int) -> Sequence[Row]:
    others = sum(not _is_validated(row) for row in rows)
    if others <= most_rows:
        return rows
    length = math.ceil(2 * others / most_rows)  # rows of an interval
    kept: list[Row] = []
    interval: list[Row] = []
    for row in rows:
        validated = _is_validated(row)
        if not validated:
            interval.append(row)
        if interval and (validated or len(interval) == length):
            kept += _extremes(interval, keys)
            interval = []
        if validated:
            kept.append(row)
    return kept + (_extremes(interval, keys) if interval else [])


def _extremes(interval: Sequence[Row], keys: Sequence[str]) -> list[Row]:
    """Two rows with the least and the greatest value of each column, in their order; one row stays."""
    if len(interval) == 1:
        return list(interval)
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    for key in keys:
        found = [(value, at) for at, row in enumerate(interval) if (value := number(row.get(key))) is not None]
        if found:
            (early, at), (late, last) = sorted((min(found), max(found)), key=lambda one: one[1])
            if at != last:
                first[key], second[key] = early, late
            else:  # the only one
                (first if 2 * at < len(interval) else second)[key] = early
    return [first, second]


def _is_validated(row: Row) -> bool:
    return any(key.startswith(_VALIDATION) for key in row)


def _short(value: Any) -> float | None:
    finite = number(value)
    return None if finite is None else float(f"{finite:.{_DIGITS}g}")
