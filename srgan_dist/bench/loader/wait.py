"""Measures how long a training step waits for its data, by a short training run in its own process."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from srgan_dist.bench.common.measure import Spread
from srgan_dist.bench.loader.peers import PatchShape

STEPS, LAP = 80, 10
TRAINED_SCALES = (2, 4, 8)
# The network of configs/compact_x4.yaml, the cheapest one of the recipes, with which waiting shows most.
_GENERATOR = {
    "name": "srresnet",
    "channels": 48,
    "blocks": 10,
    "norm": "none",
    "skip": "bicubic",
    "upsampler": "pixelshuffledirect",
    "end_kernel": 3,
}


class DataWait(NamedTuple):
    """The result of a short training run.

    Attributes:
        percent: Percentage of a step's time spent waiting for its batch, over laps of `LAP` steps.
        step_ms: Time of a step in milliseconds, over the same laps.
    """

    percent: Spread
    step_ms: Spread


def data_wait(shards: Path, folder: Path, patches: PatchShape, *, steps: int = STEPS) -> DataWait:
    """Train a small network for a short time, with the default workers.

    Args:
        shards: Folder of packed shards.
        folder: The run's folder; it is created.
        patches: Size, scale and number of the patches; the batch is the global batch.
        steps: Number of steps; a multiple of `LAP`, at least 2 laps. The first lap is a warm-up and does not count.

    Returns:
        The waiting time.
    """
    content: dict[str, Any] = {
        "run": {"dir": str(folder)},
        "data": {
            "train": [str(shards)],
            "scale": patches.scale,
            "patch_size": patches.size,
            "batch_size": patches.batch,
        },
        "generator": _GENERATOR,
        "train": {"steps": steps, "pretrain_steps": steps},
        "log": {"every": LAP, "images_every": steps + 1},
        "checkpoint": {"every": steps},
        "tracker": {"name": "none"},
    }
    # In its own process, as a run sets the threads and the device of the whole process.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(_train, content).result()
    return read_wait(folder / "metrics.jsonl", patches)


def read_wait(metrics: Path, patches: PatchShape) -> DataWait:
    """Read the waiting time from a run's metrics.jsonl, ignoring its first line.

    Args:
        metrics: The file; it has at least 2 lines.
        patches: The run's patches.

    Returns:
        The waiting time.
    """
    laps = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()][1:]
    return DataWait(
        percent=Spread.of([100 * lap["perf/data_wait"] for lap in laps]),
        step_ms=Spread.of([1000 * patches.batch / lap["perf/images_per_second"] for lap in laps]),
    )


def _train(content: dict[str, Any]) -> None:
    from srgan_dist.config.root import Config
    from srgan_dist.tracking.console import console
    from srgan_dist.training.run import train

    console.quiet = True  # its progress bar would interfere with the benchmark's
    train(Config(**content))
