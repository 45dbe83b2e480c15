"""The ranges of Real-ESRGAN's stages: the published values, and limits that refuse what means nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.degradations.stages import first_stage, second_stage


def test_the_second_stage_is_milder() -> None:
    first, second = first_stage(), second_stage()
    assert second.blur_sigma[1] < first.blur_sigma[1]
    assert second.resize_range == (0.3, 1.2)
    assert second.kernel_probabilities == first.kernel_probabilities


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("blur_probability", 1.1, "less than or equal to 1"),
        ("grey_probability", -0.1, "greater than or equal to 0"),
        ("sinc_probability", float("nan"), "finite number"),
        ("kernel_sizes", (7, 23), "less than or equal to 21"),
        ("kernel_sizes", (8, 20), "sides must be odd"),
        ("kernel_probabilities", (0.5, 0.5), "Field required"),
        ("kernel_probabilities", (0.5, 0.6, 0, 0, 0, -0.1), "greater than or equal to 0"),
        ("resize_probabilities", (0.3, 0.3, 0.3), "must have sum 1"),
        ("blur_sigma", (0, 1), "greater than or equal to 0.001"),
        ("blur_sigma", (2, 1), "must ascend"),
        ("resize_range", (1.1, 1.5), "must reach from at most 1 to at least 1"),
        ("generalised_beta", (0.5, 0.9), "must reach from at most 1 to at least 1"),
        ("gaussian_sigma", (-1, 30), "greater than or equal to 0"),
        ("poisson_scale", (0.1, float("nan")), "finite number"),
        ("jpeg_quality", (0, 95), "greater than or equal to 1"),
    ],
)
def test_wrong_values_are_refused(name: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        first_stage(**{name: value})
    assert name in str(caught.value)
