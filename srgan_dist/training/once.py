"""A run that is a step of something larger: trained if it is not finished yet, else its result."""

from __future__ import annotations

import json
import logging
from typing import Any

from srgan_dist.config.root import Config
from srgan_dist.training.run import train

log = logging.getLogger("srgan_dist")


def train_once(config: Config) -> dict[str, Any]:
    """Train, resume, or read the result of the run in ``run.dir``, if that has come to as many steps.

    Args:
        config: The resolved configuration; ``run.resume=never`` starts over.

    Returns:
        The content of result.json, see `srgan_dist.training.run.train`.

    Raises:
        UserError: As `srgan_dist.training.run.train`; Failure and Stopped, too.
    """
    file = config.run.dir / "result.json"
    if file.exists() and config.run.resume == "auto":
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if result["steps"] >= config.train.steps:
            log.info("%s: already finished; this is its result (--run.resume=never starts over)", config.run.dir)
            return result
    return train(config)
