"""Renders the results of `bench loader` as tables and as JSON."""

from __future__ import annotations

from typing import Any, NamedTuple

from rich.console import Group
from rich.table import Table

from srgan_dist.bench.common.measure import Spread, describe_machine, describe_versions, verdict
from srgan_dist.bench.loader.loader import PNG, RAW, STREAM, Report, Row
from srgan_dist.bench.loader.startup import MOST_MIB, MOST_SECONDS, StartUp

_TARGETS = {PNG: 40.0, STREAM: 10.0}  # least ratio of raw bytes to the peer, by CPU time
_WAIT_TARGET = 1.0  # percent of a step
_PACKAGES = ("srgan-dist", "torch", "numpy", "pillow", "webdataset", "opencv-python-headless", "lmdb")


class Ratio(NamedTuple):
    """The rate of our raw shards relative to a peer's, each with its best number of workers.

    Attributes:
        batches: Type of our batches: bytes as the loader returns them, or floats on the device.
        peer: Name of the peer.
        core: Ratio by CPU time.
        wall: Ratio by wall time.
        target: Target for `core`, or None.
    """

    batches: str
    peer: str
    core: float
    wall: float
    target: float | None


def ratios(rows: list[Row]) -> list[Ratio]:
    """Compare our raw shards with each peer."""
    ours = dict.fromkeys(row.batches for row in rows if row.name == RAW)
    peers = dict.fromkeys(row.name for row in rows if row.is_peer)
    return [
        Ratio(
            batches,
            peer,
            core=_best(rows, RAW, batches, "core") / _best(rows, peer, None, "core"),
            wall=_best(rows, RAW, batches, "wall") / _best(rows, peer, None, "wall"),
            target=_TARGETS.get(peer) if batches == "uint8" else None,
        )
        for batches in ours
        for peer in peers
    ]


def _best(rows: list[Row], name: str, batches: str | None, by: str) -> float:
    rates = [row.rate for row in rows if row.name == name and batches in (None, row.batches)]
    return max((rate.core if by == "core" else rate.wall).median for rate in rates)


def to_json(report: Report) -> dict[str, Any]:
    """Convert the report to JSON, with the machine and the versions."""
    options = report.options
    wait = report.wait
    return {
        "machine": describe_machine(),
        "versions": describe_versions(*_PACKAGES),
        "images": report.images,
        "patch_size": options.patches.size,
        "batch_size": options.patches.batch,
        "scale": options.patches.scale,
        "seconds": options.seconds,
        "rates": [
            {"way": row.name, "batches": row.batches, "workers": row.workers, **row.rate.to_json()}
            for row in report.rows
        ],
        "ratios": [ratio._asdict() for ratio in ratios(report.rows)],
        "data_wait": wait and {"percent": wait.percent._asdict(), "step_ms": wait.step_ms._asdict()},
        "start_up": [start._asdict() for start in report.starts],
        "left_out": report.left_out,
    }


def to_tables(report: Report) -> Group:
    """Render rates, ratios, further results, and what was left out."""
    lines = [f"left out: {name}: {why}" for name, why in report.left_out.items()]
    lines += [_start_line(start) for start in report.starts]
    if report.wait:
        percent, step = report.wait.percent, report.wait.step_ms
        lines.append(
            f"a training step waits for its data {percent.median:.2f} % ({percent.low:.2f} to {percent.high:.2f}) of "
            f"{step.median:.0f} ms; at most {_WAIT_TARGET:g} %: {verdict(percent.median < _WAIT_TARGET)}"
        )
    return Group(_rates(report), _ratios(report), *lines)


def _rates(report: Report) -> Table:
    machine, patches = describe_machine(), report.options.patches
    title = f"{machine['cores']} cores ({machine['cpu']}), {patches.size}x{patches.size} x{patches.scale}, "
    table = Table(title=f"{title}batch {patches.batch}\n{report.images}", title_justify="left")
    for column in ("method", "batches"):
        table.add_column(column)
    for column in ("workers", "patches/s", "+-", "per core", "+-"):
        table.add_column(column, justify="right")
    before: str | None = None
    for row in report.rows:
        if before not in (None, row.name + row.batches):
            table.add_section()
        before = row.name + row.batches
        table.add_row(row.name, row.batches, str(row.workers), *_cells(row.rate.wall), *_cells(row.rate.core))
    return table


def _cells(spread: Spread) -> tuple[str, str]:
    return f"{spread.median:,.0f}", f"{50 * (spread.high - spread.low) / spread.median:.0f} %"


def _ratios(report: Report) -> Table:
    table = Table(title="raw shards against other methods, each with its best number of workers", title_justify="left")
    for column in ("batches", "against"):
        table.add_column(column)
    for column in ("per core", "by the clock", "target per core"):
        table.add_column(column, justify="right")
    for ratio in ratios(report.rows):
        target = f"{ratio.target:g}: {verdict(ratio.core >= ratio.target)}" if ratio.target else ""
        table.add_row(ratio.batches, ratio.peer, f"{ratio.core:.1f}", f"{ratio.wall:.1f}", target)
    return table


def _start_line(start: StartUp) -> str:
    seconds, mib = MOST_SECONDS.get(start.samples), MOST_MIB.get(start.samples)
    costs = [
        _against(f"{start.seconds:.2g} s", start.seconds, seconds),
        _against(f"{start.mib:.0f} MiB", start.mib, mib),
    ]
    return f"start-up with {start.samples:,} samples in {start.shards:,} shards: {', '.join(costs)}"


def _against(cost: str, value: float, most: float | None) -> str:
    return cost if most is None else f"{cost} (at most {most:g}: {verdict(value <= most)})"
