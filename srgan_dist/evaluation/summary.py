"""What the measures of single images add up to: means, how sure they are, and whether bicubic's is the known one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
_SEED = 0
_INSIDE = (2.5, 97.5)  # percent
_TOLERANCE = 0.05  # dB: published tables differ by up to 0.03 for one set, as some round Y to whole levels

BICUBIC: Mapping[tuple[str, int], Mapping[int, float]] = MappingProxyType(
    {
        ("set5", 5): {2: 33.66, 3: 30.39, 4: 28.42},
        # Of Lai et al. 2017; x3, which they lack, as measured here. Tables that have 30.24, 27.55 and 26.00 are of
        # other versions of its images.
        ("set14", 14): {2: 30.34, 3: 27.63, 4: 26.10},
        ("bsd100", 100): {2: 29.56, 3: 27.21, 4: 25.96},
        ("urban100", 100): {2: 26.88, 3: 24.46, 4: 23.14},
        ("manga109", 109): {2: 30.80, 3: 26.95, 4: 24.89},
    }
)
"""PSNR-Y of bicubic upscaling, by the set's name, the number of its images and the scale (Lim et al. 2017, table 3;
Zhang et al. 2018, RCAN, table 2)."""


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of those that are there; None where none is."""
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None


def interval(values: Sequence[float | None]) -> list[float] | None:
    """The 95 % interval of a mean over images, by the percentiles of means of images that are drawn again.

    Args:
        values: Of the images; None is left out.

    Returns:
        Its low and its high end, always the same for the same values; None for fewer than two images.

    Source:
        Efron 1979, bootstrap.
    """
    found: NDArray[np.float64] = np.array([value for value in values if value is not None], dtype=np.float64)
    if len(found) < 2:
        return None
    drawn = np.random.default_rng(_SEED).integers(len(found), size=(RESAMPLES, len(found)))
    low, high = np.percentile(found[drawn].mean(axis=1), _INSIDE)
    return [float(low), float(high)]


def summarise(rows: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> dict[str, Any]:
    """The means of several methods over the same images.

    Args:
        rows: Of each image, the measures of each method. None is what could not be measured, such as the PSNR of an
            image that is identical to HR: such an image counts for no method.
        methods: Their names.

    Returns:
        Of each method its means; ``identical``, the number of images that are in no mean of PSNR; and ``intervals``: of
        each method those of its means.
    """
    columns: dict[str, dict[str, list[float | None]]] = {method: {} for method in methods}
    for name in rows[0][methods[0]]:
        kept = [row for row in rows if all(row[method][name] is not None for method in methods)]
        for method in methods:
            columns[method][name] = [row[method][name] for row in kept]
    return {
        **{method: {name: mean(values) for name, values in of.items()} for method, of in columns.items()},
        "identical": len(rows) - len(columns[methods[0]]["psnr_y"]),
        "intervals": {
            method: {name: interval(values) for name, values in of.items()} for method, of in columns.items()
        },
    }


def bicubic_check(name: str, *, count: int, scale: int, psnr_y: float | None) -> str | None:
    """Compare bicubic's PSNR-Y on a known test set with the published value.

    Args:
        name: Of the set: its folder.
        count: Number of images.
        scale: Factor between LR and HR.
        psnr_y: Bicubic's mean.

    Returns:
        One line where they differ; None where they agree, or nothing is known of such a set.
    """
    published = BICUBIC.get((_plain(name), count), {}).get(scale)
    if published is None or psnr_y is None or abs(psnr_y - published) <= _TOLERANCE:
        return None
    return (
        f"{name} x{scale}: bicubic has {psnr_y:.2f} dB, and {published:.2f} in the literature: these are other images, "
        "or LR images that were made in another way, so that the numbers of papers do not compare"
    )


def _plain(name: str) -> str:
    """A set's name without case and separators: ``BSDS100`` and ``B100`` are ``bsd100``."""
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    return {"bsds100": "bsd100", "b100": "bsd100"}.get(plain, plain)
