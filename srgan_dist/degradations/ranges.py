"""The ranges that Real-ESRGAN's two stages draw from, and their validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from srgan_dist.degradations.kernels import RADIUS

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


def _check_sum(name: str, values: Sequence[float], count: int) -> None:
    if len(values) != count or min(values) < 0 or abs(sum(values) - 1) > 1e-6:
        raise ValueError(f"{name} must be {count} numbers >= 0 of sum 1, got {values}")


@dataclass(frozen=True)
class StageRanges:
    """The ranges of one of the two stages: blur, resize, noise, JPEG. The defaults are the first stage's.

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

    Raises:
        ValueError: A value is outside its limits.

    Source:
        Wang et al., "Real-ESRGAN", 2021, section 4.1, and the published training options
        (options/train_realesrgan_x4plus.yml of its repository), whose ranges these are.
    """

    blur_probability: float = 1.0
    kernel_sizes: tuple[int, int] = (7, 21)
    kernel_probabilities: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    sinc_probability: float = 0.1
    blur_sigma: Range = (0.2, 3.0)
    generalised_beta: Range = (0.5, 4.0)
    plateau_beta: Range = (1.0, 2.0)
    resize_probabilities: tuple[float, ...] = (0.2, 0.7, 0.1)
    resize_range: Range = (0.15, 1.5)
    gaussian_probability: float = 0.5
    gaussian_sigma: Range = (1.0, 30.0)
    poisson_scale: Range = (0.05, 3.0)
    grey_probability: float = 0.4
    jpeg_quality: tuple[int, int] = (30, 95)

    def __post_init__(self) -> None:
        for name in ("blur_probability", "sinc_probability", "gaussian_probability", "grey_probability"):
            check_probability(name, getattr(self, name))
        _check_sum("kernel_probabilities", self.kernel_probabilities, 6)
        _check_sum("resize_probabilities", self.resize_probabilities, 3)
        check_range("kernel_sizes", self.kernel_sizes, 3, 2 * RADIUS + 1)
        if not all(size % 2 for size in self.kernel_sizes):
            raise ValueError(f"kernel_sizes must be odd, got {self.kernel_sizes}")
        for name in ("blur_sigma", "generalised_beta", "plateau_beta", "resize_range"):
            check_range(name, getattr(self, name), 1e-3, 1e3)
        for name in ("generalised_beta", "plateau_beta", "resize_range"):
            low, high = getattr(self, name)
            if not low <= 1 <= high:
                raise ValueError(f"{name} must reach from at most 1 to at least 1, got {(low, high)}")
        check_range("gaussian_sigma", self.gaussian_sigma, 0, 255)
        check_range("poisson_scale", self.poisson_scale, 0, 1e3)
        check_range("jpeg_quality", self.jpeg_quality, 1, 100)


SECOND_STAGE = StageRanges(
    blur_probability=0.8,
    blur_sigma=(0.2, 1.5),
    resize_probabilities=(0.3, 0.4, 0.3),
    resize_range=(0.3, 1.2),
    gaussian_sigma=(1.0, 25.0),
    poisson_scale=(0.05, 2.5),
)
"""The published ranges of the second stage."""
