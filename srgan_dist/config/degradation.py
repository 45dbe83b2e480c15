"""The part of the configuration that says how LR images are made while training, and its limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt

from srgan_dist.config.base import Choice, Section


def _ascends(value: tuple[float, float]) -> tuple[float, float]:
    """Ascending."""
    if value[0] > value[1]:
        raise ValueError(f"the range must ascend, got {list(value)}")
    return value


def _around_one(value: tuple[float, float]) -> tuple[float, float]:
    """With 1 between them."""
    if not value[0] <= 1 <= value[1]:
        raise ValueError(f"the range must reach from at most 1 to at least 1, got {list(value)}")
    return value


def _sums_to_one(value: tuple[float, ...]) -> tuple[float, ...]:
    """With sum 1."""
    if abs(sum(value) - 1) > 1e-6:
        raise ValueError(f"probabilities must have sum 1, got {list(value)}")
    return value


def _odd(value: tuple[int, int]) -> tuple[int, int]:
    """Odd."""
    if not all(side % 2 for side in value):
        raise ValueError(f"sides must be odd, got {list(value)}")
    return value


Probability = Annotated[float, Field(ge=0.0, le=1.0)]
_Factor = Annotated[float, Field(ge=1e-3, le=1e3)]
_Side = Annotated[int, Field(ge=3, le=21)]
_Quality = Annotated[int, Field(ge=1, le=100)]
_Sigma = Annotated[float, Field(ge=0.0, le=255.0)]
_Scale = Annotated[float, Field(ge=0.0, le=1e3)]
FactorRange = Annotated[tuple[_Factor, _Factor], AfterValidator(_ascends)]
SigmaRange = Annotated[tuple[_Sigma, _Sigma], AfterValidator(_ascends)]
ScaleRange = Annotated[tuple[_Scale, _Scale], AfterValidator(_ascends)]


class StoredConfig(Section):
    kind: Literal["stored"] = "stored"
    """The LR images of the shards."""


class BicubicConfig(Section):
    kind: Literal["bicubic"] = "bicubic"
    """MATLAB-like bicubic of the HR patch, on the device; differs from stored LR images in the two outermost pixels."""


class NoiseConfig(Section):
    kind: Literal["noise"] = "noise"
    """Noise on an image of the same size, to train denoisers; data.scale must be 1."""
    gaussian_probability: Probability = 1.0
    """Of Gaussian noise; otherwise Poisson."""
    gaussian_sigma: SigmaRange = (0.0, 55.0)
    """Least and greatest standard deviation, in 8-bit levels."""
    poisson_scale: ScaleRange = (0.05, 3.0)
    """Least and greatest factor on photon noise; 1 is the noise of 256 photons in the brightest pixel."""
    grey_probability: Probability = 0.0
    """Of the same noise in all channels."""


# The ranges of both stages are those of the published training options (options/train_realesrgan_x4plus.yml of
# Real-ESRGAN's repository); Wang et al. 2021, section 4.1.
class FirstStageConfig(Section):
    blur_probability: Probability = 1.0
    """Of blurring at all."""
    kernel_sizes: Annotated[tuple[_Side, _Side], AfterValidator(_ascends), AfterValidator(_odd)] = (7, 21)
    """Least and greatest side of the blur kernel in pixels, odd."""
    kernel_probabilities: Annotated[
        tuple[Probability, Probability, Probability, Probability, Probability, Probability],
        AfterValidator(_sums_to_one),
    ] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    """Of isotropic and anisotropic Gaussian, of both generalised, of both plateau-shaped kernels."""
    sinc_probability: Probability = 0.1
    """Of a ringing sinc kernel instead of those."""
    blur_sigma: FactorRange = (0.2, 3.0)
    """Least and greatest standard deviation of the kernel, in pixels."""
    generalised_beta: Annotated[FactorRange, AfterValidator(_around_one)] = (0.5, 4.0)
    """Shape of generalised Gaussians; 1 is the Gaussian."""
    plateau_beta: Annotated[FactorRange, AfterValidator(_around_one)] = (1.0, 2.0)
    """Shape of plateaus."""
    resize_probabilities: Annotated[tuple[Probability, Probability, Probability], AfterValidator(_sums_to_one)] = (
        0.2,
        0.7,
        0.1,
    )
    """Of enlarging, of shrinking, of neither."""
    resize_range: Annotated[FactorRange, AfterValidator(_around_one)] = (0.15, 1.5)
    """Least and greatest factor of the resize."""
    gaussian_probability: Probability = 0.5
    """Of Gaussian noise; otherwise Poisson."""
    gaussian_sigma: SigmaRange = (1.0, 30.0)
    """Least and greatest standard deviation of Gaussian noise, in 8-bit levels."""
    poisson_scale: ScaleRange = (0.05, 3.0)
    """Least and greatest factor on photon noise."""
    grey_probability: Probability = 0.4
    """Of the same noise in all channels."""
    jpeg_quality: Annotated[tuple[_Quality, _Quality], AfterValidator(_ascends)] = (30, 95)
    """Least and greatest quality of the JPEG."""


class SecondStageConfig(FirstStageConfig):
    # A class of its own, not other defaults of a field: a file that sets one value must keep the rest of *these*.
    blur_probability: Probability = 0.8
    """Of blurring at all."""
    blur_sigma: FactorRange = (0.2, 1.5)
    """Least and greatest standard deviation of the kernel, in pixels."""
    resize_probabilities: Annotated[tuple[Probability, Probability, Probability], AfterValidator(_sums_to_one)] = (
        0.3,
        0.4,
        0.3,
    )
    """Of enlarging, of shrinking, of neither."""
    resize_range: Annotated[FactorRange, AfterValidator(_around_one)] = (0.3, 1.2)
    """Least and greatest factor of the resize, relative to the LR size."""
    gaussian_sigma: SigmaRange = (1.0, 25.0)
    """Least and greatest standard deviation of Gaussian noise, in 8-bit levels."""
    poisson_scale: ScaleRange = (0.05, 2.5)
    """Least and greatest factor on photon noise."""


class RealESRGANConfig(Section):
    kind: Literal["realesrgan"] = "realesrgan"
    """Wang et al. 2021: blur, resize, noise and JPEG, twice, each sample its own."""
    margin: NonNegativeInt = 144
    """HR pixels read beyond data.patch_size and cut off at random after degrading (the paper: 400 to 256); a
    multiple of data.scale. Tiles must be at least data.patch_size + margin a side."""
    ringing_probability: Probability = 0.8
    """Of the final sinc filter."""
    sharpen: bool = False
    """Sharpen the target first, for all losses (the paper's "+": GAN loss on the unsharpened one)."""
    first: FirstStageConfig = FirstStageConfig()
    """Ranges of the first stage."""
    second: SecondStageConfig = SecondStageConfig()
    """Ranges of the second stage."""


DegradationConfig = Annotated[StoredConfig | BicubicConfig | NoiseConfig | RealESRGANConfig, Choice()]
