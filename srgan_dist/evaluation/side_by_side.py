"""Several models on the same test sets, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from rich.table import Table
from rich.text import Text

from srgan_dist.utils.names import printable

_DIGITS = {"psnr_y": 3, "ssim_y": 4}
_LABELS = {"psnr_y": "PSNR", "ssim_y": "SSIM"}

Results = Mapping[str, Sequence[Mapping[str, Any]]]


def common_means(results: Results) -> tuple[dict[str, list[dict[str, float | None]]], list[int]]:
    """The means of all methods over the same images.

    Args:
        results: By model, what `srgan_dist.evaluation.evaluate.evaluate` returned for it, of the same test sets.

    Returns:
        By method, ``bicubic`` first, for each test set ``psnr_y`` in dB, None where there is no such image, and
        ``ssim_y``; and for each set how many images are in no mean of PSNR, since some method's is identical to HR.
    """
    sets = list(zip(*results.values(), strict=True))  # of each, the models' results
    means: dict[str, list[dict[str, float | None]]] = {name: [] for name in ("bicubic", *results)}
    identical = []
    for of_models in sets:
        qualities = {"bicubic": [row["bicubic"] for row in of_models[0]["images"]]} | {
            name: [row["model"] for row in result["images"]] for name, result in zip(results, of_models, strict=True)
        }
        count = len(qualities["bicubic"])
        kept = [at for at in range(count) if all(rows[at]["psnr_y"] is not None for rows in qualities.values())]
        identical.append(count - len(kept))
        for name, rows in qualities.items():
            psnr = fmean(rows[at]["psnr_y"] for at in kept) if kept else None
            means[name].append({"psnr_y": psnr, "ssim_y": fmean(row["ssim_y"] for row in rows)})
    return means, identical


def to_table(results: Results, details: Mapping[str, str]) -> Table:
    """Render the means of several models, a row each, as papers do; the best of each column is bold.

    Args:
        results: As in `common_means`.
        details: What stands below a model's name.
    """
    means, identical = common_means(results)
    sets = next(iter(results.values()))
    notes = [
        f"{printable(of['name'])}: {count} of {len(of['images'])} images identical, left out of the mean PSNR"
        for of, count in zip(sets, identical, strict=True)
        if count
    ]
    table = Table(title="means, Y channel", caption="\n".join(notes) or None)
    table.add_column("model", overflow="fold")
    columns = [(at, metric) for at in range(len(sets)) for metric in _DIGITS]
    for at, metric in columns:
        table.add_column(Text(f"{printable(sets[at]['name'])}\n{_LABELS[metric]}"), justify="right")
    for name, of_sets in means.items():
        label = Text(printable(name))
        if detail := details.get(name):
            label.append(f"\n{printable(detail)}", style="dim")
        cells = (
            _cell(of_sets[at][metric], [of[at][metric] for of in means.values()], _DIGITS[metric])
            for at, metric in columns
        )
        table.add_row(label, *cells, end_section=name == "bicubic")
    return table


def _cell(value: float | None, column: Sequence[float | None], digits: int) -> Text:
    if value is None:
        return Text("identical")
    best = max(other for other in column if other is not None)
    # Those that print alike are alike.
    return Text(f"{value:.{digits}f}", style="bold" if f"{value:.{digits}f}" == f"{best:.{digits}f}" else "")
