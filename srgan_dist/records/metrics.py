"""The measures by which runs are compared, and which direction is better."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

METRICS: Mapping[str, Literal["max", "min"]] = MappingProxyType(
    {"val/psnr_y": "max", "val/ssim_y": "max", "val/perceptual": "min"}
)
