from __future__ import annotations

from typing import Any

import pytest

from srgan_dist.degradations.ranges import SECOND_STAGE, StageRanges


def test_the_second_stage_is_milder() -> None:
    first = StageRanges()
    assert SECOND_STAGE.blur_sigma[1] < first.blur_sigma[1]
    assert SECOND_STAGE.resize_range == (0.3, 1.2)
    assert SECOND_STAGE.kernel_probabilities == first.kernel_probabilities


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("blur_probability", 1.1, "blur_probability must be from 0 to 1, got 1.1"),
        ("grey_probability", -0.1, "grey_probability must be from 0 to 1, got -0.1"),
        ("sinc_probability", float("nan"), "from 0 to 1"),
        ("kernel_sizes", (7, 23), "kernel_sizes must be two ascending numbers from 3 to 21"),
        ("kernel_sizes", (8, 20), "kernel_sizes must be odd"),
        ("kernel_probabilities", (0.5, 0.5), "6 numbers >= 0 of sum 1"),
        ("kernel_probabilities", (0.5, 0.6, 0, 0, 0, -0.1), "6 numbers >= 0 of sum 1"),
        ("resize_probabilities", (0.3, 0.3, 0.3), "3 numbers >= 0 of sum 1"),
        ("blur_sigma", (0, 1), "blur_sigma must be two ascending numbers from 0.001"),
        ("blur_sigma", (2, 1), "ascending"),
        ("resize_range", (1.1, 1.5), "resize_range must reach from at most 1 to at least 1"),
        ("generalised_beta", (0.5, 0.9), "generalised_beta must reach"),
        ("gaussian_sigma", (-1, 30), "gaussian_sigma must be two ascending numbers from 0 to 255"),
        ("poisson_scale", (0.1, float("nan")), "poisson_scale"),
        ("jpeg_quality", (0, 95), "jpeg_quality must be two ascending numbers from 1 to 100"),
    ],
)
def test_wrong_values_are_refused(name: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("+", r"\+")):
        StageRanges(**{name: value})
