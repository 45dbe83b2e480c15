"""The command ``compare``: options, and the call of what does the work."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from srgan_dist.errors import UserError
from srgan_dist.utils.files import why_unwritable, write_whole

log = logging.getLogger("srgan_dist")

_SUFFIXES = (".html", ".htm")


def add_compare(parser: argparse.ArgumentParser) -> None:
    """The options of ``compare``."""
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="folder of a run, or one with runs below; those that are running or broken are shown as such",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="the page, which needs no other file and no network (default: report.html); an existing one is replaced",
    )


def compare(options: argparse.Namespace) -> None:
    """Write the page that compares runs."""
    from srgan_dist.reports.compare import compare as compare_runs
    from srgan_dist.reports.page import render
    from srgan_dist.tracking.console import console, setup_logging

    setup_logging(is_main=True)
    _refuse_unwritable(options.output)
    with console.status("compare"):
        payload = compare_runs(options.runs)
        page = render(payload)
        # Behind a link, such as /dev/stdout, the file itself is replaced.
        output = options.output.resolve()
        output.parent.mkdir(parents=True, exist_ok=True)
        write_whole(output, page)
    for note in payload["notes"]:
        log.warning("%s", note)
    counts = ", ".join(_count(len(payload[name]), name.removesuffix("s")) for name in ("runs", "images"))
    console.print(f"{options.output}: {counts}, {len(page.encode()) / 1e6:.1f} MB", soft_wrap=True)


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _refuse_unwritable(path: Path) -> None:
    if path.is_dir():
        problem = f"it is a folder: name a file in it, such as {path / 'report.html'}"
    elif path.suffix.lower() not in _SUFFIXES:  # a slip of the hand must not replace a run's records
        problem = f"a page's name ends in {' or '.join(_SUFFIXES)}: {path.name}.html, say"
    elif path.exists() and not path.is_file():
        problem = "it is not a file"
    elif unwritable := why_unwritable(path.resolve().parent):
        problem = unwritable
    else:
        return
    raise UserError(f"--output is {path}, which cannot be written: {problem}")
