"""The best weights of a run by its validations, kept so that they are right wherever the run resumes.

Weights that are among the best when they are validated go into ``weights/.best/step-000500.safetensors``, and stay
there as long as they are among the best of the run so far, or were so at a checkpoint that is kept.
``weights/best.safetensors`` and ``weights/front/`` are second names of those files (copies where the file system has no
hard links), made anew from the validations after every save and every start: what a run that was killed, or resumed
earlier, left of later steps does not survive.
"""

from __future__ import annotations

import filecmp
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from srgan_dist.utils.files import clear_leftovers, link_or_copy
from srgan_dist.utils.measures import MEASURES

log = logging.getLogger("srgan_dist")

_NAME = re.compile(r"step-(\d{6,})\.safetensors")


@dataclass(frozen=True)
class Validated:
    """What a validation measured.

    Attributes:
        step: The training step.
        values: Finite numbers by the names of `MEASURES`.
    """

    step: int
    values: Mapping[str, float]


class BestWeights:
    """Decides which weights of a run are kept as its best, and keeps their files.

    Every rank adds the same validations; the files are rank 0's.

    Args:
        folder: The run's folder of weights.
        by: The names of one or two values: of one the best is kept, of two all that no other dominates in both, and the
            best by the second is ``best.safetensors``. Of equal ones the first is kept.
    """

    def __init__(self, folder: Path, *, by: Sequence[str]) -> None:
        self.folder, self.by = folder, tuple(by)
        self.history: tuple[Validated, ...] = ()
        self._with_weights: frozenset[int] = frozenset()

    def add(self, step: int, quality: Mapping[str, float | None]) -> bool:
        """Note a validation.

        Args:
            step: The training step.
            quality: What was measured; other names, and what is not finite, count for nothing.

        Returns:
            Whether it is among the best, so that its weights must be written to `path`.
        """
        values = {name: quality.get(name) for name in MEASURES}
        finite = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
        self.history = (*self.history, Validated(step, finite))
        self._with_weights |= {step}
        return self.history[-1] in self._best(self.history)

    def path(self, step: int) -> Path:
        """Where the weights of a step go."""
        return self.folder / ".best" / f"step-{step:06d}.safetensors"

    def best_values(self) -> dict[str, dict[str, float]]:
        """For each measured value the best, and its step: ``{"psnr_y": {"value": 29.5, "step": 500}}``."""
        best = {}
        for name in MEASURES:
            if having := [one for one in self.history if name in one.values]:
                first = min(having, key=partial(_cost, by=(name,)))
                best[name] = {"value": first.values[name], "step": first.step}
        return best

    def state(self) -> list[dict[str, Any]]:
        """The validations so far, for JSON."""
        return [{"step": one.step, **one.values} for one in self.history]

    def load(self, state: Iterable[Mapping[str, Any]], having_weights: Iterable[int]) -> None:
        """Restore a `state`.

        Args:
            state: The validations.
            having_weights: The steps whose weights are there; the others' cannot be among those that are kept.
        """
        self.history = tuple(
            Validated(one["step"], {name: value for name, value in one.items() if name in MEASURES}) for one in state
        )
        everything = frozenset(one.step for one in self.history)
        self._with_weights = everything
        best = {one.step for one in self._best(self.history)}
        self._with_weights = everything & set(having_weights)
        if lost := best - self._with_weights:
            steps = ", ".join(map(str, sorted(lost)))
            log.info(
                "%s: lacks the best weights so far, of step %s: later ones compete without them", self.folder, steps
            )

    def steps_on_disk(self) -> list[int]:
        """The steps of weights in the folder."""
        found = (_NAME.fullmatch(path.name) for path in (self.folder / ".best").glob("step-*"))
        return [int(name[1]) for name in found if name]

    def arrange(self, checkpoints: Iterable[int], *, history: Sequence[Validated]) -> None:
        """Give the best weights their names, and remove weights that are among the best of no checkpoint; on rank 0.

        Args:
            checkpoints: Steps of the checkpoints that are kept.
            history: The validations up to the last weights that are written.

        Raises:
            OSError: A file cannot be written.
        """
        best = self._best(history)
        names = {self.folder / "front" / self.path(one.step).name: one for one in best if len(self.by) > 1}
        if best:
            names[self.folder / "best.safetensors"] = best[-1]
        for path, one in names.items():
            source = self.path(one.step)
            if not (path.is_file() and (path.samefile(source) or filecmp.cmp(path, source, shallow=False))):
                path.parent.mkdir(exist_ok=True)
                link_or_copy(source, path)
        former = {self.folder / "best.safetensors", *(self.folder / "front").glob("step-*.safetensors")}
        for path in former - names.keys():
            path.unlink(missing_ok=True)
        needed = {one.step for one in best}
        for step in checkpoints:
            needed |= {one.step for one in self._best([one for one in history if one.step <= step])}
        for step in set(self.steps_on_disk()) - needed:
            self.path(step).unlink(missing_ok=True)

    def clear_leftovers(self) -> None:
        """Remove what a process left that was killed while it wrote."""
        for folder in (self.folder, self.folder / "front", self.folder / ".best"):
            clear_leftovers(folder)

    def _best(self, history: Iterable[Validated]) -> list[Validated]:
        """Those whose weights are there and which no other one dominates, from the best by the first value on."""
        rivals = [one for one in history if one.step in self._with_weights and one.values.keys() >= set(self.by)]
        best: list[Validated] = []
        for one in sorted(rivals, key=partial(_cost, by=self.by)):
            if not best or _cost(one, self.by)[-2] < _cost(best[-1], self.by)[-2]:
                best.append(one)
        return best


def _cost(one: Validated, by: Iterable[str]) -> tuple[float, ...]:
    """Values that are smaller where a validation is better, and its step, as of equal ones the first is meant."""
    return (*(-one.values[name] if MEASURES[name].goal == "max" else one.values[name] for name in by), one.step)
