"""The commands ``bench ...``, as `cli.py` has them: options, and the call of what does the work."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from srgan_dist.cli.again import configuration
from srgan_dist.config.root import Config
from srgan_dist.errors import UserError

OnProgress = Callable[[str], None]

TAKES_CONFIG = (
    "Train's options apply, too: --config FILE or --from-run RUN, and --SECTION.KEY=VALUE. srgan-dist train --help "
    "lists the common ones, srgan-dist train --help-all every one."
)


def add_bench(commands: Any) -> None:
    """``bench`` and what can be measured.

    Args:
        commands: the subparsers to add it to.
    """
    text = "Measure this machine, beside the ways of other trainers."
    what = commands.add_parser("bench", help=text, description=text, allow_abbrev=False)
    benches = what.add_subparsers(metavar="WHAT", required=True)

    def add(
        name: str, run: Callable[[argparse.Namespace], None], text: str, *, takes_config: bool
    ) -> argparse.ArgumentParser:
        epilog = TAKES_CONFIG if takes_config else None
        bench: argparse.ArgumentParser = benches.add_parser(
            name, help=text, description=text, epilog=epilog, allow_abbrev=False
        )
        bench.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers to a file")
        bench.set_defaults(command=run, takes_config=takes_config)
        return bench

    text = "Patches a second by encoding and workers; how long a training step waits for them."
    _add_loader(add("loader", _loader, text, takes_config=False))
    text = "Time, memory and parts of a training step, beside BasicSR's and a notebook's."
    _add_step(add("step", _step, text, takes_config=True))
    text = "Several ranks here, measured; many GPUs on an interconnect, predicted."
    _add_scaling(add("scaling", _scaling, text, takes_config=True))


def _add_loader(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--images", type=Path, metavar="DIR", help="folder of images; default: some are made")
    add("--scale", type=int, default=4, help="HR pixels per LR pixel (default: 4)")
    add("--patch-size", type=int, default=96, metavar="N", help="HR pixels a side (default: 96)")
    add("--batch-size", type=int, default=16, metavar="N", help="patches in a batch (default: 16)")
    add("--workers", type=int, metavar="N", help="most worker processes (default: one a core)")
    add("--seconds", type=float, default=3.0, help="for each way and number of workers (default: 3)")


def _add_step(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--rounds", type=int, default=5, metavar="N", help="measurements of each way (default: 5)")
    add("--ranks", type=int, default=1, metavar="N", help="also measure N processes (default: 1)")
    add("--only", action="append", default=[], metavar="WAY", help="a way of the table (repeatable)")


def _add_scaling(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--ranks", default="2,4", metavar="N,N", help="processes to measure beside one; 1: none (default: 2,4)")
    add("--rounds", type=int, default=5, metavar="N", help="measurements of each (default: 5)")
    add("--strong", action="store_true", help="data.batch_size is shared by all ranks, not each one's")
    add("--gpus", default="8,64,256,1024", metavar="N,N", help="to predict (default: 8,64,256,1024)")
    add("--bandwidth", default="200Gb/s", metavar="RATE", help="of a node's wire (default: 200Gb/s)")
    add("--latency", default="5us", metavar="TIME", help="of one hop (default: 5us)")
    add("--gpus-per-node", type=int, default=1, metavar="N", help="which share a wire (default: 1)")
    add("--node-bandwidth", default="2400Gb/s", metavar="RATE", help="from GPU to GPU in a node (default: 2400Gb/s)")
    add("--step-time", metavar="TIME", help="of one GPU, measured elsewhere (default: as measured here)")


def _loader(options: argparse.Namespace) -> None:
    from srgan_dist.bench.loader.loader import LoaderBenchOptions, bench_loader, worker_counts
    from srgan_dist.bench.loader.peers import PatchShape
    from srgan_dist.bench.loader.report import to_json, to_tables

    def measure(on_progress: OnProgress) -> Any:
        chosen = LoaderBenchOptions(
            images=options.images,
            patches=PatchShape(options.patch_size, options.scale, options.batch_size),
            workers=worker_counts(options.workers),
            seconds=options.seconds,
        )
        return bench_loader(chosen, on_progress=on_progress)

    _report(options, measure, to_tables, to_json)


def _step(options: argparse.Namespace) -> None:
    from srgan_dist.bench.step.report import to_json, to_table
    from srgan_dist.bench.step.step import bench_step
    from srgan_dist.bench.step.variants import BASICSR_SHAPE, StepBenchOptions

    def measure(on_progress: OnProgress) -> Any:
        config = _config(options, prog="srgan-dist bench step", default=BASICSR_SHAPE)
        chosen = StepBenchOptions(config=config, rounds=options.rounds, ranks=options.ranks, only=options.only)
        return bench_step(chosen, on_progress=on_progress)

    _report(options, measure, to_table, to_json)


def _scaling(options: argparse.Namespace) -> None:
    from srgan_dist.bench.scaling.interconnect import Interconnect, Link
    from srgan_dist.bench.scaling.report import to_json, to_table
    from srgan_dist.bench.scaling.scaling import SHAPE, ScalingBenchOptions, bench_scaling
    from srgan_dist.utils.units import parse_bandwidth, parse_seconds

    def measure(on_progress: OnProgress) -> Any:
        latency = parse_seconds(options.latency, name="--latency")
        between = Link(latency, parse_bandwidth(options.bandwidth, name="--bandwidth"))
        within = Link(latency, parse_bandwidth(options.node_bandwidth, name="--node-bandwidth"))
        per_node = options.gpus_per_node
        chosen = ScalingBenchOptions(
            config=_config(options, prog="srgan-dist bench scaling", default=SHAPE),
            ranks=[number for number in _numbers(options.ranks, name="--ranks") if number != 1],
            rounds=options.rounds,
            strong=options.strong,
            gpus=_numbers(options.gpus, name="--gpus"),
            interconnect=Interconnect(between, within if per_node > 1 else None, per_node),
            step_seconds=parse_seconds(options.step_time, name="--step-time") if options.step_time else None,
        )
        return bench_scaling(chosen, on_progress=on_progress)

    _report(options, measure, to_table, to_json)


def _report(
    options: argparse.Namespace,
    measure: Callable[[OnProgress], Any],
    to_table: Callable[[Any], Any],
    to_json: Callable[[Any], dict[str, Any]],
) -> None:
    from srgan_dist.bench.common.measure import refuse_unwritable, write_json
    from srgan_dist.tracking.console import console, output

    if options.json:
        refuse_unwritable(options.json)
    with console.status("bench") as status:
        report = measure(status.update)
    output.print(to_table(report))
    if options.json:
        write_json(options.json, to_json(report))


def _config(options: argparse.Namespace, *, prog: str, default: dict[str, Any]) -> Config:
    return configuration(options.overrides, prog=prog)[0] if options.overrides else Config(**default)


def _numbers(text: str, *, name: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",") if word]
    except ValueError:
        raise UserError(f"{name} is {text!r}, expected whole numbers separated by commas, such as 2,4") from None
