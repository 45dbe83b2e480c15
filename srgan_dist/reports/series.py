"""The curves of a run: columns of what it logged, thinned so that no peak is lost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srgan_dist.records.metrics import LABELS
from srgan_dist.records.run import finite

Row = Mapping[str, Any]
Numbers = NDArray[np.float64]

MOST_ROWS = 1500
_ROWS_OF_ALL = 20_000  # of all runs together: with 25 curves 4 MB of the page
_FEWEST_ROWS = 200
_DIGITS = 5  # significant ones: a curve is drawn on some hundred pixels
_DIGITS_OF_AXES = 9
_AXES = ("step", "images", "hours")
_VALIDATION = "val/"
_UPDATES = "d/updates"
_RATIO = "n"
_NO_CURVES = (*_AXES, "epoch", _UPDATES)

_LABELS = {
    **{key: label.heading for key, label in LABELS.items()},
    "g/total": "G: loss",
    "g/pixel": "G: pixel loss",
    "g/perceptual": "G: perceptual loss",
    "g/adversarial": "G: adversarial loss",
    "g/lpips": "G: LPIPS loss",
    "g/dists": "G: DISTS loss",
    "g/ldl": "G: LDL loss",
    "g/frequency": "G: frequency loss",
    "g/wavelet": "G: wavelet loss",
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


def curves(keys: Iterable[str]) -> list[dict[str, Any]]:
    """Describe curves, in the order in which they are looked at.

    Args:
        keys: As `series` has them.

    Returns:
        ``key``, ``label``, and ``log``: whether its axis is logarithmic at first.
    """

    def place(key: str) -> tuple[int, int, str]:
        kind = next((at for at, start in enumerate(_KINDS) if key.startswith(start)), len(_KINDS))
        return kind, _ORDER.index(key) if key in _ORDER else len(_ORDER), key

    return [
        {"key": key, "label": _LABELS.get(key, key), "log": key.startswith(_LOG_SCALE)}
        for key in sorted(set(keys), key=place)
    ]


def series(metrics: Sequence[Row], *, most_rows: int = MOST_ROWS) -> dict[str, Any]:
    """The columns of a run's curves.

    Rows with a validation stay as they are. Of the others, where there are too many, each interval of about as many
    rows becomes two, which hold the least and the greatest value of each column in the order in which they came: no
    value is made up and no peak lost, and none moves further than its interval.

    Args:
        metrics: The lines of metrics.jsonl, ascending by step; several lines of one step become one row.
        most_rows: Rows to keep, apart from those with a validation.

    Returns:
        ``step``, ``images`` and ``hours``, of which the last two may be null, and ``values`` by key, each a column.
    """
    rows = _one_a_step(metrics)
    columns = {name: _column(rows, name) for name in {name: None for row in rows for name in row}}
    columns = {name: column for name, column in columns.items() if not np.isnan(column).all()}
    if _UPDATES in columns:
        columns[_RATIO] = _ratio(columns["step"], columns[_UPDATES])
    keys = [name for name in columns if name not in _NO_CURVES]
    absent = np.full(len(rows), np.nan)
    table = np.stack([columns.get(name, absent) for name in (*_AXES, *keys)], axis=1)
    # Rows of which nothing is drawn, such as one that holds an alert alone.
    table = table[~np.isnan(table[:, len(_AXES) :]).all(axis=1)]
    validated = [at for at, name in enumerate(keys, len(_AXES)) if name.startswith(_VALIDATION)]
    table = _thinned(table, ~np.isnan(table[:, validated]).all(axis=1), most_rows=most_rows)
    axes = {axis: _listed(table[:, at], digits=_DIGITS_OF_AXES) for at, axis in enumerate(_AXES)}
    return {**axes, "values": {key: _listed(table[:, at]) for at, key in enumerate(keys, len(_AXES))}}


def rows_for(num_runs: int) -> int:
    """How many rows each of so many runs may have, so that the page stays small."""
    return max(_FEWEST_ROWS, min(MOST_ROWS, _ROWS_OF_ALL // max(num_runs, 1)))


def _one_a_step(metrics: Sequence[Row]) -> list[Row]:
    rows: dict[float, Row] = {}
    for row in metrics:
        if (step := finite(row.get("step"))) is not None:
            rows[step] = {**rows[step], **row} if step in rows else row
    return [rows[step] for step in sorted(rows)]


def _column(rows: Sequence[Row], name: str) -> Numbers:
    """The numbers of a column, NaN where there is none."""
    values = [row.get(name) for row in rows]
    if not {float, int, type(None)}.issuperset(map(type, values)):
        values = [finite(value) for value in values]
    try:
        column = np.array(values, dtype=np.float64)
    except OverflowError:  # whole numbers without end
        column = np.array([finite(value) for value in values], dtype=np.float64)
    column[~np.isfinite(column)] = np.nan
    return column


def _ratio(steps: Numbers, updates: Numbers) -> Numbers:
    """The n of n:1 as it was: steps over D's updates since the last row with fewer of them."""
    ratio = np.full(len(steps), np.nan)
    before: tuple[float, float] | None = None
    for at, (step, count) in enumerate(zip(steps.tolist(), updates.tolist(), strict=True)):
        if math.isnan(count):
            continue
        if before and count > before[1]:
            ratio[at] = (step - before[0]) / (count - before[1])
        if not before or count != before[1] or not count:  # in pretraining D has none, and n would count it
            before = step, count
    return ratio


def _thinned(table: Numbers, stays: NDArray[np.bool_], *, most_rows: int) -> Numbers:
    """Replace rows by the extremes of intervals, but those that stay.

    Args:
        table: [rows, columns], NaN where there is no value; the first column ascends.
        stays: [rows].
        most_rows: Of the others.
    """
    others = table[~stays]
    if len(others) <= most_rows:
        return table
    length = math.ceil(2 * len(others) / most_rows)
    padding = np.full((-len(others) % length, table.shape[1]), np.nan)
    intervals = np.concatenate([others, padding]).reshape(-1, length, table.shape[1])
    absent = np.isnan(intervals)
    lows = np.where(absent, np.inf, intervals).argmin(axis=1, keepdims=True)
    highs = np.where(absent, -np.inf, intervals).argmax(axis=1, keepdims=True)
    low, high = (np.take_along_axis(intervals, places, axis=1)[:, 0] for places in (lows, highs))
    lows, highs = lows[:, 0], highs[:, 0]
    first, second = np.where(lows <= highs, low, high), np.where(lows <= highs, high, low)
    alone = (~absent).sum(axis=1) == 1  # in the interval, a value stays one
    first[alone & (2 * lows >= length)] = np.nan
    second[alone & (2 * lows < length)] = np.nan
    rows = np.concatenate([table[stays], first, second])
    rows = rows[~np.isnan(rows[:, 0])]
    ordered: Numbers = rows[rows[:, 0].argsort(kind="stable")]
    return ordered


def _listed(column: Numbers, *, digits: int = _DIGITS) -> list[float | None]:
    """Values in so many significant digits, and None for NaN; whole numbers without a point where all are."""
    size = np.abs(np.where(column == 0, 1.0, column))
    decimals = digits - 1 - np.floor(np.log10(size))
    # Powers of ten above 1 are exact, their inverses are not: a product with one would have digits without end.
    up, down = 10.0 ** np.clip(decimals, 0, 300), 10.0 ** np.clip(-decimals, 0, 300)
    rounded = np.round(column * up / down) / up * down
    if np.array_equal(rounded, np.round(rounded)):
        return [int(value) for value in rounded.tolist()]
    return [None if value != value else value for value in rounded.tolist()]
