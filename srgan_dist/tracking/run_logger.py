"""What a run leaves for people: metrics.jsonl, the experiment tracker, the progress bar."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from srgan_dist.errors import UserError
from srgan_dist.utils.files import write_whole

if TYPE_CHECKING:
    from accelerate import Accelerator
    from PIL import Image

log = logging.getLogger("srgan_dist")
console = Console(stderr=True)

_REACH_SECONDS = 3.0
_FINISH_SECONDS = 60.0


def setup_logging(*, is_main: bool) -> None:
    """Send the project's log to stderr: in colour above the progress bar on a terminal, else as plain lines.

    Args:
        is_main: Only rank 0 tells; the others tell warnings and worse.
    """
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_level=False, omit_repeated_times=False)
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO if is_main else logging.WARNING)
    log.propagate = False


@contextlib.contextmanager
def default_logging(*, is_main: bool) -> Iterator[None]:
    """Around a run that a program starts: `setup_logging`, where nobody else would show the project's lines.

    A program that has decided on them, by a handler or a level for ``srgan_dist`` or by a root logger that takes INFO,
    is left alone.

    Args:
        is_main: As in `setup_logging`.
    """
    decided = log.handlers or log.level != logging.NOTSET or (log.hasHandlers() and log.isEnabledFor(logging.INFO))
    if decided:
        yield
        return
    setup_logging(is_main=is_main)
    try:
        yield
    finally:
        log.handlers.clear()
        log.setLevel(logging.NOTSET)
        log.propagate = True


class RunLogger:
    """Records of a run; every call is for rank 0 alone and does nothing elsewhere.

    Args:
        folder: The run's folder.
        accelerator: Holds the tracker.
        num_steps: Steps of the whole run, for the progress bar.
        tracker: wandb, tensorboard or none.
        project: Project of the tracker.
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
        tracker: str = "none",
        project: str = "",
        group: str | None = None,
        tags: tuple[str, ...] = (),
        config: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.folder = folder
        self.accelerator, self.tracker = accelerator, tracker
        self.project, self.group, self.tags, self.config = project, group, tags, config
        self.num_steps = num_steps
        self.is_main = accelerator.is_main_process
        self.tracker_id: str | None = None
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            disable=not (self.is_main and console.is_terminal),
            transient=False,
        )
        self.started = time.monotonic()
        self.first_step = 0

    @property
    def path(self) -> Path:
        return self.folder / "metrics.jsonl"

    def start(self, *, step: int, tracker_id: str | None) -> None:
        """Begin, or go on after ``step``: lines of later steps, which will be done again, are dropped."""
        self.first_step = step
        self.started = time.monotonic()
        if not self.is_main:
            return
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if _step_of(line) <= step]
            if len(kept) != len(lines):
                write_whole(self.path, "".join(kept))
        self.tracker_id = self._start_tracker(tracker_id)
        self.task = self.progress.add_task("train", total=self.num_steps, completed=step, note="")
        self.progress.start()

    def _start_tracker(self, tracker_id: str | None) -> str | None:
        if self.tracker == "wandb":
            return self._start_wandb(tracker_id)
        if self.tracker == "tensorboard":
            if not self.accelerator.log_with:  # accelerate leaves out what is not installed, without a word
                missing = "tracker.name is tensorboard, which is not installed"
                raise UserError(f"{missing}: pip install 'srgan-dist[tensorboard]', or choose wandb or none")
            self.accelerator.init_trackers("tensorboard", config=_flatten(self.config))
        return None

    def _start_wandb(self, tracker_id: str | None) -> str:
        import wandb

        mode, why = wandb_mode()
        if why:
            log.info(
                "W&B: %s: logging offline under %s; upload later with 'wandb sync'",
                why,
                self.folder / "wandb",
            )
        options: dict[str, Any] = {
            "mode": mode,
            "dir": str(self.folder),
            "name": self.folder.name,
            "group": self.group,
            "tags": list(self.tags),
            "settings": wandb.Settings(
                silent=True, init_timeout=30, finish_timeout=_FINISH_SECONDS, x_graphql_retry_max=2
            ),
        }
        if tracker_id:
            options |= {"id": tracker_id, "resume": "allow"}
        try:
            self.accelerator.init_trackers(self.project, config=dict(self.config), init_kwargs={"wandb": options})
        except (wandb.errors.CommError, wandb.errors.AuthenticationError, wandb.errors.UsageError) as error:
            log.warning("W&B: %s: logging offline", " ".join(str(error).split()))
            self.accelerator.trackers.clear()
            wandb.teardown()
            options["mode"] = "offline"
            self.accelerator.init_trackers(self.project, config=dict(self.config), init_kwargs={"wandb": options})
        run = self.accelerator.get_tracker("wandb", unwrap=True)
        run.define_metric("*", step_metric="step")
        if run.url:
            log.info("W&B: %s", run.url)
        return str(run.id)

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
            file.write(json.dumps(record) + "\n")
        numbers = {key: value for key, value in record.items() if not isinstance(value, str)}
        for tracker in self.accelerator.trackers:
            if tracker.name == "wandb":
                # W&B's own step must only grow, also through a resume; ours is a metric like the others.
                self._send(lambda run: run.log(record))
            else:
                tracker.log(numbers, step=step)
        self.note(step, values)

    def _send(self, action: Callable[[Any], object]) -> None:
        """Tell W&B's run something. Its own process may have died: schedulers send SIGTERM to all of a job's."""
        tracker = self.accelerator.get_tracker("wandb")
        try:
            action(tracker.tracker)
        except Exception as error:  # noqa: BLE001 - OSError and several private kinds
            log.warning("W&B: lost its process (%s); metrics.jsonl goes on without it", " ".join(str(error).split()))
            self.accelerator.trackers.remove(tracker)
            import wandb

            with contextlib.suppress(Exception):  # it would be told again at the end of the process
                wandb.teardown()

    def note(self, step: int, values: Mapping[str, Any]) -> None:
        """Show the numbers on the bar; without a terminal, as a plain line with the time left."""
        short = {"g/total": "g", "d/loss": "d", "val/psnr_y": "PSNR-Y", "perf/images_per_second": "img/s"}
        note = "  ".join(f"{label} {values[name]:.4g}" for name, label in short.items() if name in values)
        if console.is_terminal:
            self.progress.update(self.task, completed=step, note=note)
        else:
            log.info("step %d/%d  %s  %s left", step, self.num_steps, note, self._time_left(step))

    def _time_left(self, step: int) -> str:
        per_step = (time.monotonic() - self.started) / max(step - self.first_step, 1)
        seconds = round(per_step * (self.num_steps - step))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"

    def advance(self, step: int) -> None:
        """Move the progress bar."""
        if self.is_main:
            self.progress.update(self.task, completed=step)

    def images(self, step: int, picture: Image.Image) -> None:
        """Write a picture into the run's folder, and send it to the tracker."""
        if not self.is_main:
            return
        path = self.folder / "samples" / f"step-{step:06d}.png"
        path.parent.mkdir(exist_ok=True)
        picture.save(path)
        for tracker in self.accelerator.trackers:
            if tracker.name == "wandb":
                import wandb

                sample = {"samples": wandb.Image(picture), "step": step}
                self._send(functools.partial(_log, values=sample))
            else:
                tracker.log_images({"samples": np.asarray(picture)[None]}, step=step, dataformats="NHWC")

    def close(self, *, failed: bool) -> None:
        """Leave the terminal as it was, and tell W&B if the run failed; trackers end with the runtime."""
        self.progress.stop()
        if self.is_main and any(tracker.name == "wandb" for tracker in self.accelerator.trackers):
            self._send(lambda run: run.finish(exit_code=int(failed)))


