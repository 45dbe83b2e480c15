"""Renders the measurements and predictions of `bench scaling` as tables and as JSON."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.table import Table

from srgan_dist.bench.common.measure import describe_machine, describe_versions
from srgan_dist.bench.scaling.scaling import ScalingBenchOptions, ScalingReport

LARGEST_ERROR, EFFICIENT = 0.15, 0.9


def to_json(report: ScalingReport) -> dict[str, Any]:
    """Convert the report to JSON, with the machine and the versions."""
    options, wires = report.options, report.options.interconnect
    return {
        "machine": describe_machine(),
        "versions": describe_versions("srgan-dist", "torch", "accelerate"),
        "config": options.config.shown(),
        "strong": options.strong,
        "rounds": options.rounds,
        "gradient_bytes": [sum(one.num_bytes for one in network) for network in report.facts.arrivals],
        "small_collectives": {"votes": report.facts.votes, "batch_norm": report.facts.norms},
        "measured": [
            {
                "ranks": row.ranks,
                "seconds": row.seconds._asdict(),
                "alone_seconds": row.alone._asdict(),
                "efficiency": efficiency(report, index),
                "communication": row.communication,
                "link": row.link and row.link._asdict(),
                "foreseen_seconds": row.predicted,
                "error": row.error,
            }
            for index, row in enumerate(report.measured)
        ],
        "interconnect": {
            "between": wires.between._asdict(),
            "within": wires.within and wires.within._asdict(),
            "gpus_per_node": wires.per_node,
        },
        "step_seconds": options.step_seconds,
        "foreseen": [
            {
                **row._asdict(),
                "gradients": row.gradients._asdict(),
                "communication": row.communication,
                "hidden": row.hidden,
            }
            for row in report.predicted
        ],
        "left_out": report.left_out,
    }


def efficiency(report: ScalingReport, index: int) -> float:
    """Images per second of a measured number of ranks, relative to that number times one rank's."""
    one, row = report.measured[0], report.measured[index]
    ideal = one.seconds.median / (row.ranks if report.options.strong else 1)
    return ideal / row.seconds.median


def to_table(report: ScalingReport) -> Group:
    """Render measurements, predictions, and notes on them."""
    parts: list[Any] = [_measured(report), *_notes(report)]
    if report.predicted:
        parts += ["", _predicted(report), *_verdicts(report)]
    parts += [f"left out: {gpus} GPUs: {why}" for gpus, why in report.left_out.items()]
    return Group(*parts)


def _measured(report: ScalingReport) -> Table:
    machine, data = describe_machine(), report.options.config.data
    device = machine["gpu"] or f"{machine['cores']} cores ({machine['cpu']}), one thread a rank"
    table = Table(
        title=f"{device}\none step on {_batch(report.options)} patches of {data.patch_size} x{data.scale}, "
        f"{report.options.config.train.planned_g_per_d}:1",
        title_justify="left",
    )
    for column in ("ranks", "ms", "+-", "effic.", "alone ms", "comm.", "predicted ms", "error"):
        table.add_column(column, justify="right")
    for index, row in enumerate(report.measured):
        seconds = row.seconds
        several = row.ranks > 1
        table.add_row(
            str(row.ranks),
            f"{1000 * seconds.median:,.1f}",
            f"{50 * (seconds.high - seconds.low) / seconds.median:.0f} %",
            f"{100 * efficiency(report, index):.0f} %",
            f"{1000 * row.alone.median:,.1f}" if several else "",
            f"{100 * row.communication:.0f} %" if several else "",
            f"{1000 * row.predicted:,.1f}" if several else "",
            f"{100 * row.error:+.0f} %" if several else "",
        )
    return table


def _batch(options: ScalingBenchOptions) -> str:
    batch = options.config.data.batch_size
    return f"{batch}" if options.strong else f"{batch} x ranks"


def _notes(report: ScalingReport) -> list[str]:
    machine = describe_machine()
    lines = []
    if len(report.measured) > 1 and not machine["gpu"]:
        lines.append(
            "alone: as many ranks that do not wait for each other, together on the same cores; predicted: that, "
            "plus all-reduces as fast as without training. Nothing is hidden: the same cores carry the bytes."
        )
    for row in report.measured:
        if row.ranks > machine["cores"] and not machine["gpu"]:
            most = 100 * machine["cores"] / row.ranks
            lines.append(f"{row.ranks} ranks share {machine['cores']} cores: at most {most:.0f} % efficient")
        if row.link:
            lines.append(
                f"{row.ranks} ranks reduce with {1e6 * row.link.latency:,.0f} us a hop and "
                f"{8 * row.link.bandwidth / 1e9:.1f} Gb/s"
            )
        if abs(row.error) > LARGEST_ERROR:
            lines.append(
                f"note: {row.ranks} ranks: the prediction is off by {100 * row.error:+.0f} %, more than "
                f"{100 * LARGEST_ERROR:.0f} %: is the machine busy with something else?"
            )
    return lines


def _predicted(report: ScalingReport) -> Table:
    options, wires = report.options, report.options.interconnect
    seconds = options.step_seconds or report.measured[0].seconds.median
    link = f"{8 * wires.between.bandwidth / 1e9:g} Gb/s and {1e6 * wires.between.latency:g} us"
    if wires.within:
        link += f" a node of {wires.per_node}, {8 * wires.within.bandwidth / 1e9:g} Gb/s within it"
    mib = " + ".join(f"{sum(one.num_bytes for one in network) / 2**20:.1f}" for network in report.facts.arrivals)
    table = Table(
        title=f"predicted: {1000 * seconds:,.1f} ms a step of one GPU, {mib} MiB of gradients, {link}",
        title_justify="left",
    )
    for column in ("GPUs", "batch", "ms", "images/s", "effic.", "comm.", "BatchNorm", "hidden"):
        table.add_column(column, justify="right")
    for row in report.predicted:
        table.add_row(
            f"{row.ranks:,}",
            f"{row.batch:,}",
            f"{1000 * row.seconds:,.1f}",
            f"{row.batch / row.seconds:,.0f}",
            f"{100 * row.efficiency:.0f} %",
            f"{100 * row.communication:.1f} %",
            f"{100 * row.norms / row.seconds:.1f} %",
            f"{100 * row.hidden:.0f} %",
        )
    return table


def _verdicts(report: ScalingReport) -> list[str]:
    good = [row.ranks for row in report.predicted if row.efficiency >= EFFICIENT]
    where = f"up to {max(good):,} of these GPUs" if good else "on none of these numbers of GPUs"
    return [
        f"at least {100 * EFFICIENT:.0f} % efficient: {where}. hidden: fraction of the gradients' averaging that "
        "overlaps with the backward pass. BatchNorm: its part of the communication. Not predicted: slow ranks, "
        "reading data."
    ]
