"""A run that only logs, for tests of trackers: ``python -m tests.tracking.logging_run FOLDER TRACKER FIRST LAST END``.

It logs the steps after FIRST up to LAST. END is ``finish``, ``stop``, ``fail``, or ``kill``: without a word to anybody,
once everything is in the run's folder.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

from srgan_dist.errors import Failure, Stopped
from srgan_dist.tracking.console import setup_logging
from srgan_dist.tracking.logged import SCORE_BINS
from srgan_dist.tracking.run_logger import RunLogger
from srgan_dist.tracking.wandb_start import Labels

GOALS = {"val/psnr_y": "max", "val/ssim_y": "max", "val/perceptual": "min"}
PSNR = (None, 20.0, 24.0, 22.0, 21.0)  # by step
IMAGES = ("baby", "a b")
RESULT = {"name": "run", "steps": 4, "final": {"psnr_y": 21.0}, "best": {"psnr_y": {"value": 24.0, "step": 2}}}


def picture(step: int, number: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (step, number, 0))


def log_steps(folder: Path, tracker: str, first: int, last: int, end: str) -> None:
    """Log as a training does."""
    setup_logging(is_main=True)
    alone: Any = SimpleNamespace(is_main_process=True)
    labels = Labels(project="sr", entity="team", group="g", tags=("one",), job_type="train", notes="why")
    logger = RunLogger(
        folder=folder,
        accelerator=alone,
        num_steps=9,
        tracker=tracker,
        labels=labels,
        log_weights="best",
        goals=GOALS,
        config={"train": {"steps": 4}},
    )
    logger.start(step=first, tracker_id=None, facts={"parameters": {"generator": 7}})
    for step in range(first + 1, last + 1):
        psnr = PSNR[step]
        rows = [{"image": name, "psnr_y": psnr, "ssim_y": 0.5, "perceptual": None} for name in IMAGES]
        logger.validation(step, rows)
        alert = {"alert": "D wins"} if step == 2 else {}
        logger.metrics(step, {"g/total": 1 / step, "val/psnr_y": psnr, "val/perceptual": step / 10, **alert})
        logger.histograms(step, {"d/real_scores": [0] * (SCORE_BINS - 1) + [step]})
        logger.references({name: {kind: picture(99, 0) for kind in ("lr", "bicubic", "hr")} for name in IMAGES})
        crops = {name: picture(step, number) for number, name in enumerate(IMAGES)}
        logger.samples(step, picture(step, 9), crops)
        logger.advance(step)
    if end == "kill":
        os._exit(9)
    if end == "finish":
        for name in ("final", "best"):
            (folder / f"{name}.safetensors").write_text(f"{name} after {last}")
        logger.finish(RESULT, {name: folder / f"{name}.safetensors" for name in ("final", "best")})
    errors = {"stop": Stopped("stopped"), "fail": Failure("a reason")}
    logger.close(errors.get(end))


if __name__ == "__main__":
    log_steps(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
