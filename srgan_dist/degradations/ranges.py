"""What Real-ESRGAN's two stages draw from, and checks of single values."""

from __future__ import annotations

from dataclasses import dataclass

Range = tuple[float, float]


def check_range(name: str, limits: Range, lowest: float, highest: float) -> None:
    """Refuse a range that is not ascending or exceeds its limits.

    Args:
        name: Name of the argument.
        limits: The range: its least and greatest value.
        lowest: Lowest allowed value.
        highest: Highest allowed value.

    Raises:
        ValueError: The range is not valid.
    """
    if len(limits) != 2 or not lowest <= limits[0] <= limits[1] <= highest:
        raise ValueError(f"{name} must be two ascending numbers from {lowest:g} to {highest:g}, got {limits}")


def check_probability(name: str, value: float) -> None:
    """Refuse a value that is not a probability.

    Args:
        name: Name of the argument.
        value: Value of the argument.

    Raises:
        ValueError: The value is not in [0, 1].
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be from 0 to 1, got {value}")


@dataclass(frozen=True)
class StageRanges:
    """The ranges of one of the two stages: blur, resize, noise, JPEG.

    Values and limits stand once, in the configuration: `FirstStageConfig` and `SecondStageConfig`.

    Attributes:
        blur_probability: Probability of blurring at all, 0..1.
        kernel_sizes: Least and greatest side of a kernel in pixels, odd, 3..21.
        kernel_probabilities: Probabilities of isotropic and anisotropic Gaussian, generalised Gaussian and
            plateau-shaped kernels; sum 1.
        sinc_probability: Probability of a sinc kernel instead of those, 0..1.
        blur_sigma: Standard deviation of kernels in pixels, > 0.
        generalised_beta: Shape of generalised Gaussians, > 0; half of the draws are below 1, half above.
        plateau_beta: Shape of plateaus, drawn in the same manner.
        resize_probabilities: Probabilities of enlarging, of shrinking, of neither; sum 1.
        resize_range: Least factor (at most 1) and greatest factor (at least 1).
        gaussian_probability: Probability of Gaussian noise, otherwise Poisson, 0..1.
        gaussian_sigma: Standard deviation in 8-bit levels, >= 0.
        poisson_scale: Factor on photon noise, >= 0.
        grey_probability: Probability of the same noise in all channels, 0..1.
        jpeg_quality: Quality of JPEG, whole numbers, 1..100.

    Source:
        Wang et al., "Real-ESRGAN", 2021, section 4.1.
    """

    blur_probability: float
    kernel_sizes: tuple[int, int]
    kernel_probabilities: tuple[float, ...]
    sinc_probability: float
    blur_sigma: Range
    generalised_beta: Range
    plateau_beta: Range
    resize_probabilities: tuple[float, ...]
    resize_range: Range
    gaussian_probability: float
    gaussian_sigma: Range
    poisson_scale: Range
    grey_probability: float
    jpeg_quality: tuple[int, int]
