"""The sections of the list ``loss.additional``: a class for each loss that may stand in it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt

from srgan_dist.config.base import Choice, Section


class _AdditionalLossConfig(Section):
    kind: str
    weight: NonNegativeFloat = 1.0
    """Weight in the generator's loss of the adversarial phase; 0 leaves this loss out."""
    start: NonNegativeInt = 0
    """Steps of the adversarial phase before this loss joins."""
    ramp_steps: NonNegativeInt = 0
    """Steps over which the weight then grows from 0."""


class LPIPSLossConfig(_AdditionalLossConfig):
    kind: Literal["lpips"] = "lpips"
    """Zhang et al. 2018: LPIPS 0.1 on VGG16, as it is measured."""
    weights: str = "auto"
    """Of VGG16. auto: torchvision's, downloaded on first use (528 MB); hed: those of `srgan-dist fetch hed`; random: an
    untrained network, for benchmarks and tests; or the path of a state dict."""


class DISTSLossConfig(_AdditionalLossConfig):
    kind: Literal["dists"] = "dists"
    """Ding et al. 2020: structure and texture of VGG16's features, forgiving texture that differs in place."""
    weights: str = "auto"
    """Of VGG16. auto: torchvision's, downloaded on first use (528 MB); hed: those of `srgan-dist fetch hed`; random: an
    untrained network, for benchmarks and tests; or the path of a state dict."""


class LDLLossConfig(_AdditionalLossConfig):
    kind: Literal["ldl"] = "ldl"
    """Liang et al. 2022 (LDL): L1 where the residual looks like an artefact, by its local variance, and where SR is
    farther from HR than the moving average's SR, which it computes for this."""


class FrequencyLossConfig(_AdditionalLossConfig):
    kind: Literal["frequency"] = "frequency"
    """Cho et al. 2021 (MIMO-UNet): L1 between the Fourier transforms, every frequency alike."""
    weight: NonNegativeFloat = 0.01
    """Weight in the generator's loss of the adversarial phase, as that of the pixel loss; 0 leaves this loss out."""


def _not_all_zero(value: tuple[float, ...]) -> tuple[float, ...]:
    """Not all 0."""
    if not any(value):
        raise ValueError("all are 0: leave the loss out, or give one a weight")
    return value


class WaveletLossConfig(_AdditionalLossConfig):
    kind: Literal["wavelet"] = "wavelet"
    """Korkmaz et al. 2024 (WGSR): L1 between the bands of a stationary wavelet transform, here Haar's."""
    weight: NonNegativeFloat = 0.01
    """Weight in the generator's loss of the adversarial phase, as that of the pixel loss; 0 leaves this loss out."""
    levels: Annotated[int, Field(ge=1, le=4)] = 2
    """Levels of the transform; the lowest sees 2 to this power pixels at once."""
    bands: Annotated[
        tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat, NonNegativeFloat], AfterValidator(_not_all_zero)
    ] = (1.0, 1.0, 1.0, 1.0)
    """Weights of the bands: low (of the last level alone), horizontal, vertical and diagonal detail."""


LearnedLossConfig = LPIPSLossConfig | DISTSLossConfig
"""Those that have a network."""
AdditionalLossConfig = Annotated[
    LPIPSLossConfig | DISTSLossConfig | LDLLossConfig | FrequencyLossConfig | WaveletLossConfig, Choice()
]


def no_kind_twice(losses: tuple[AdditionalLossConfig, ...]) -> tuple[AdditionalLossConfig, ...]:
    """Each kind once."""
    kinds = [loss.kind for loss in losses]
    if twice := [kind for kind in kinds if kinds.count(kind) > 1]:
        raise ValueError(f"{twice[0]} stands there {kinds.count(twice[0])} times: keep one of them")
    return losses
