"""How the metrics of a validation are written for people."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Label(NamedTuple):
    """A metric's name.

    Attributes:
        text: The name, without the unit.
        unit: The unit, or nothing.
        digits: Digits behind the point.
    """

    text: str
    unit: str
    digits: int


LABELS: Mapping[str, Label] = MappingProxyType(
    {
        "val/psnr_y": Label("PSNR-Y", "dB", 2),
        "val/ssim_y": Label("SSIM-Y", "", 4),
        "val/perceptual": Label("perceptual", "", 4),
    }
)
