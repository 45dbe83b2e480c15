"""What a run leaves for people: its records in the run's folder, the experiment tracker, the progress bar."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from srgan_dist.errors import UserError
from srgan_dist.tracking.console import console, training_progress
from srgan_dist.tracking.step_lines import StepLines
from srgan_dist.tracking.time_left import TimeLeft
from srgan_dist.tracking.wandb_run import WandbRun
from srgan_dist.utils import strict_json
from srgan_dist.utils.files import sync_folder, whole_file, write_whole
from srgan_dist.utils.times import utc

if TYPE_CHECKING:
    from accelerate import Accelerator
    from PIL import Image

log = logging.getLogger("srgan_dist")


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
        self._metrics, self._validation = StepLines(folder / "metrics.jsonl"), StepLines(folder / "val.jsonl")
        self._has_references = False

    @property
    def samples_folder(self) -> Path:
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
        redone = self._metrics.drop_after(step)
        self._validation.drop_after(step)
        if self.wandb:
            self.wandb.start(step=step, old_id=tracker_id, redone=redone, configuration=configuration)
            self._send_again(self.wandb, step)
        elif self.tracker == "tensorboard":
            self._start_tensorboard(step)
        self.task = self.progress.add_task("train", total=self.num_steps, completed=step, note="", left="")
        self.progress.start()

    def sync(self) -> None:
        """Wait until the lines are on the disk; from any thread."""
        if self.is_main:
            self._metrics.sync()
            self._validation.sync()
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
        for record in self._metrics.read():
            if wandb.last_step < record["step"] <= step:
                record.pop("time", None)
                rows.setdefault(record["step"], {}).update(record)
        sheets = self.samples_folder.glob("step-*.png")
        pictures = {int(path.stem[5:]): path for path in sheets if path.stem[5:].isdecimal()}
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
        self._metrics.append(step, [{"time": utc(), **values}])
        if self.wandb:
            self.wandb.log(step, values)
        elif self.tracker == "tensorboard":
            numbers = {key: value for key, value in {"step": step, **values}.items() if not isinstance(value, str)}
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

    def logged_validations(self, step: int) -> list[dict[str, Any]]:
        """What metrics.jsonl has of the validations up to a step: ``step``, ``psnr_y``, ``ssim_y``, ``perceptual``."""
        found = []
        for record in self._metrics.read() if self.is_main else ():
            values = {name.removeprefix("val/"): value for name, value in record.items() if name.startswith("val/")}
            if values and record["step"] <= step:
                found.append({"step": record["step"], **values})
        return found

    def validation(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the quality of each validation image into val.jsonl.

        Args:
            step: The training step.
            rows: For each image, in their order, ``image`` (its name), ``psnr_y``, ``ssim_y`` and ``perceptual``.
        """
        if self.is_main:
            self._validation.append(step, rows)

    def references(self, pictures: Mapping[str, Mapping[str, Image.Image]]) -> None:
        """Write what generated crops are compared with into ``samples/IMAGE/``; only the first call does anything.

        Args:
            pictures: For each image, by a name that can be a folder's, the crops ``lr``, ``bicubic`` and ``hr``.
        """
        if not self.is_main or self._has_references:
            return
        self._has_references = True
        for image, crops in pictures.items():
            for kind, crop in crops.items():
                _write_crop(self.samples_folder / image / f"{kind}.webp", crop)

    def samples(self, step: int, sheet: Image.Image, crops: Mapping[str, Image.Image]) -> None:
        """Write sample pictures into the run's folder, and send them to the tracker.

        Args:
            step: The training step.
            sheet: The contact sheet.
            crops: The generated crop of each image, by the names of `references`.
        """
        if not self.is_main:
            return
        path = self.samples_folder / f"step-{step:06d}.png"
        path.parent.mkdir(exist_ok=True)
        with whole_file(path) as temporary:
            sheet.save(temporary, format="PNG")
        for image, crop in crops.items():
            _write_crop(self.samples_folder / image / f"step-{step:06d}.webp", crop)
        if self.wandb:
            self.wandb.log(step, {}, sheet)
        elif self.tracker == "tensorboard":
            for tracker in self.accelerator.trackers:
                tracker.log_images({"samples": np.asarray(sheet)[None]}, step=step, dataformats="NHWC")

    def finish(self, result: Mapping[str, Any], weights: Mapping[str, Path]) -> None:  # noqa: ARG002 - for trackers
        """Write result.json, at the end of a run that came to it.

        Args:
            result: Its content.
            weights: Files of weights: ``final``, and ``best`` where there are any.
        """
        if self.is_main:
            write_whole(self.folder / "result.json", strict_json.dumps(result, indent=2))

    def close(self, ended_by: BaseException | None = None) -> None:
        """Leave the terminal as it was, and let W&B know how the run ended; trackers end with the runtime.

        Args:
            ended_by: What ended the training; None: it came to its end.
        """
        self.progress.stop()
        if self.wandb:
            self.wandb.close(ended_by)


def _write_crop(path: Path, crop: Image.Image) -> None:
    """Write a crop without loss, unless it is there already."""
    encoded = io.BytesIO()
    crop.save(encoded, format="WEBP", lossless=True)
    if path.is_file() and path.read_bytes() == encoded.getvalue():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        temporary.write_bytes(encoded.getvalue())


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """TensorBoard's hyper-parameters: one level, and only what it can show."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return flat
