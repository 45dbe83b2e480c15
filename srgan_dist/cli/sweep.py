"""The command ``sweep``: options, and the call of what does the work."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from srgan_dist.errors import UserError


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """The options of ``sweep``."""
    parser.add_argument("file", type=Path, metavar="FILE", help="a sweep as W&B has it, such as configs/sweep.yaml")
    parser.add_argument(
        "--trials",
        type=_count,
        metavar="N",
        help="trials in all, those of earlier starts included (default: the file's run_cap, or the whole grid)",
    )
    parser.add_argument(
        "--parallel",
        type=_count,
        default=1,
        metavar="M",
        help="trials at a time; each has its share of the GPUs, or of the cores (default: 1)",
    )


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 10**6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of trials")
    return int(text)


def sweep(options: argparse.Namespace) -> None:
    """Train the trials of a sweep, and print what they found."""
    if find_spec("optuna") is None:
        raise UserError("trials are chosen by Optuna, which is not installed: pip install 'srgan-dist[sweep]'")
    from srgan_dist.sweeps.report import RESULT, importance_table, trial_table
    from srgan_dist.sweeps.sweep import Sweep
    from srgan_dist.sweeps.sweep_file import read_sweep
    from srgan_dist.tracking.console import output, setup_logging

    setup_logging(is_main=True)
    file = read_sweep(options.file)
    report = Sweep(file, num_trials=options.trials, parallel=options.parallel).run()
    output.print(trial_table(report))
    if table := importance_table(report):
        output.print(table)
    output.print(f"{file.folder / RESULT}; compare: srgan-dist compare {file.folder} -o report.html", soft_wrap=True)
