"""One run in the terminal: as a picture of now, and as one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import inf
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from srgan_dist.records.metrics import LABELS, METRICS
from srgan_dist.records.run import RunRecord, State, finite
from srgan_dist.records.time_left import time_left
from srgan_dist.reports.runs_table import STYLES
from srgan_dist.utils.names import printable

_WIDTH = 32  # characters of a trend
_BARS, _ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-~=+*#"
_MOST_ALERTS = 3
_TRENDS: Sequence[tuple[str, Mapping[str, str]]] = (
    (
        "losses",
        {
            "g/total": "G, total",
            "g/pixel": "pixel",
            "g/perceptual": "perceptual",
            "g/adversarial": "adversarial",
            "g/lpips": "LPIPS",
            "g/dists": "DISTS",
            "g/ldl": "LDL",
            "g/frequency": "frequency",
            "g/wavelet": "wavelet",
            "d/loss": "D",
        },
    ),
    (
        "D's balance",
        {
            "d/real_score": "score of real",
            "d/fake_score": "score of fake",
            "d/real_accuracy": "right on real",
            "d/fake_accuracy": "right on fake",
        },
    ),
    ("gradients", {"grad_norm/g": "norm of G", "grad_norm/d": "norm of D", "grad_norm/ratio": "ratio"}),
    (
        "speed",
        {
            "perf/images_per_second": "images/s",
            "perf/data_wait": "waits for data",
            "perf/memory_gib": "memory, GiB",
        },
    ),
)


def alerts(run: RunRecord) -> list[tuple[int, str]]:
    """What the run was alerted to, with the step, as it stands in its lines."""
    return [(line["step"], printable(str(line["alert"]))) for line in run.metrics if line.get("alert")]


def view(run: RunRecord, *, ascii_only: bool = False) -> RenderableType:
    """A run as it is now: trends of what it logged, the last validation beside the best, alerts.

    Args:
        run: The run.
        ascii_only: The terminal has no other characters.
    """
    parts: list[RenderableType] = [_headline(run)]
    if run.planned_steps:
        bar = Table.grid(expand=True)  # a bar itself ends no line
        bar.add_row(ProgressBar(total=run.planned_steps, completed=min(run.step, run.planned_steps)))
        parts.append(bar)
    parts += _validation(run)
    found = alerts(run)
    if len(found) > _MOST_ALERTS:
        parts.append(Text(f"{len(found)} alerts; the last {_MOST_ALERTS}:", style="yellow"))
    parts += [Text(f"step {step}: {text}", style="yellow") for step, text in found[-_MOST_ALERTS:]]
    parts += [Text(problem, style="dim") for problem in run.problems]
    parts.append(_trends(run, _ASCII_BARS if ascii_only else _BARS))  # last: a low terminal shows the beginning
    return Group(*parts)


def _headline(run: RunRecord) -> Text:
    text = Text(printable(run.name), style="bold")
    text.append("  ")
    text.append(run.state.value, style=STYLES[run.state])
    text.append(f"  {steps(run)}", style="not bold")
    if left := time_left(run):
        text.append(f"  {left} left", style="not bold")
    return text


def steps(run: RunRecord) -> str:
    """How far it is."""
    return f"step {run.step}/{run.planned_steps}" if run.planned_steps is not None else f"step {run.step}"


def _trends(run: RunRecord, bars: str) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False, show_header=False)
    for justify in ("left", "left", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    for title, names in _TRENDS:
        shown = title
        for key, label in names.items():
            values = [value for line in run.metrics if (value := finite(line.get(key))) is not None]
            if values:
                trend = sparkline(values[-_WIDTH * 4 :], width=_WIDTH, bars=bars)
                table.add_row(Text(shown, style="dim"), label, f"{values[-1]:.4g}", Text(trend, style="cyan"))
                shown = ""
    return table


def _validation(run: RunRecord) -> Iterator[Text]:
    for key in METRICS:
        final, best = run.final(key), run.best(key)
        if final and best:
            label, digits = LABELS[key], LABELS[key].digits
            unit = f" {label.unit}" if label.unit else ""
            text = Text(f"{label.column} {final.value:.{digits}f}{unit} at step {final.step}, ")
            if final.step == best.step:
                text.append("the best so far", style="green")
            else:
                text.append(f"best {best.value:.{digits}f} at step {best.step}")
            yield text


def sparkline(values: Sequence[float], *, width: int, bars: str) -> str:
    """Numbers as a row of bars between their least and their greatest; neighbours share one where there are many.

    Args:
        values: Finite numbers, at least one.
        width: Most characters.
        bars: From the lowest to the highest.
    """
    count = min(width, len(values))
    edges = [len(values) * part // count for part in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, span = min(means), max(means) - min(means)
    return "".join(bars[round((mean - low) / span * (len(bars) - 1)) if 0 < span < inf else 0] for mean in means)


def line(run: RunRecord) -> str:
    """A run's last numbers in one line."""
    last: dict[str, Any] = {}
    for row in run.metrics[-50:]:
        last |= {key: value for key, value in row.items() if value is not None}
    parts = [steps(run)]
    short = {"g/total": "G", "d/loss": "D", "d/real_score": "real", "d/fake_score": "fake"}
    parts += [f"{label} {value:.4g}" for key, label in short.items() if (value := finite(last.get(key))) is not None]
    if (speed := finite(last.get("perf/images_per_second"))) is not None:
        parts.append(f"{speed:.4g} img/s")
    if (final := run.final("val/psnr_y")) and (best := run.best("val/psnr_y")):
        parts.append(f"PSNR-Y {final.value:.2f} (best {best.value:.2f} at {best.step})")
    if left := time_left(run):
        parts.append(f"{left} left")
    return "  ".join(parts)


def last_words(run: RunRecord) -> str:
    """How a run ended, in one line."""
    if run.state == State.FINISHED:
        values = [
            f"{label.column} {final.value:.{label.digits}f}{f' {label.unit}' if label.unit else ''}"
            for key, label in LABELS.items()
            if (final := run.final(key))
        ]
        return ", ".join([f"{run.name}: finished after {run.step} steps", *values])
    return f"{run.name}: {run.state.value}: {run.reason}"
