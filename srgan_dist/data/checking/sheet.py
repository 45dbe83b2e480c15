"""The contact sheet of a check: random pairs, and how their LR differs from the standard downscale."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srgan_dist.data.checking.sample import InspectedSample
from srgan_dist.imaging.contact_sheet import busiest_crop, contact_sheet
from srgan_dist.imaging.resize import downscale, modcrop

_ROWS = 8
_SIDE = 192  # HR pixels, the side of a crop
_GAIN = 16  # a difference of one level would be invisible


class PairSheet:
    """Keeps crops of a few pairs, drawn with equal probability from all pairs seen.

    Attributes:
        num_seen: Pairs seen so far.
    """

    def __init__(self) -> None:
        self.num_seen = 0
        self._random = random.Random(0)
        self._rows: list[tuple[NDArray[np.uint8], ...]] = []

    def add(self, sample: InspectedSample) -> None:
        """Add a sample, if its pixels were decoded and its sizes fit.

        Args:
            sample: From the checker.
        """
        scale, hr = sample.scale, sample.hr.pixels
        if scale is None or hr is None or min(hr.shape[:2]) < scale:
            return
        hr = modcrop(hr, scale)
        lr = sample.lr.pixels if sample.lr else None
        if sample.lr and (lr is None or lr.shape[:2] != (hr.shape[0] // scale, hr.shape[1] // scale)):
            return
        self.num_seen += 1
        place = len(self._rows) if len(self._rows) < _ROWS else self._random.randrange(self.num_seen)
        if place < _ROWS:
            standard = downscale(hr, scale)
            self._rows[place : place + 1] = [_crops(hr, standard if lr is None else lr, standard, scale)]

    def draw(self) -> Image.Image:
        """Lay out the pairs: HR, LR enlarged by nearest neighbour, and its difference from the standard LR.

        Returns:
            The sheet; at least one pair must have been seen.
        """
        labels = ["HR", "LR", f"|LR - standard LR| x {_GAIN}"]
        side = max(max(row[0].shape[:2]) for row in self._rows)
        return contact_sheet(labels, [[_on_square(crop, side) for crop in row] for row in self._rows])


def _crops(
    hr: NDArray[np.uint8], lr: NDArray[np.uint8], standard: NDArray[np.uint8], scale: int
) -> tuple[NDArray[np.uint8], ...]:
    side = max(min(_SIDE, *hr.shape[:2]) // scale, 1) * scale
    top, left = busiest_crop(hr, side=side, multiple=scale)
    place = slice(top // scale, (top + side) // scale), slice(left // scale, (left + side) // scale)
    difference = np.abs(lr[place].astype(np.int16) - standard[place]) * _GAIN
    large = (
        x.repeat(scale, axis=0).repeat(scale, axis=1) for x in (lr[place], difference.clip(0, 255).astype(np.uint8))
    )
    return (hr[top : top + side, left : left + side].copy(), *large)


def _on_square(crop: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.pad(crop, ((0, side - crop.shape[0]), (0, side - crop.shape[1]), (0, 0)), constant_values=255)
