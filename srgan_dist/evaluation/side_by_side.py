"""Several models on the same test sets, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from srgan_dist.evaluation.evaluate import COLUMNS, cell
from srgan_dist.evaluation.summary import summarise
from srgan_dist.utils.names import printable

_BICUBIC = "bicubic"
Results = Mapping[str, Sequence[Mapping[str, Any]]]


def common_means(results: Results) -> list[dict[str, Any]]:
    """The means of all methods over the same images.

    Args:
        results: By model, what `srgan_dist.evaluation.evaluate.evaluate` returned for it, of the same test sets.

    Returns:
        For each test set `summarise` of bicubic and the models.
    """
    summaries = []
    for of_models in zip(*results.values(), strict=True):  # of each set, the models' results
        methods = {_BICUBIC: [row["bicubic"] for row in of_models[0]["images"]]} | {
            name: [row["model"] for row in result["images"]] for name, result in zip(results, of_models, strict=True)
        }
        rows = [dict(zip(methods, of_image, strict=True)) for of_image in zip(*methods.values(), strict=True)]
        summaries.append(summarise(rows, list(methods)))
    return summaries


def to_tables(results: Results, details: Mapping[str, str]) -> list[Table]:
    """Render the means of several models, a table for each test set and a row for each model; the best are bold.

    Args:
        results: As in `common_means`.
        details: What stands below a model's name.
    """
    sets = next(iter(results.values()))
    return [
        _table(summary, of, list(results), details) for summary, of in zip(common_means(results), sets, strict=True)
    ]


def _table(
    summary: Mapping[str, Any], of: Mapping[str, Any], models: Sequence[str], details: Mapping[str, str]
) -> Table:
    count, identical = len(of["images"]), summary["identical"]
    note = f"{identical} of {count} images identical, left out of the mean PSNR" if identical else None
    title = f"{printable(of['name'])} ({count} image{'s' if count > 1 else ''}), means"
    table = Table(title=title, caption=note)
    table.add_column("model", overflow="fold")
    measured = [name for name in COLUMNS if name in summary[_BICUBIC]]
    for name in measured:
        table.add_column(Text(COLUMNS[name].column), justify="right")
    for method in (_BICUBIC, *models):
        label = Text(printable(method))
        if detail := details.get(method):
            label.append(f"\n{printable(detail)}", style="dim")
        cells = (
            _cell(summary[method][name], [summary[other][name] for other in (_BICUBIC, *models)], name)
            for name in measured
        )
        table.add_row(label, *cells, end_section=method == _BICUBIC)
    return table


def _cell(value: float | None, column: Sequence[float | None], name: str) -> Text:
    if value is None:
        return Text(cell(None, name))
    values = [other for other in column if other is not None]
    best = max(values) if COLUMNS[name].goal == "max" else min(values)
    # Those that print alike are alike.
    return Text(cell(value, name), style="bold" if cell(value, name) == cell(best, name) else "")
