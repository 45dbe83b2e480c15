"""The measures of image quality: their names, which direction is better, and how they are written for people."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple


class Measure(NamedTuple):
    """How a measure is read.

    Attributes:
        goal: Which values are better.
        label: Its name, without the unit.
        unit: The unit, or nothing.
        digits: Digits behind the point.
        column: Its name in a table that is narrow.
    """

    goal: Literal["max", "min"]
    label: str
    unit: str
    digits: int
    column: str

    def exact(self, value: float) -> str:
        """A value as it stands beside others of the same images: with three digits behind the point, or more."""
        return f"{value:.{max(3, self.digits)}f}"

    @property
    def heading(self) -> str:
        """The name with the unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "psnr_y": Measure("max", "PSNR-Y", "dB", 2, "PSNR-Y"),
        "ssim_y": Measure("max", "SSIM-Y", "", 4, "SSIM-Y"),
        "perceptual": Measure("min", "perceptual distance", "", 4, "perceptual"),
        "lpips": Measure("min", "LPIPS", "", 4, "LPIPS"),
        "dists": Measure("min", "DISTS", "", 4, "DISTS"),
        "lpips_hed": Measure("min", "LPIPS (hed)", "", 4, "LPIPS hed"),
        "dists_hed": Measure("min", "DISTS (hed)", "", 4, "DISTS hed"),
        "grid": Measure("min", "grid", "", 2, "grid"),
    }
)
"""What a validation may measure, in the order in which it is shown; logged as ``val/NAME``."""

ALWAYS = ("psnr_y", "ssim_y", "perceptual")
"""Those that every record of a validation has, though the perceptual distance may be null."""
DISTANCES = ("lpips", "lpips_hed", "perceptual")
"""Distances to HR as people see it: the first that is measured stands against PSNR."""
