"""TensorBoard: one stream of events a run, in which each step is once, however often the training is started again."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from srgan_dist.errors import UserError
from srgan_dist.tracking.logged import SCORE_BINS, Logged
from srgan_dist.tracking.sample_files import read_sample
from srgan_dist.utils.dotted import flat

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_SUFFIX = ".srgan-dist"  # of the files that are ours to replace


class TensorBoardRun:
    """Writes ``tensorboard/`` in the run's folder anew at every start: what was logged before comes from the records.

    So there is one file, without what a killed process had logged of steps that are taken again, and with what it had
    not yet written.

    Args:
        folder: The training's folder.
        config: The resolved configuration: the hyper-parameters.
        goals: For each metric that runs are compared by, ``min`` or ``max``.
    """

    last_step = 0  # nothing of what was logged before is in the new file

    def __init__(self, folder: Path, *, config: Mapping[str, Any], goals: Mapping[str, str]) -> None:
        self.folder, self.config, self.goals = folder / "tensorboard", config, goals
        self._writer: SummaryWriter | None = None
        self._ended: Any = None

    def start(self) -> None:
        """Begin a new file.

        Raises:
            UserError: TensorBoard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
            from torch.utils.tensorboard.summary import hparams
        except ImportError:
            missing = "tracker.name is tensorboard, which is not installed"
            raise UserError(f"{missing}: pip install 'srgan-dist[tensorboard]', or choose wandb or none") from None
        for old in self.folder.glob(f"events.out.tfevents.*{_SUFFIX}"):
            old.unlink()
        # Hides what a server that is running has read before, and what earlier versions wrote, in files of their own.
        self._writer = SummaryWriter(str(self.folder), purge_step=0, filename_suffix=_SUFFIX)
        # Not `add_hparams`, which begins another stream for them. Their metrics are the last values of these names.
        *begins, self._ended = hparams(_hyper_parameters(self.config), dict.fromkeys(self.goals, 0.0))  # type: ignore[no-untyped-call]
        for summary in begins:
            self._file_writer.add_summary(summary)

    @property
    def _file_writer(self) -> Any:
        assert self._writer
        return self._writer.file_writer

    def log(self, logged: Logged) -> None:
        """Write something of a step."""
        writer, step, seconds = self._writer, logged.step, logged.seconds
        assert writer
        for name, value in logged.values.items():
            if name == "alert":
                writer.add_text(name, str(value), step, seconds)
            elif isinstance(value, (int, float)):
                writer.add_scalar(name, value, step, seconds)
        for name, counts in logged.histograms.items():
            self._add_histogram(name, counts, step, seconds)
        pictures = {f"samples/{image}": path for image, path in logged.crops.items()}
        for image, crops in logged.references.items():
            pictures |= {f"samples/{image}/{kind}": path for kind, path in crops.items()}
        if logged.sheet:
            pictures["samples"] = logged.sheet
        for name, path in pictures.items():
            if picture := read_sample(path):
                writer.add_image(name, np.asarray(picture), step, seconds, dataformats="HWC")

    def _add_histogram(self, name: str, counts: Any, step: int, seconds: float) -> None:
        edges = [edge / SCORE_BINS for edge in range(SCORE_BINS + 1)]
        middles = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
        assert self._writer
        self._writer.add_histogram_raw(
            name,
            min=0.0,
            max=1.0,
            num=sum(counts),
            sum=sum(count * middle for count, middle in zip(counts, middles, strict=True)),
            sum_squares=sum(count * middle**2 for count, middle in zip(counts, middles, strict=True)),
            bucket_limits=edges[1:],
            bucket_counts=list(counts),
            global_step=step,
            walltime=seconds,
        )

    def commit(self, step: int) -> None:
        """Events are written as they come."""

    def finish(self, result: Mapping[str, Any], weights: Mapping[str, Path]) -> None:  # noqa: ARG002 - a tracker's
        """Note that the run came to its end."""
        self._file_writer.add_summary(self._ended)

    def close(self, ended_by: BaseException | None) -> None:  # noqa: ARG002 - a tracker's
        """Write what is left."""
        if self._writer:
            self._writer.close()
            self._writer = None


def _hyper_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration on one level, and only what TensorBoard can show."""
    return {
        key: value if isinstance(value, (bool, int, float, str)) else str(value) for key, value in flat(config).items()
    }
