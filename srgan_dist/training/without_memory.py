"""Tensors that have a shape but no data: networks run on them as on others, at no cost of memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from srgan_dist.models.features import FeatureNetwork

NEEDS_VALUES = (DataDependentOutputException, DynamicOutputShapeException)
"""What a network raises whose computation depends on the values of a tensor."""

# The one warns of untrained weights, which have no values here; the other prints each error that it raises.
_BESIDE_THE_POINT = (FeatureNetwork.__module__, fake_tensor.__name__)


@contextmanager
def without_memory() -> Iterator[None]:
    """All tensors that are created within have a shape but no data."""
    logs = [logging.getLogger(name) for name in _BESIDE_THE_POINT]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL)
    try:
        # Networks of others keep some tensors that are neither parameters nor buffers, such as a mean colour.
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
