"""The measurements of a training step as tables for people and as numbers for programs."""

from __future__ import annotations

from typing import Any, NamedTuple

from rich.console import Group
from rich.table import Table

from srgan_dist.bench.common.measure import describe_machine, describe_versions, verdict
from srgan_dist.bench.common.timeline import COMMUNICATION, DISCRIMINATOR, GENERATOR, OPTIMIZER, PARTS, PERCEPTUAL
from srgan_dist.bench.step.ways import CONFIGURED, NOTEBOOK_STEP, StepReport, ranks_name

# Times BasicSR's step, of the networks of its own recipe.
_SPEED_UPS = {"fp32": 1.15, "bf16": 2.2}
_NOTEBOOK_COST = 0.75
_EFFICIENCY = 0.9
_SHORT = {GENERATOR: "G", DISCRIMINATOR: "D", PERCEPTUAL: "features", OPTIMIZER: "optim.", COMMUNICATION: "comm."}


class Target(NamedTuple):
    """A number that is to be reached.

    Attributes:
        text: what it is.
        value: what it came to.
        reached: whether that is enough.
    """

    text: str
    value: float
    reached: bool


def targets(report: StepReport) -> list[Target]:
    """What the measurements say of the promises."""
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
    # Of ranks with as many threads each as the one; else they only share what that one has.
    if report.options.config.train.threads and ours and several and ours.speed_up and several.speed_up:
        ratio, least = several.speed_up.median / ours.speed_up.median, _EFFICIENCY * ranks
        found.append(Target(f"{ranks} ranks against one: at least {least:g} times as fast", ratio, ratio >= least))
    return found


def to_json(report: StepReport) -> dict[str, Any]:
    """All numbers, the machine and the versions."""
    return {
        "machine": describe_machine(),
        "versions": describe_versions("srgan-dist", "torch", "accelerate"),
        "config": report.options.config.model_dump(mode="json", by_alias=True),
        "rounds": report.options.rounds,
        "rows": [
            {
                "way": row.way.name,
                "changes": dict(row.way.changes),
                "ranks": row.way.ranks,
                "crops": row.crops,
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
    """The ways, what they come to, where their time goes, and what is missing."""
    lines = [f"{target.text}: {target.value:.2f}, {verdict(target.reached)}" for target in targets(report)]
    lines += [f"left out: {way}: {why}" for way, why in report.left_out.items()]
    return Group(_speeds(report), _parts(report), *lines)


def _speeds(report: StepReport) -> Table:
    machine, data, train = describe_machine(), report.options.config.data, report.options.config.train
    device = machine["gpu"] or f"{machine['cores']} cores ({machine['cpu']})"
    table = Table(
        title=f"{device}\none update of the generator on {data.batch_size} crops of {data.patch_size} x{data.scale}, "
        f"with its share of the discriminator's, {train.g_per_d}:1",
        title_justify="left",
    )
    table.add_column("way", no_wrap=True)
    for column in ("ms", "+-", "images/s", "x BasicSR", "peak GiB"):
        table.add_column(column, justify="right")
    for row in report.rows:
        seconds = row.seconds
        table.add_row(
            row.way.name if row.crops == data.batch_size else f"{row.way.name} ({row.crops} at a time)",
            f"{1000 * seconds.median:,.0f}",
            f"{50 * (seconds.high - seconds.low) / seconds.median:.0f} %",
            f"{row.images_per_second:.2f}",
            f"{row.speed_up.median:.2f}" if row.speed_up else "1",
            f"{row.peak_gib:.2f}",
        )
        if row.way.name in (NOTEBOOK_STEP, CONFIGURED):
            table.add_section()
    return table


def _parts(report: StepReport) -> Table:
    table = Table(title="where the time goes, percent", title_justify="left")
    table.add_column("way", no_wrap=True)
    for part in PARTS:
        table.add_column(_SHORT.get(part, part), justify="right")
    for row in report.rows:
        if row.parts:
            table.add_row(row.way.name, *(f"{100 * row.parts[part]:.0f}" for part in PARTS))
    return table
