"""How long a training step waits for its data: a short real training in a process of its own."""

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
# The network of configs/compact_x4.yaml: the cheapest one that a recipe trains, so that waiting shows most.
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
    """Of a short training.

    Attributes:
        percent: of the time of a step that passes in waiting for its window; over laps of `LAP` steps.
        step_ms: the time of a step in milliseconds, likewise.
    """

    percent: Spread
    step_ms: Spread


def data_wait(shards: Path, folder: Path, patches: PatchShape, *, steps: int = STEPS) -> DataWait:
    """Train a small network for a moment, with the default workers.

    Args:
        shards: packed folder.
        folder: of the run; made.
        patches: what is cut; the batch is the window of a step.
        steps: to train; a multiple of `LAP`, at least 2 laps. The first lap is the warm-up and does not count.

    Returns:
        The waiting.
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
    # Its own process: a run sets the threads and the device of the whole process, and a lap needs all the cores.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(_train, content).result()
    return read_wait(folder / "metrics.jsonl", patches)


def read_wait(metrics: Path, patches: PatchShape) -> DataWait:
    """Read the waiting out of a run's metrics.jsonl, without its first line.

    Args:
        metrics: the file; at least 2 lines.
        patches: the run's.

    Returns:
        The waiting.
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

    console.quiet = True  # its progress bar would stand in the middle of the measurement's
    train(Config(**content))
