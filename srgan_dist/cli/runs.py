"""The commands that look at runs: options, and the calls of what does the work."""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path

from srgan_dist.errors import Failure, Stopped, UserError
from srgan_dist.utils import strict_json
from srgan_dist.utils.names import printable

_INTERRUPTED = 130


def add_runs(parser: argparse.ArgumentParser) -> None:
    """The options of ``runs``."""
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=Path("runs"),
        metavar="DIR",
        help="folder with runs in it, also deeper, such as those of a sweep (default: runs)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table to a file")


def runs(options: argparse.Namespace) -> None:
    """``srgan-dist runs``."""
    from srgan_dist.reports.runs_table import STYLES, list_runs, notes, to_json, to_table
    from srgan_dist.tracking.console import output, output_for_tables

    folder: Path = options.folder
    try:
        next(folder.iterdir(), None)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}): name the folder that your runs are in") from None
    if options.json:
        from srgan_dist.bench.common.measure import refuse_unwritable  # which loads torch

        refuse_unwritable(options.json)
    rows = list_runs(folder)
    if rows:
        output_for_tables().print(to_table(rows))
    else:
        output.print(f"{printable(str(folder))}: no runs in it", soft_wrap=True)
    for note, state in notes(rows):
        output.print(note, style=STYLES[state], soft_wrap=True, highlight=False)
    if options.json:
        options.json.write_text(strict_json.dumps(to_json(rows), indent=2) + "\n", encoding="utf-8")


def add_watch(parser: argparse.ArgumentParser) -> None:
    """The options of ``watch``."""
    parser.epilog = (
        "Ends with the run: exit code 0 where it finished, 1 where it crashed, 75 where it was stopped. Ctrl-C leaves, "
        "and does nothing to the run."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run; one that is not there yet is awaited")


def watch(options: argparse.Namespace) -> None:
    """``srgan-dist watch``."""
    from srgan_dist.records.run import State
    from srgan_dist.reports.run_view import last_words
    from srgan_dist.reports.watch import watch as watch_run
    from srgan_dist.tracking.console import output

    interrupted = threading.Event()

    def rest(seconds: float) -> None:
        if interrupted.wait(seconds):
            raise KeyboardInterrupt

    # Between two looks, and not in the middle of drawing one, where the interrupt was lost once.
    before = signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    try:
        run = watch_run(options.run, output, sleep=rest)
    except KeyboardInterrupt:  # what it looks at is another process's
        raise SystemExit(_INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGINT, before)
    if run.state == State.FINISHED:
        output.print(printable(last_words(run)), soft_wrap=True, highlight=False)
        return
    raise (Stopped if run.state == State.PREEMPTED else Failure)(last_words(run))
