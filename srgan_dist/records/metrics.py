"""The measures by which runs are compared, by the names under which they are logged."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from srgan_dist.utils.measures import MEASURES, Measure

LABELS: Mapping[str, Measure] = MappingProxyType({f"val/{name}": measure for name, measure in MEASURES.items()})
METRICS: Mapping[str, Literal["max", "min"]] = MappingProxyType({key: label.goal for key, label in LABELS.items()})
