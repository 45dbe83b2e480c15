"""What a run leaves for people: its records in the run's folder, the experiment tracker, the progress bar."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from srgan_dist.tracking.console import console, training_progress
from srgan_dist.tracking.logged import Logged, Tracker, are_counts
from srgan_dist.tracking.run_info import read_run_info
from srgan_dist.tracking.sample_files import SampleFiles
from srgan_dist.tracking.step_lines import StepLines
from srgan_dist.tracking.tensorboard_run import TensorBoardRun
from srgan_dist.tracking.time_left import TimeLeft
from srgan_dist.tracking.wandb_run import LogWeights, WandbRun
from srgan_dist.tracking.wandb_start import Labels
from srgan_dist.utils import strict_json
from srgan_dist.utils.files import sync_folder, write_whole
from srgan_dist.utils.times import from_utc, utc

if TYPE_CHECKING:
    from accelerate import Accelerator
    from PIL import Image

log = logging.getLogger("srgan_dist")


class RunLogger:
    """Records of a run; every call is for rank 0 alone and does nothing elsewhere.

    Args:
        folder: The run's folder.
        accelerator: Knows which rank this is.
        num_steps: Steps of the whole run, for the progress bar.
        pretrain_steps: Steps of the first phase, for the time left.
        tracker: wandb, tensorboard or none.
        labels: Where the run belongs in W&B.
        log_weights: Which weights W&B gets at the end.
        goals: For each metric that runs are compared by, ``min`` or ``max``.
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
        labels: Labels | None = None,
        log_weights: LogWeights = "none",
        goals: Mapping[str, str] = MappingProxyType({}),
        config: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.folder, self.config, self.num_steps = folder, config, num_steps
        self.is_main = accelerator.is_main_process
        self.tracker: WandbRun | TensorBoardRun | None = None
        if tracker == "wandb" and self.is_main:
            self.tracker = WandbRun(folder, labels=labels or Labels(), goals=goals, log_weights=log_weights)
        elif tracker == "tensorboard" and self.is_main:
            self.tracker = TensorBoardRun(folder, config=config, goals=goals)
        self.progress = training_progress(visible=self.is_main)
        self.time_left = TimeLeft(num_steps=num_steps, pretrain_steps=pretrain_steps)
        self._metrics, self._validation = StepLines(folder / "metrics.jsonl"), StepLines(folder / "val.jsonl")
        self._histograms = StepLines(folder / "histograms.jsonl")
        self._samples = SampleFiles(folder / "samples")
        self._has_references = False

    @property
    def tracker_id(self) -> str | None:
        """The W&B run's id, which checkpoints keep as well; None without W&B."""
        return self.tracker.address.id if isinstance(self.tracker, WandbRun) and self.tracker.address else None

    def start(
        self,
        *,
        step: int,
        tracker_id: str | None,
        configuration: str | None = None,
        facts: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Start, or resume after ``step``: lines of later steps, which will be taken again, are dropped.

        Args:
            step: The step.
            tracker_id: The W&B run that the checkpoint names; what the folder says comes first.
            configuration: A hash of what decides how a step comes out.
            facts: What is to be known of the run besides its configuration and run.json.
        """
        self.time_left.start(step)
        if not self.is_main:
            return
        redone = self._metrics.drop_after(step)
        self._validation.drop_after(step)
        self._histograms.drop_after(step)
        self._samples.drop_after(step)
        if isinstance(self.tracker, WandbRun):
            known = {**self.config, **facts, "run_info": _shared(read_run_info(self.folder) or {})}
            self.tracker.start(known, step=step, old_id=tracker_id, redone=redone, configuration=configuration)
        elif self.tracker:
            self.tracker.start()
        if self.tracker:
            self._send_again(self.tracker, step)
        self.task = self.progress.add_task("train", total=self.num_steps, completed=step, note="", left="")
        self.progress.start()

    def sync(self) -> None:
        """Wait until the lines are on the disk; from any thread."""
        if self.is_main:
            for lines in (self._metrics, self._validation, self._histograms):
                lines.sync()
            sync_folder(self.folder)

    def _send_again(self, tracker: Tracker, step: int) -> None:
        """Send a tracker the steps up to this one that it lacks: a kill loses what was on its way."""
        if tracker.last_step is None:
            return
        known = list(self._logged(until=step))
        lacking = [logged.step for logged in known if logged.step > tracker.last_step]
        if lacking and isinstance(tracker, WandbRun):
            log.info("W&B: lacks what was logged of steps %d to %d; it is sent again", lacking[0], lacking[-1])
        for logged in known:  # the others too: what was best so far is among them
            tracker.log(logged)
            tracker.commit(logged.step)

    def _logged(self, *, until: int) -> Iterator[Logged]:
        """What the run's folder has of the steps up to one, ascending."""
        values: dict[int, dict[str, Any]] = {}
        validation: dict[int, list[dict[str, Any]]] = {}
        for record in self._metrics.read():
            values.setdefault(record.pop("step"), {}).update(record)
        for record in self._validation.read():
            validation.setdefault(record.pop("step"), []).append(record)
        histograms = {
            record.pop("step"): {name: counts for name, counts in record.items() if are_counts(counts)}
            for record in self._histograms.read()
        }
        pictures = self._samples.steps()
        for step in sorted(values.keys() | validation.keys() | histograms.keys() | set(pictures)):
            if step <= until:
                numbers = values.get(step, {})
                yield Logged(
                    step,
                    is_again=True,
                    seconds=from_utc(numbers.pop("time", None)) or time.time(),
                    values=numbers,
                    validation=validation.get(step, ()),
                    histograms=histograms.get(step, {}),
                    sheet=self._samples.sheet(step),
                    crops=self._samples.crops(step),
                    references=self._samples.references() if pictures[:1] == [step] else {},
                )

    def _track(self, logged: Logged) -> None:
        if self.tracker:
            self.tracker.log(logged)

    def metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """Write one line of metrics.jsonl and send it to the tracker.

        Args:
            step: The training step.
            values: Numbers (and the digest, a string) by their logged name.
        """
        if not self.is_main:
            return
        self._metrics.append(step, [{"time": utc(), **values}])
        self._track(Logged(step, values=values))
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
        if self.tracker:
            self.tracker.commit(step)

    def logged_validations(self, step: int) -> list[dict[str, Any]]:
        """What metrics.jsonl has of the validations up to a step: ``step``, and the measures by name."""
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
            rows: For each image, in their order, ``image`` (its name) and the measures by name.
        """
        if self.is_main:
            self._validation.append(step, rows)
            self._track(Logged(step, validation=rows))

    def histograms(self, step: int, counts: Mapping[str, Sequence[int]]) -> None:
        """Write histograms of the discriminator's scores into histograms.jsonl.

        Args:
            step: The training step.
            counts: By logged name, how many scores are in each of `SCORE_BINS` bins of equal width in [0, 1].
        """
        if self.is_main and counts:
            self._histograms.append(step, [counts])
            self._track(Logged(step, histograms=counts))

    def references(self, pictures: Mapping[str, Mapping[str, Image.Image]]) -> None:
        """Write what generated crops are compared with into ``samples/IMAGE/``; only the first call does anything.

        Args:
            pictures: For each image, by a name that can be a folder's, the crops ``lr``, ``bicubic`` and ``hr``.
        """
        if self.is_main and not self._has_references:
            self._has_references = True
            self._samples.write_references(pictures)

    def samples(self, step: int, sheet: Image.Image, crops: Mapping[str, Image.Image]) -> None:
        """Write sample pictures into the run's folder, and send them to the tracker.

        Args:
            step: The training step.
            sheet: The contact sheet.
            crops: The generated crop of each image, by the names of `references`.
        """
        if not self.is_main:
            return
        self._samples.write(step, sheet, crops)
        is_first = self._samples.steps()[:1] == [step]
        references = self._samples.references() if is_first else {}
        paths = {image: path for image, path in self._samples.crops(step).items() if image in crops}
        self._track(Logged(step, sheet=self._samples.sheet(step), crops=paths, references=references))

    def finish(self, result: Mapping[str, Any], weights: Mapping[str, Path]) -> None:
        """Write result.json, at the end of a run that came to it.

        Args:
            result: Its content.
            weights: Files of weights: ``final``, and ``best`` where there are any.
        """
        if self.is_main:
            write_whole(self.folder / "result.json", strict_json.dumps(result, indent=2))
            if self.tracker:
                self.tracker.finish(result, weights)

    def close(self, ended_by: BaseException | None = None) -> None:
        """Leave the terminal as it was, and let the tracker know how the run ended.

        Args:
            ended_by: What ended the training; None: it came to its end.
        """
        self.progress.stop()
        if self.tracker:
            self.tracker.close(ended_by)


def _shared(info: Mapping[str, Any]) -> dict[str, Any]:
    """What of run.json is the same for all starts of a run."""
    return {name: value for name, value in info.items() if name != "starts"}
