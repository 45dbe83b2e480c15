"""The output of a check of shards: its findings, and the summary at the end."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from srgan_dist.data.checking.image import ImageHeader


class Finding(NamedTuple):
    """One line of output.

    Attributes:
        shard: The tar, or the index or manifest beside it.
        member: Name of the member, or "".
        offset: Offset of the member's data, or of its header where that is damaged; None for the whole file.
        what: What is wrong.
        is_fault: Whether it makes the data unsound; otherwise it is a note.
    """

    shard: Path
    member: str
    offset: int | None
    what: str
    is_fault: bool = True

    def __str__(self) -> str:
        """Format the line: shard, member, offset, what."""
        member = f"member {self.member!r} " if self.member else ""  # repr: names may contain line breaks
        offset = "" if self.offset is None else f"at offset {self.offset}"
        parts = (str(self.shard), f"{member}{offset}".strip(), "" if self.is_fault else "note", self.what)
        return ": ".join(part for part in parts if part)


@dataclass
class Summary:
    """Counts of a whole run, and the sides of all HR images, 8 bytes for each image, for the median."""

    num_faults: int = 0
    num_notes: int = 0
    num_shards: int = 0
    num_pairs: int = 0
    num_single: int = 0
    num_inspected: int = 0
    num_bytes: int = 0
    seconds: float = 0.0
    encodings: Counter[str] = field(default_factory=Counter)
    sides: tuple[array[int], array[int]] = field(default_factory=lambda: (array("I"), array("I")))

    def count(self, hr: ImageHeader, lr: ImageHeader | None, *, inspected: bool) -> None:
        """Count one sample.

        Args:
            hr: Header of its HR image.
            lr: Header of its LR image; None where it is made during training.
            inspected: Whether its pixels were inspected.
        """
        self.num_pairs += lr is not None
        self.num_single += lr is None
        self.num_inspected += inspected
        self.encodings[f"hr {hr.encoding}"] += 1
        if lr:
            self.encodings[f"lr {lr.encoding}"] += 1
        self.sides[0].append(hr.height)
        self.sides[1].append(hr.width)

    def lines(self) -> list[str]:
        """Format the summary: counts, bytes, sizes (minimum, median, maximum), encodings, speed."""
        samples = self.num_pairs + self.num_single
        size = self.num_bytes / 2**20
        lines = [
            f"{self.num_shards} shards, {size:.1f} MiB: {samples} samples ({self.num_pairs} pairs, {self.num_single} "
            f"HR alone), pixels of {self.num_inspected} inspected"
        ]
        if self.sides[0]:
            height, width = (np.percentile(np.array(side), [0, 50, 100]).round().astype(int) for side in self.sides)
            lines.append(
                f"HR height {' / '.join(map(str, height))}, width {' / '.join(map(str, width))} "
                "(minimum / median / maximum)"
            )
            lines.append("encodings: " + ", ".join(f"{kind} {n}" for kind, n in sorted(self.encodings.items())))
        speed = size / max(self.seconds, 1e-9)
        lines.append(f"{self.num_faults} faults, {self.num_notes} notes; {self.seconds:.1f} s, {speed:.0f} MiB/s")
        return lines
