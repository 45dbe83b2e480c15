"""What trackers get of a step: from the training as it runs, or again from the run's folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

SCORE_BINS = 64  # of equal width in [0, 1], for histograms of the discriminator's scores


def are_counts(value: object) -> bool:
    """Whether something that was read is a histogram of scores."""
    return isinstance(value, list) and len(value) == SCORE_BINS and all(type(count) is int for count in value)


@dataclass(frozen=True)
class Logged:
    """Something of one step; pictures are files in the run's folder.

    Attributes:
        step: The training step.
        values: Numbers and texts by logged name.
        validation: A line of val.jsonl for each image, without the step.
        histograms: By logged name, how many scores there are in each of `SCORE_BINS` bins.
        sheet: The contact sheet.
        crops: The generated crop of each image, by the image's name.
        references: With a run's first crops: what they are compared with, by the image's name and kind (``hr``).
        seconds: When it was logged, since 1970.
        is_again: Whether it was sent before, and may have been lost.
    """

    step: int
    values: Mapping[str, Any] = field(default_factory=dict)
    validation: Sequence[Mapping[str, Any]] = ()
    histograms: Mapping[str, Sequence[int]] = field(default_factory=dict)
    sheet: Path | None = None
    crops: Mapping[str, Path] = field(default_factory=dict)
    references: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)
    seconds: float = field(default_factory=time.time)
    is_again: bool = False


class Tracker(Protocol):
    """What `RunLogger` writes to besides the run's folder."""

    @property
    def last_step(self) -> int | None:
        """It has what was logged up to this step; None: it takes nothing any more."""
        ...

    def log(self, logged: Logged) -> None:
        """Take something of a step; steps ascend."""
        ...

    def commit(self, step: int) -> None:
        """Show what was logged of a step."""
        ...

    def finish(self, result: Mapping[str, Any], weights: Mapping[str, Path]) -> None:
        """Take the content of result.json and the files of weights, of a run that came to its end."""
        ...

    def close(self, ended_by: BaseException | None) -> None:
        """End; None: the run came to its end."""
        ...