def _log(run: Any, values: Mapping[str, Any]) -> None:
    run.log(values)


def _step_of(line: str) -> float:
    with contextlib.suppress(json.JSONDecodeError, KeyError, TypeError):
        return float(json.loads(line)["step"])
    return float("inf")  # a line cut off by a crash belongs to no step


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """TensorBoard's hyper-parameters: one level, and only what it can show."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return flat


def wandb_mode() -> tuple[str, str]:
    """Decide before `wandb.init`, which would prompt, or wait for minutes. Returns the mode and why not online."""
    import wandb

    settings = wandb.setup().settings
    if settings.mode in ("offline", "disabled", "shared"):
        return settings.mode, ""
    if not wandb.login(prompt=False, verify=False):
        return "offline", "no API key (WANDB_API_KEY, or 'wandb login')"
    url = urlsplit(settings.base_url)
    if url.scheme in getproxies():
        return "online", ""  # only the proxy can tell, and W&B asks it
    try:
        port = url.port or (443 if url.scheme == "https" else 80)
        socket.create_connection((url.hostname or "", port), timeout=_REACH_SECONDS).close()
    except OSError as error:
        return "offline", f"{url.hostname} does not answer ({error})"
    return "online", ""


def simple_progress(console: Console, *, unit: str) -> Progress:
    """A progress bar for the tools; invisible without a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal)


@contextlib.contextmanager
def progress_report(text: str, unit: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on a terminal; elsewhere nothing."""
    with simple_progress(console, unit=unit) as progress:
        task: Any = progress.add_task(text, total=None)

        def report(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total)

        yield report


def result_table(result: Mapping[str, Any]) -> Table:
    """The content of result.json as a table."""
    table = Table(title=f"{result['steps']} steps, {result['images']} crops, {result['seconds']:.0f} s")
    for column in ("validation images", "PSNR-Y (dB)", "SSIM-Y", "perceptual distance"):
        table.add_column(column, justify="left" if column.startswith("valid") else "right")
    names = {"bicubic": "bicubic", "pretrained": "after pretraining", "final": "at the end"}
    for key, name in names.items():
        if key in result:
            quality = result[key]
            perceptual = "" if quality["perceptual"] is None else f"{quality['perceptual']:.4f}"
            table.add_row(name, f"{quality['psnr_y']:.3f}", f"{quality['ssim_y']:.4f}", perceptual)
    return table
