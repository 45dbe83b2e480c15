"""The command ``bench scaling``: its options, and what it prints."""

from __future__ import annotations

import argparse
from pathlib import Path

from srgan_dist.config import Config
from srgan_dist.errors import UserError


def add_scaling(parser: argparse.ArgumentParser) -> None:
    """The options of ``srgan-dist bench scaling``."""
    add = parser.add_argument
    add("--ranks", default="2,4", metavar="N,N", help="processes to measure beside one; 1: none (default: 2,4)")
    add("--rounds", type=int, default=5, metavar="N", help="measurements of each (default: 5)")
    add("--strong", action="store_true", help="data.batch_size is shared by all ranks, not each one's")
    add("--gpus", default="8,64,256,1024", metavar="N,N", help="to foresee (default: 8,64,256,1024)")
    add("--bandwidth", default="200Gb/s", metavar="RATE", help="of a node's wire (default: 200Gb/s)")
    add("--latency", default="5us", metavar="TIME", help="of one hop (default: 5us)")
    add("--gpus-per-node", type=int, default=1, metavar="N", help="which share a wire (default: 1)")
    add("--node-bandwidth", default="2400Gb/s", metavar="RATE", help="from GPU to GPU in a node (default: 2400Gb/s)")
    add("--step-time", metavar="TIME", help="of one GPU, measured elsewhere (default: as measured here)")
    add("--json", type=Path, metavar="FILE", help="also write all numbers to a file")


def scaling(options: argparse.Namespace, config: Config | None) -> None:
    """``srgan-dist bench scaling``.

    Args:
        options: those of `add_scaling`.
        config: of one rank; None takes a small one.
    """
    from rich.console import Console

    from srgan_dist.bench.interconnect import Interconnect, Link, parse_bandwidth, parse_seconds
    from srgan_dist.bench.measure import refuse_unwritable, write_json
    from srgan_dist.bench.scaling import SHAPE, Options, bench_scaling
    from srgan_dist.bench.scaling_report import to_json, to_table
    from srgan_dist.tracking import console

    if options.json:
        refuse_unwritable(options.json)
    latency = parse_seconds(options.latency, name="--latency")
    within = Link(latency, parse_bandwidth(options.node_bandwidth, name="--node-bandwidth"))
    chosen = Options(
        config=config or Config(**SHAPE),
        ranks=[number for number in _numbers(options.ranks, name="--ranks") if number != 1],
        rounds=options.rounds,
        strong=options.strong,
        gpus=_numbers(options.gpus, name="--gpus"),
        interconnect=Interconnect(
            Link(latency, parse_bandwidth(options.bandwidth, name="--bandwidth")),
            within if options.gpus_per_node > 1 else None,
            options.gpus_per_node,
        ),
        step_seconds=parse_seconds(options.step_time, name="--step-time") if options.step_time else None,
    )
    with console.status("bench") as status:
        report = bench_scaling(chosen, on_progress=status.update)
    Console().print(to_table(report))
    if options.json:
        write_json(options.json, to_json(report))


def _numbers(text: str, *, name: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",") if word]
    except ValueError:
        raise UserError(f"{name} is {text!r}, expected whole numbers separated by commas, such as 2,4") from None
