"""Draws the parameters of Real-ESRGAN's degradation for each sample of a batch."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srgan_dist.degradations.draws import Draws
from srgan_dist.degradations.kernels import gaussian_kernels, sinc_kernels
from srgan_dist.degradations.ranges import Range, StageRanges

_MODES = ("area", "bilinear", "bicubic")
# The cutoff of small sinc kernels starts higher; at pi / 5 they would be boxes.
_SMALL_SINC, _SMALL_CUTOFF, _LARGE_CUTOFF = 13, math.pi / 3, math.pi / 5


class StagePlan(NamedTuple):
    """The parameters of one stage for b samples: choices made on the host, then values for the device.

    Attributes:
        blurred: Whether the kernel is applied.
        sizes: (height, width) after resizing.
        modes: Modes of `torch.nn.functional.interpolate`.
        gaussian: Whether the noise is Gaussian, otherwise Poisson.
        kernels: float32 [b, 21, 21].
        noise_keys: int64 [b].
        strength: float32 [b], the sigma of Gaussian noise in levels or the scale of Poisson noise.
        grey: bool [b].
        quality: int64 [b], quality of the JPEG.
    """

    blurred: list[bool]
    sizes: list[tuple[int, int]]
    modes: list[str]
    gaussian: list[bool]
    kernels: Tensor
    noise_keys: Tensor
    strength: Tensor
    grey: Tensor
    quality: Tensor


class DegradationPlan(NamedTuple):
    """The parameters of the whole degradation for b samples.

    Attributes:
        first: The first stage.
        second: The second stage.
        ringing: Whether the final sinc kernel is applied.
        kernels: float32 [b, 21, 21], the final sinc kernels.
        modes: Modes of the final resize.
        jpeg_last: Whether the final resize and sinc come before the second JPEG, not after it.
        unit_top: Vertical position of the crop, as a fraction of the possible positions, in [0, 1).
        unit_left: Horizontal position of the crop, as a fraction of the possible positions, in [0, 1).
    """

    first: StagePlan
    second: StagePlan
    ringing: list[bool]
    kernels: Tensor
    modes: list[str]
    jpeg_last: list[bool]
    unit_top: list[float]
    unit_left: list[float]


def draw_plan(
    keys: NDArray[np.int64],
    *,
    height: int,
    width: int,
    scale: int,
    first: StageRanges,
    second: StageRanges,
    ringing_probability: float,
) -> DegradationPlan:
    """Draw the parameters of each sample from its key.

    Args:
        keys: [b], one for each sample.
        height: Height of the HR images in pixels.
        width: Width of the HR images in pixels.
        scale: HR pixels per LR pixel; the second stage resizes relative to the LR size.
        first: Ranges of the first stage.
        second: Ranges of the second stage.
        ringing_probability: Probability of the final sinc kernel.

    Returns:
        The plan, with its tensors on the CPU.
    """
    draws = Draws(keys)
    stages = [
        _draw_stage(draws, first, height=height, width=width),
        _draw_stage(draws, second, height=height / scale, width=width / scale),
    ]
    ringing = draws.chance(ringing_probability)
    sizes = 2 * draws.integers(second.kernel_sizes[0] // 2, second.kernel_sizes[1] // 2) + 1
    kernels = sinc_kernels(size=sizes, cutoff=draws.uniform(_SMALL_CUTOFF, math.pi))
    modes = _draw_modes(draws)
    return DegradationPlan(
        first=stages[0],
        second=stages[1],
        ringing=ringing.tolist(),
        kernels=torch.from_numpy(kernels).float(),
        modes=modes,
        jpeg_last=draws.chance(0.5).tolist(),
        unit_top=draws.uniform(0, 1).tolist(),
        unit_left=draws.uniform(0, 1).tolist(),
    )


def _draw_stage(draws: Draws, ranges: StageRanges, *, height: float, width: float) -> StagePlan:
    blurred = draws.chance(ranges.blur_probability)
    kernels = _draw_kernels(draws, ranges)
    factors = _draw_factors(draws, ranges)
    modes = _draw_modes(draws)
    gaussian = draws.chance(ranges.gaussian_probability)
    strength = np.where(gaussian, draws.uniform(*ranges.gaussian_sigma), draws.uniform(*ranges.poisson_scale))
    return StagePlan(
        blurred=blurred.tolist(),
        sizes=[(max(1, int(height * factor)), max(1, int(width * factor))) for factor in factors.tolist()],
        modes=modes,
        gaussian=gaussian.tolist(),
        kernels=torch.from_numpy(kernels).float(),
        noise_keys=torch.from_numpy(draws.keys()),
        strength=torch.from_numpy(strength).float(),
        grey=torch.from_numpy(draws.chance(ranges.grey_probability)),
        quality=torch.from_numpy(draws.integers(*ranges.jpeg_quality)),
    )


def _draw_kernels(draws: Draws, ranges: StageRanges) -> NDArray[np.float64]:
    sizes = 2 * draws.integers(ranges.kernel_sizes[0] // 2, ranges.kernel_sizes[1] // 2) + 1
    kind = draws.choice(ranges.kernel_probabilities)
    anisotropic, family = kind % 2 == 1, kind // 2
    sigma_x, sigma_y = draws.uniform(*ranges.blur_sigma), draws.uniform(*ranges.blur_sigma)
    below = draws.chance(0.5)
    betas = [_draw_beta(draws, below, limits) for limits in (ranges.generalised_beta, ranges.plateau_beta)]
    gaussian = gaussian_kernels(
        size=sizes,
        sigma_x=sigma_x,
        sigma_y=np.where(anisotropic, sigma_y, sigma_x),
        rotation=draws.uniform(-math.pi, math.pi),
        beta=np.choose(family, [np.ones(sizes.shape), *betas]),
        plateau=family == 2,
    )
    lowest = np.where(sizes < _SMALL_SINC, _SMALL_CUTOFF, _LARGE_CUTOFF)
    sinc = sinc_kernels(size=sizes, cutoff=draws.uniform(lowest, math.pi))
    return np.where(draws.chance(ranges.sinc_probability)[:, None, None], sinc, gaussian)


def _draw_beta(draws: Draws, below: NDArray[np.bool_], limits: Range) -> NDArray[np.float64]:
    return draws.uniform(np.where(below, limits[0], 1.0), np.where(below, 1.0, limits[1]))


def _draw_factors(draws: Draws, ranges: StageRanges) -> NDArray[np.float64]:
    low, high = ranges.resize_range
    direction = draws.choice(ranges.resize_probabilities)
    larger, smaller = draws.uniform(1.0, high), draws.uniform(low, 1.0)
    return np.choose(direction, [larger, smaller, np.ones(direction.shape)])


def _draw_modes(draws: Draws) -> list[str]:
    return [_MODES[number] for number in draws.integers(0, len(_MODES) - 1).tolist()]
