"""``srgan-dist watch``: a run is read again and again until it has ended; nothing is written."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.live import Live

from srgan_dist.errors import UserError
from srgan_dist.records.run import RunRecord, State, find_runs, is_run, read_run
from srgan_dist.reports.run_view import alerts, line, view
from srgan_dist.utils.locks import LOCK_NAME, is_held
from srgan_dist.utils.names import printable

INTERVAL = 1.0  # seconds between two looks
_REST = 9.0  # times as long as a look took: of a long run's file it may take a second, on the cores that train
_SETTLED = 5.0  # seconds that a run which did not finish stays as it is before it is taken to have ended
_FILES = ("metrics.jsonl", "config.yaml", "result.json", "stopped.json", "failed.json", LOCK_NAME)


def watch(
    folder: Path, console: Console, *, interval: float = INTERVAL, sleep: Callable[[float], None] = time.sleep
) -> RunRecord:
    """Show a run until it has ended, wherever it is begun, resumed, or started over meanwhile.

    Args:
        folder: The run's folder; it need not exist yet.
        console: Where to show it: on a terminal a picture that changes, elsewhere a line for each step that is logged.
        interval: Seconds between two looks.
        sleep: Waits so long.

    Returns:
        The run as it ended.

    Raises:
        UserError: The folder is none, or one of several runs.
    """
    _check(folder)
    records = _read_until_end(folder, console, interval=interval, sleep=sleep)
    return _show_live(records, console) if console.is_terminal else _show_lines(records, console)


def _check(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, not a run's folder")
    if not is_run(folder) and (below := find_runs(folder)):
        runs = "a run is" if len(below) == 1 else f"{len(below)} runs are"
        raise UserError(f"{folder}: {runs} below it: name one, such as {below[0]}")


def _read_until_end(
    folder: Path, console: Console, *, interval: float, sleep: Callable[[float], None]
) -> Iterator[RunRecord]:
    """The run each time that something has changed, and at last as it ended."""
    seen: object = None
    was_running = is_waiting = False
    since = took = 0.0
    while True:
        if (now := _signature(folder)) != seen:
            seen, since = now, 0.0
            begin = time.monotonic()
            run = read_run(folder)
            took = time.monotonic() - begin
            if _has_begun(run):
                is_waiting = False
                yield run
            elif not is_waiting:
                is_waiting = True
                console.print(
                    f"{printable(str(folder))}: no run yet; waiting for it to begin", soft_wrap=True, highlight=False
                )
            was_running |= run.state == State.RUNNING
        has_ended = run.state not in (State.RUNNING, State.BROKEN) or (run.state == State.BROKEN and is_run(folder))
        # A launcher or a scheduler may start it again; what had ended before we came stays so.
        if has_ended and (run.state == State.FINISHED or not was_running or since >= _SETTLED):
            return
        pause = max(interval, _REST * took)
        sleep(pause)
        since += pause


def _has_begun(run: RunRecord) -> bool:
    return bool(run.config or run.metrics) or is_run(run.folder)


def _signature(folder: Path) -> object:
    """Changes when a run's files do, or their lock is taken or let go."""
    stats: list[tuple[int, int, int] | None] = []
    for name in _FILES:
        try:
            stat = os.stat(folder / name)  # noqa: PTH116 - as cheap as can be
        except OSError:  # not there
            stats.append(None)
        else:
            stats.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return (*stats, is_held(folder))


def _show_live(records: Iterator[RunRecord], console: Console) -> RunRecord:
    ascii_only = console.options.ascii_only
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for run in records:
            live.update(view(run, ascii_only=ascii_only), refresh=True)
    return run


def _show_lines(records: Iterator[RunRecord], console: Console) -> RunRecord:
    shown: int | None = None
    reported: set[tuple[int, str]] = set()
    for run in records:
        if shown is not None and run.step < shown:
            console.print(f"resumed after step {run.step}", soft_wrap=True, highlight=False)
            reported = {alert for alert in reported if alert[0] <= run.step}
        if run.step != shown:
            console.print(line(run), soft_wrap=True, highlight=False)
        for alert in alerts(run):
            if alert not in reported and shown is not None:
                console.print(f"step {alert[0]}: {alert[1]}", soft_wrap=True, highlight=False)
            reported.add(alert)
        shown = run.step
    return run
