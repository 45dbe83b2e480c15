"""A damaged metrics.jsonl never stops a resume, and keeps every line but those of later steps."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from srgan_dist.tracking.run_logger import RunLogger
from tests.fuzz.harness import fuzz, mutate, report

RECORDS = [{"step": step, "g/total": 0.5 / step, "data/digest": "00ff", "val/psnr_y": 27.0} for step in range(1, 9)]
LINES = b"".join(json.dumps(record).encode() + b"\n" for record in RECORDS)


def damaged_lines(rng: random.Random, folder: Path) -> None:
    damaged = mutate(LINES, rng)
    path = folder / "metrics.jsonl"
    path.write_bytes(damaged)
    alone: Any = SimpleNamespace(is_main_process=True, trackers=[])
    logger = RunLogger(folder=folder, accelerator=cast("Any", alone), num_steps=8)
    logger.start(step=5, tracker_id=None)
    logger.metrics(6, {"g/total": 0.25})
    logger.close()
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b""
    record = json.loads(lines.pop())
    assert record.pop("time")
    assert record == {"step": 6, "g/total": 0.25}
    dropped = [line for line in damaged.split(b"\n") if line and line not in lines]
    assert all(line.startswith(b'{"step": ') for line in dropped)
    assert all(int(line[9:].split(b",")[0]) > 5 for line in dropped)


@pytest.mark.slow
def test_damaged_metrics_do_not_stop_a_resume() -> None:
    findings = fuzz(damaged_lines, cases=1000)
    assert not findings, report(findings)
