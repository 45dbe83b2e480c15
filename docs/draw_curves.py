"""Draws how runs went, from their metrics.jsonl, and writes a table of them in Markdown.

python docs/draw_curves.py OUT.png NAME=RUN [NAME=RUN ...]

Runs with the same NAME are seeds of one setting: they share a colour, and a row of the table:
mean (least to greatest), of the adversarial phase.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

mpl.use("agg")
SMOOTHED = 20  # log lines: each is of a single global batch
SETTLED = 300  # steps after pretraining: every setting falls at first, when D is new
Lines = list[dict[str, Any]]


def main(out: str, *runs: str) -> None:
    settings: dict[str, list[Lines]] = {}
    for name, _, folder in (run.partition("=") for run in runs):
        text = (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8")
        settings.setdefault(name, []).append([json.loads(line) for line in text.splitlines()])
    draw(settings, out)
    sys.stdout.write(table(settings))


def pick(lines: Lines, name: str) -> tuple[list[int], list[float]]:
    return [line["step"] for line in lines if name in line], [line[name] for line in lines if name in line]


def accuracy(lines: Lines) -> tuple[list[int], list[float]]:
    steps, real = pick(lines, "d/real_accuracy")
    return steps, [sum(pair) / 2 for pair in zip(real, pick(lines, "d/fake_accuracy")[1], strict=True)]


def adversarial_phase(lines: Lines) -> Lines:
    return [line for line in lines if line.get("d/updates", 0) > 0]


def smoothed(
    steps: list[int], values: list[float], by: Callable[[list[float]], float]
) -> tuple[list[int], list[float]]:
    return steps, [by(values[max(0, end - SMOOTHED) : end]) for end in range(1, len(values) + 1)]


def draw(settings: dict[str, list[Lines]], out: str) -> None:
    figure, panels = plt.subplots(3, 1, figsize=(8, 8), sharex=True, layout="constrained")
    titles = (
        f"accuracy of D: mean of real and generated, mean of {SMOOTHED} log lines",
        f"norm of G's gradient, median of {SMOOTHED} log lines",
        "validation PSNR-Y, dB; dots: alerts of the monitor",
    )
    for number, (name, seeds) in enumerate(settings.items()):
        for seed, lines in enumerate(seeds):
            curves = (
                smoothed(*accuracy(lines), statistics.fmean),
                smoothed(*pick(adversarial_phase(lines), "grad_norm/g"), statistics.median),
                pick(lines, "val/psnr_y"),
            )
            for panel, (steps, values) in zip(panels, curves, strict=True):
                panel.plot(steps, values, color=f"C{number}", linewidth=0.9, alpha=0.8, label="" if seed else name)
            alerts = [line["step"] for line in lines if "alert" in line]
            panels[2].plot(alerts, np.interp(alerts, *curves[2]), "o", color=f"C{number}", markersize=6)
    panels[1].set_yscale("log")
    panels[2].set_xlim(adversarial_phase(lines)[0]["step"] - 100, lines[-1]["step"] + 20)
    panels[2].set_xlabel("generator updates, pretraining included")
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title, loc="left", fontsize=10)
        panel.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(settings))
    figure.savefig(out, dpi=95, pil_kwargs={"optimize": True})


COLUMNS = {
    "final PSNR-Y": ".2f",
    "final SSIM-Y": ".3f",
    "worst PSNR-Y": ".2f",
    f"worst PSNR-Y after {SETTLED} steps": ".2f",
    "largest gradient of G": ".3g",
    "accuracy of D": ".2f",
    "updates of D": ".0f",
    "alerts": ".0f",
}


def table(settings: dict[str, list[Lines]]) -> str:
    rows = [("setting", "seeds", *COLUMNS), ("---", *["---:"] * (1 + len(COLUMNS)))]
    for name, seeds in settings.items():
        columns = zip(*map(numbers, seeds), strict=True)
        rows.append((name, str(len(seeds)), *map(mean_and_range, columns, COLUMNS.values())))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def numbers(lines: Lines) -> list[float]:
    lines = adversarial_phase(lines)
    (steps, psnr), (_, ssim) = pick(lines, "val/psnr_y"), pick(lines, "val/ssim_y")
    settled = [value for step, value in zip(steps, psnr, strict=True) if step >= lines[0]["step"] + SETTLED]
    final = [psnr[-1], ssim[-1], min(psnr), min(settled), max(pick(lines, "grad_norm/g")[1])]
    alerts = sum("alert" in line for line in lines)
    return [*final, statistics.fmean(accuracy(lines)[1]), pick(lines, "d/updates")[1][-1], alerts]


def mean_and_range(values: tuple[float, ...], digits: str) -> str:
    low, high = (format(value, digits) for value in (min(values), max(values)))
    if low == high:
        return low
    mean = format(statistics.fmean(values), digits if digits != ".0f" else ".1f")
    return f"{mean} ({low} to {high})"


if __name__ == "__main__":
    main(*sys.argv[1:])
