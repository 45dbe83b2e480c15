"""What W&B gets of a step, in W&B's own types."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from srgan_dist.tracking.logged import SCORE_BINS, Logged
from srgan_dist.tracking.sample_files import read_sample
from srgan_dist.utils.measures import ALWAYS, MEASURES

TABLE = "val/images"
TIME = "_timestamp"  # W&B's own name; without it, a row is of when it was sent


def row(logged: Logged) -> dict[str, Any]:
    """What W&B logs of a step, but for the table; keys and steps are those of every other run.

    Args:
        logged: Something of the step.
    """
    content = {"step": logged.step, TIME: logged.seconds, **logged.values}
    pictures: dict[str, Any] = {}
    if logged.sheet:
        pictures["samples"] = _image(logged.sheet, f"step {logged.step}")
    for image, path in logged.crops.items():
        pictures[f"samples/{image}"] = _image(path, f"{image}, step {logged.step}")
    for image, crops in logged.references.items():
        for kind, path in crops.items():
            pictures[f"samples/{image}/{kind}"] = _image(path, f"{image}, {kind}")
    for name, counts in logged.histograms.items():
        content[name] = _histogram(counts)
    return content | {name: picture for name, picture in pictures.items() if picture is not None}


def table(logged: Logged) -> dict[str, Any]:
    """The quality of each validation image, as `row`."""
    import wandb

    lines = logged.validation
    names = [name for name in MEASURES if name in ALWAYS or any(name in line for line in lines)]
    rows = [[line["image"], *(_cell(line.get(name)) for name in names)] for line in lines]
    return {TIME: logged.seconds, TABLE: wandb.Table(columns=["image", *names], data=rows)}


def weights(path: Path, *, name: str, keep_in: Path, result: Mapping[str, Any]) -> Any:
    """A weights file as an artifact.

    Args:
        path: The file.
        name: The artifact's.
        keep_in: A folder of W&B's, where the file stays as it is until it is uploaded, whatever becomes of this one.
        result: The content of result.json.
    """
    import wandb

    kept = keep_in / path.name
    kept.unlink(missing_ok=True)
    try:
        os.link(path, kept)
    except OSError:
        shutil.copyfile(path, kept)
    artifact = wandb.Artifact(name, type="model", metadata=dict(result))
    # As it is: W&B would copy it into the user's home.
    artifact.add_file(str(kept), name=path.name, policy="immutable", skip_cache=True)
    return artifact


def _image(path: Path, caption: str) -> Any:
    import wandb

    picture = read_sample(path)  # W&B does not read WebP itself
    return picture and wandb.Image(picture, caption=caption)


def _histogram(counts: Sequence[int]) -> Any:
    import wandb

    return wandb.Histogram(np_histogram=(np.asarray(counts), np.linspace(0, 1, SCORE_BINS + 1)))


def _cell(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
