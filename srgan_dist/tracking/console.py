"""What people see on the terminal: log lines, progress bars, the table of results."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from srgan_dist.utils.measures import ALWAYS, MEASURES

log = logging.getLogger("srgan_dist")
# Names of files are shown as they are: [b] and :smile: mean nothing in them.
console = Console(stderr=True, markup=False, emoji=False)
output = Console(markup=False, emoji=False)  # stdout: what was asked for
_IN_A_FILE = 160  # columns


def output_for_tables() -> Console:
    """Standard output for tables that may be wide: in a file or a pipe they need not be as narrow as a terminal."""
    return output if output.is_terminal else Console(markup=False, emoji=False, width=max(output.width, _IN_A_FILE))


def setup_logging(*, is_main: bool) -> None:
    """Send the project's log to stderr: in colour above the progress bar on a terminal, else as plain lines.

    Args:
        is_main: Only rank 0 logs progress; the others log warnings and worse.
    """
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_level=False, omit_repeated_times=False)
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO if is_main else logging.WARNING)
    log.propagate = False


@contextlib.contextmanager
def default_logging(*, is_main: bool) -> Iterator[None]:
    """Around a run that a program starts: `setup_logging`, where nobody else would show the project's lines.

    A program that has decided on them, by a handler or a level for ``srgan_dist`` or by a root logger that takes INFO,
    is left alone.

    Args:
        is_main: As in `setup_logging`.
    """
    decided = log.handlers or log.level != logging.NOTSET or (log.hasHandlers() and log.isEnabledFor(logging.INFO))
    if decided:
        yield
        return
    setup_logging(is_main=is_main)
    try:
        yield
    finally:
        log.handlers.clear()
        log.setLevel(logging.NOTSET)
        log.propagate = True


def training_progress(*, visible: bool) -> Progress:
    """The bar of a training; invisible without a terminal.

    Args:
        visible: Whether this rank shows it.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=console,
        disable=not (visible and console.is_terminal),
        transient=False,
    )


def simple_progress(console: Console, *, unit: str, visible: bool = True) -> Progress:
    """A progress bar for the tools; invisible without a terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit, markup=False),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not (visible and console.is_terminal))


@contextlib.contextmanager
def progress_report(text: str, unit: str, *, visible: bool = True) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on a terminal; elsewhere, and where it shall not be visible, nothing."""
    with simple_progress(console, unit=unit, visible=visible) as progress:
        task: Any = progress.add_task(text, total=None)

        def report(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total)

        yield report


def result_table(result: Mapping[str, Any]) -> Table:
    """The content of result.json as a table."""
    table = Table(title=f"{result['steps']} steps, {result['images']} patches, {result['seconds']:.0f} s")
    names = {"bicubic": "bicubic", "pretrained": "after pretraining", "final": "at the end"}
    rows = {name: result[key] for key, name in names.items() if key in result}
    measures = {
        name: measure
        for name, measure in MEASURES.items()
        if name in ALWAYS or any(name in row for row in rows.values())
    }
    table.add_column("validation images", min_width=11, overflow="fold")
    for measure in measures.values():
        table.add_column(measure.heading, justify="right")
    for label, quality in rows.items():
        label += f", without {quality['identical']} identical" if quality.get("identical") else ""
        values = {name: quality.get(name) for name in measures}
        nothing = {"psnr_y": "identical"}
        cells = (
            nothing.get(name, "") if value is None else measures[name].exact(value) for name, value in values.items()
        )
        table.add_row(label, *cells)
    return table
