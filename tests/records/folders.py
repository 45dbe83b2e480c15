"""Folders as runs leave them, without a training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from srgan_dist.config.root import Config


def make_run(folder: Path, *, steps: int = 10, done: int = 10, **files: Any) -> Path:
    """A folder with a configuration, a metric for each step, and JSON files by name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(Config(train={"steps": steps}).to_yaml())
    (folder / "metrics.jsonl").write_text("".join(map(line, range(1, done + 1))))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def line(step: int, **more: Any) -> str:
    """A line of metrics.jsonl."""
    values = {"step": step, "hours": step / 100, "g/total": 1 / step, "val/psnr_y": 20.0 + step % 7}
    return json.dumps(values | more) + "\n"
