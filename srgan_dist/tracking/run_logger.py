"""What a run leaves for people: metrics.jsonl, the experiment tracker, the progress bar."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from srgan_dist.errors import UserError
from srgan_dist.tracking.console import console, training_progress
from srgan_dist.tracking.time_left import TimeLeft
from srgan_dist.tracking.wandb_run import WandbRun
from srgan_dist.utils import strict_json
from srgan_dist.utils.files import check_is_file, sync_file, sync_folder, whole_file

if TYPE_CHECKING:
    from accelerate import Accelerator
    from PIL import Image

log = logging.getLogger("srgan_dist")

_RECORD = re.compile(rb'\{"step": (\d{1,18})[,}]')  # how every line begins that `RunLogger.metrics` writes


class RunLogger:
    """Records of a run; every call is for rank 0 alone and does nothing elsewhere.

    Args:
        folder: The run's folder.
        accelerator: Holds the tracker.
        num_steps: Steps of the whole run, for the progress bar.
        pretrain_steps: Steps of the first phase, for the time left.
        tracker: wandb, tensorboard or none.
        project: Project of the tracker, or None.
        group: Group of runs, or None.
        tags: Labels.
        config: The resolved configuration, stored with the run.
    """

    def __init__(
        self,
        *,
        folder: Path,
        accelerator: Accelerator,
        num_steps: int,
        pretrain_steps: int = 0,
        tracker: str = "none",
        project: str | None = None,
        group: str | None = None,
        tags: tuple[str, ...] = (),
        config: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.folder = folder
        self.accelerator, self.tracker, self.config = accelerator, tracker, config
        self.num_steps = num_steps
        self.is_main = accelerator.is_main_process
        self.wandb: WandbRun | None = None
        if tracker == "wandb" and self.is_main:
            self.wandb = WandbRun(accelerator, folder=folder, project=project, group=group, tags=tags, config=config)
        self.progress = training_progress(visible=self.is_main)
        self.time_left = TimeLeft(num_steps=num_steps, pretrain_steps=pretrain_steps)

    @property
    def path(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        return self.folder / "samples"

    @property
    def tracker_id(self) -> str | None:
        """The W&B run's id, which checkpoints keep as well; None without W&B."""
        return self.wandb.address.id if self.wandb and self.wandb.address else None

    def start(self, *, step: int, tracker_id: str | None, configuration: str | None = None) -> None:
        """Start, or resume after ``step``: lines of later steps, which will be taken again, are dropped.

        Args:
            step: The step.
            tracker_id: The W&B run that the checkpoint names; what the folder says comes first.
            configuration: A hash of what decides how a step comes out.
        """
        self.time_left.start(step)
        if not self.is_main:
            return
        redone = self.path.exists() and self._drop_after(step)
        if self.wandb:
            self.wandb.start(step=step, old_id=tracker_id, redone=redone, configuration=configuration)
            self._send_again(self.wandb, step)
        elif self.tracker == "tensorboard":
            self._start_tensorboard(step)
        self.task = self.progress.add_task("train", total=self.num_steps, completed=step, note="", left="")
        self.progress.start()

    def _drop_after(self, step: int) -> bool:
        """Drop the records of later steps, if any, and return whether; whatever else stands there stays as it is."""
        try:
            check_is_file(self.path)
            content = self.path.read_bytes()
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror}): move it away and start again") from None
        lines = content.removesuffix(b"\n").split(b"\n") if content else []
        steps = [_step_of(line) for line in lines]
        kept = [line for line, of in zip(lines, steps, strict=True) if of is None or of <= step]
        whole = b"".join(line + b"\n" for line in kept)  # the last newline may be missing
        if whole != content:
            with whole_file(self.path) as temporary:
                temporary.write_bytes(whole)
        others = [number for number, line in enumerate(kept, start=1) if line.strip() and not _is_record(line)]
        if others:
            where = f"line {others[0]}" if len(others) == 1 else f"{len(others)} lines, the first is line {others[0]}"
            log.warning("%s: %s: not a record of a step; kept as it is", self.path, where)
        return len(kept) < len(lines)

    def sync(self) -> None:
        """Wait until the lines are on the disk; from any thread."""
        if self.is_main and self.path.is_file():
            sync_file(self.path)
            sync_folder(self.folder)

    def _start_tensorboard(self, step: int) -> None:
        if not self.accelerator.log_with:  # accelerate leaves out what is not installed, without a word
            missing = "tracker.name is tensorboard, which is not installed"
            raise UserError(f"{missing}: pip install 'srgan-dist[tensorboard]', or choose wandb or none")
        options = {"tensorboard": {"purge_step": step + 1}}  # what a killed process logged of later steps is hidden
        self.accelerator.init_trackers("tensorboard", config=_flatten(self.config), init_kwargs=options)

    def _send_again(self, wandb: WandbRun, step: int) -> None:
        """Send W&B the steps up to this one that it lacks: a kill loses what was on its way."""
        if wandb.is_lost:
            return
        rows: dict[int, dict[str, Any]] = {}
        for line in self.path.read_bytes().splitlines() if self.path.exists() else ():
            if _is_record(line) and wandb.last_step < (record := json.loads(line))["step"] <= step:
                rows.setdefault(record["step"], {}).update(record)
        pictures = {int(path.stem[5:]): path for path in self.samples.glob("step-*.png") if path.stem[5:].isdecimal()}
        lacking = sorted(rows.keys() | {of for of in pictures if wandb.last_step < of <= step})
        if lacking:
            log.info("W&B: lacks what was logged of steps %d to %d; it is sent again", lacking[0], lacking[-1])
        for of in lacking:
            wandb.log(of, rows.get(of, {}), pictures.get(of))
            wandb.commit(of)

    def metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """Write one line of metrics.jsonl and send it to the tracker.

        Args:
            step: The training step.
            values: Numbers (and the digest, a string) by their logged name.
        """
        if not self.is_main:
            return
        record = {"step": step, **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(strict_json.dumps(record) + "\n")
        if self.wandb:
            self.wandb.log(step, values)
        elif self.tracker == "tensorboard":
            numbers = {key: value for key, value in record.items() if not isinstance(value, str)}
            for tracker in self.accelerator.trackers:
                tracker.log(numbers, step=step)
        self.note(step, values)

    def note(self, step: int, values: Mapping[str, Any]) -> None:
        """Show the numbers on the bar; without a terminal, as a plain line with the time left."""
        short = {"g/total": "g", "d/loss": "d", "val/psnr_y": "PSNR-Y", "perf/images_per_second": "img/s"}
        note = "  ".join(f"{label} {values[name]:.4g}" for name, label in short.items() if name in values)
        if console.is_terminal:
            self.progress.update(self.task, completed=step, note=note)
        else:
            log.info("step %d/%d  %s  %s", step, self.num_steps, note, self.time_left.text(step))

    def advance(self, step: int) -> None:
        """At the end of a step: move the progress bar, and let the tracker show what was logged."""
        if self.is_main:
            self.time_left.reached(step)
            self.progress.update(self.task, completed=step, left=self.time_left.text(step))
        if self.wandb:
            self.wandb.commit(step)

    def images(self, step: int, picture: Image.Image) -> None:
        """Write a picture into the run's folder, and send it to the tracker."""
        if not self.is_main:
            return
        path = self.samples / f"step-{step:06d}.png"
        path.parent.mkdir(exist_ok=True)
        with whole_file(path) as temporary:
            picture.save(temporary, format="PNG")
        if self.wandb:
            self.wandb.log(step, {}, picture)
        elif self.tracker == "tensorboard":
            for tracker in self.accelerator.trackers:
                tracker.log_images({"samples": np.asarray(picture)[None]}, step=step, dataformats="NHWC")

    def close(self, ended_by: BaseException | None = None) -> None:
        """Leave the terminal as it was, and let W&B know how the run ended; trackers end with the runtime.

        Args:
            ended_by: What ended the training; None: it came to its end.
        """
        self.progress.stop()
        if self.wandb:
            self.wandb.close(ended_by)


def _is_record(line: bytes) -> bool:
    try:
        return type(json.loads(line.decode())["step"]) is int
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _step_of(line: bytes) -> int | None:
    """The step of a record, also of one that a crash cut off after it; None where no step is to be read."""
    found = _RECORD.match(line)
    return int(found[1]) if found else None


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """TensorBoard's hyper-parameters: one level, and only what it can show."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return flat
