"""What Real-ESRGAN's degradation does to each sample of a batch, drawn from its ranges."""

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
# The cutoff of a small sinc kernel begins higher: at pi / 5 it would be a box.
_SMALL_SINC, _SMALL_CUTOFF, _LARGE_CUTOFF = 13, math.pi / 3, math.pi / 5


class StagePlan(NamedTuple):
    """What one stage does to each of b samples: choices of the host, then values for the device.

    Attributes:
        blurred: whether the kernel is applied.
        sizes: (height, width) after resizing.
        modes: of `torch.nn.functional.interpolate`.
        gaussian: Gaussian noise, otherwise Poisson.
        kernels: float32 [b, 21, 21].
        noise_keys: int64 [b].
        strength: float32 [b], sigma in levels or scale.
        grey: bool [b].
        quality: int64 [b], of the JPEG.
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
    """Everything that happens to each of b samples.

    Attributes:
        first: the first stage.
        second: the second stage.
        ringing: whether the final sinc kernel is applied.
        kernels: float32 [b, 21, 21], the final sinc kernels.
        modes: of the final resize.
        jpeg_last: the final resize and sinc come before the second JPEG, not after.
        unit_top: in [0, 1): where the crop begins, as a part of the places there are.
        unit_left: likewise.
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
    """Draw what happens to each sample, from its key alone.

    Args:
        keys: [b], one a sample.
        height: of the HR images, pixels.
        width: of the HR images, pixels.
        scale: HR pixels per LR pixel; the second stage resizes relative to the LR size.
        first: ranges of the first stage.
        second: ranges of the second stage.
        ringing_probability: of the final sinc kernel.

    Returns:
        The plan, its tensors on the CPU.
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
