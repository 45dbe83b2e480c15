"""Renders the results of `bench step` as tables and as JSON."""

from __future__ import annotations

from typing import Any, NamedTuple

from rich.console import Group
from rich.table import Table

from srgan_dist.bench.common.measure import describe_machine, describe_versions, verdict
from srgan_dist.bench.common.timeline import COMMUNICATION, DISCRIMINATOR, GENERATOR, OPTIMIZER, PARTS, PERCEPTUAL
from srgan_dist.bench.step.variants import CONFIGURED, NOTEBOOK_STEP, StepReport, ranks_name

# Relative to BasicSR's step, with the networks of its own recipe.
_SPEED_UPS = {"fp32": 1.15, "bf16": 2.2}
_NOTEBOOK_COST = 0.75
_EFFICIENCY = 0.9
_SHORT = {GENERATOR: "G", DISCRIMINATOR: "D", PERCEPTUAL: "features", OPTIMIZER: "optim.", COMMUNICATION: "comm."}


class Target(NamedTuple):
    """A target value.

    Attributes:
        text: Description.
        value: The measured value.
        reached: Whether the value meets the target.
    """

    text: str
    value: float
    reached: bool


def targets(report: StepReport) -> list[Target]:
    """Compare the measurements with the targets."""
    found = []
    precision = report.options.config.train.precision
    for name, least in _SPEED_UPS.items():
        row = report.row(CONFIGURED if name == precision else name)
        if report.options.is_basicsrs and row and row.speed_up:
            ratio = row.speed_up.median
            found.append(
                Target(f"{name} against BasicSR's step: at least {least:g} times as fast", ratio, ratio >= least)
            )
    ours, theirs = report.row(CONFIGURED), report.row(NOTEBOOK_STEP)
    if ours and theirs and ours.speed_up and theirs.speed_up:
        cost = theirs.speed_up.median / ours.speed_up.median
        text = f"cost of a generator update, of the notebook's: at most {_NOTEBOOK_COST:g}"
        found.append(Target(text, cost, cost <= _NOTEBOOK_COST))
    ranks = report.options.ranks
    several = report.row(ranks_name(ranks))
    # Only if every rank has as many threads as the single one; otherwise they share its cores.
    if report.options.config.train.threads and ours and several and ours.speed_up and several.speed_up:
        ratio, least = several.speed_up.median / ours.speed_up.median, _EFFICIENCY * ranks
        found.append(Target(f"{ranks} ranks against one: at least {least:g} times as fast", ratio, ratio >= least))
    return found


def to_json(report: StepReport) -> dict[str, Any]:
    """Convert the report to JSON, with the machine and the versions."""
    return {
        "machine": describe_machine(),
        "versions": describe_versions("srgan-dist", "torch", "accelerate"),
        "config": report.options.config.shown(),
        "rounds": report.options.rounds,
        "rows": [
            {
                "way": row.variant.name,
                "changes": dict(row.variant.changes),
                "ranks": row.variant.ranks,
                "crops": row.num_patches,
                "seconds": row.seconds._asdict(),
                "images_per_second": row.images_per_second,
                "speed_up": row.speed_up and row.speed_up._asdict(),
                "peak_gib": row.peak_gib,
                "parts": row.parts,
            }
            for row in report.rows
        ],
        "targets": [target._asdict() for target in targets(report)],
        "left_out": report.left_out,
    }


def to_table(report: StepReport) -> Group:
    """Render speeds, parts, targets, and the variants that were left out."""
    lines = [f"{target.text}: {target.value:.2f}, {verdict(target.reached)}" for target in targets(report)]
    lines += [f"left out: {name}: {why}" for name, why in report.left_out.items()]
    return Group(_speeds(report), _parts(report), *lines)


def _speeds(report: StepReport) -> Table:
    machine, data, train = describe_machine(), report.options.config.data, report.options.config.train
    device = machine["gpu"] or f"{machine['cores']} cores ({machine['cpu']})"
    table = Table(
        title=f"{device}\none update of the generator on {data.batch_size} patches of {data.patch_size} x{data.scale}, "
        f"with its fraction of a discriminator update, {train.g_per_d}:1",
        title_justify="left",
    )
    table.add_column("variant", no_wrap=True)
    for column in ("ms", "+-", "images/s", "x BasicSR", "peak GiB"):
        table.add_column(column, justify="right")
    for row in report.rows:
        seconds = row.seconds
        table.add_row(
            row.variant.name
            if row.num_patches == data.batch_size
            else f"{row.variant.name} ({row.num_patches} at a time)",
            f"{1000 * seconds.median:,.0f}",
            f"{50 * (seconds.high - seconds.low) / seconds.median:.0f} %",
            f"{row.images_per_second:.2f}",
            f"{row.speed_up.median:.2f}" if row.speed_up else "1",
            f"{row.peak_gib:.2f}",
        )
        if row.variant.name in (NOTEBOOK_STEP, CONFIGURED):
            table.add_section()
    return table


def _parts(report: StepReport) -> Table:
    table = Table(title="where the time goes, percent", title_justify="left")
    table.add_column("variant", no_wrap=True)
    for part in PARTS:
        table.add_column(_SHORT.get(part, part), justify="right")
    for row in report.rows:
        if row.parts:
            table.add_row(row.variant.name, *(f"{100 * row.parts[part]:.0f}" for part in PARTS))
    return table
