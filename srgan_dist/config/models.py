"""The sections ``generator`` and ``discriminator``: a class for each network, and unions that choose one by name."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, JsonValue

from srgan_dist.config.base import Choice, Form, Section, as_number
from srgan_dist.config.yaml_file import read_mapping

# Far beyond any network that was ever published, and small enough that a file cannot make us build one for hours.
Channels = Annotated[int, Field(ge=1, le=4096)]
Blocks = Annotated[int, Field(ge=1, le=1024)]


def _as_mapping(value: object) -> object:
    return read_mapping(value) if isinstance(value, str) else value


Parameters = Annotated[dict[str, JsonValue], BeforeValidator(_as_mapping)]


class SRResNetConfig(Section):
    common = ("channels", "blocks")

    name: Literal["srresnet"] = "srresnet"
    """Ledig et al. 2017, the SRGAN paper's generator."""
    scales: ClassVar[tuple[int, ...]] = (1, 2, 4, 8)
    channels: Channels = 64
    """Feature channels."""
    blocks: Blocks = 16
    """Residual blocks."""
    norm: Literal["batch", "none", "group"] = "batch"
    """Normalisation inside the blocks; group sees the whole image, so tiles of a large one may differ a little."""
    skip: Literal["none", "bicubic", "bilinear"] = "none"
    """Interpolation of the input to which the network adds what it learns."""
    upsampler: Literal["pixelshuffle", "pixelshuffledirect"] = "pixelshuffle"
    """pixelshuffle: stages of x2 as in the paper; pixelshuffledirect: one shuffle at the end (much cheaper)."""
    end_kernel: Annotated[Literal[3, 5, 7, 9], BeforeValidator(as_number)] = 9
    """Kernel of the first and last convolution, in pixels."""


class RRDBConfig(Section):
    common = ("channels", "blocks")

    name: Literal["rrdb"] = "rrdb"
    """Wang et al. 2018, the ESRGAN generator."""
    scales: ClassVar[tuple[int, ...]] = (1, 2, 4)
    channels: Channels = 64
    """Feature channels."""
    blocks: Blocks = 23
    """Residual-in-residual dense blocks."""
    growth: Channels = 32
    """Channels that each dense layer adds; other programs load files of 32 alone."""
    padding: Literal["reflect", "replicate"] = "reflect"
    """At scales 1 and 2, what continues an image whose sides are no multiples of 4 / scale; reflect: as other programs,
    replicate: as version 0.1 did."""


class MSRResNetConfig(Section):
    common = ("channels", "blocks")

    name: Literal["msrresnet"] = "msrresnet"
    """BasicSR's variant of SRResNet (its weights load key for key)."""
    scales: ClassVar[tuple[int, ...]] = (2, 3, 4)
    channels: Channels = 64
    """Feature channels."""
    blocks: Blocks = 16
    """Residual blocks."""


class CompactConfig(Section):
    common = ("channels",)

    name: Literal["compact"] = "compact"
    """Real-ESRGAN's small, fast SRVGGNetCompact, whose files other programs load."""
    scales: ClassVar[tuple[int, ...]] = (1, 2, 3, 4, 8)
    channels: Channels = 64
    """Feature channels."""
    convs: Blocks = 16
    """Convolutions between the first and the last."""


class SPANConfig(Section):
    common = ("channels",)

    name: Literal["span"] = "span"
    """Wan et al. 2024, the winner of NTIRE 2024's challenge of efficiency, whose files other programs load."""
    scales: ClassVar[tuple[int, ...]] = (1, 2, 3, 4, 8)
    channels: Channels = 48
    """Feature channels."""
    input_norm: bool = False
    """Subtract DIV2K's mean colour from the input and multiply by 255, as the paper's code does."""


class SpandrelConfig(Section):
    name: Literal["spandrel"] = "spandrel"
    """Any network of spandrel's, by its architecture (extra: spandrel); files load where others load them."""
    scales: ClassVar[tuple[int, ...]] = (1, 2, 3, 4, 8)
    architecture: str | None = None
    """Spandrel's name of it, such as SwinIR, HAT or RealPLKSR."""
    parameters: Parameters = Field(default={})
    """Arguments of its class; that of the scale is filled in."""


class OwnGeneratorConfig(Section):
    name: Annotated[str, Form("module:Class", r"[^\W\d][\w.]*:[^\W\d][\w.]*")] = "module:Class"
    """A class of your own, importable from the working folder."""
    scales: ClassVar[tuple[int, ...]] = (1, 2, 3, 4, 8)
    parameters: Parameters = Field(default={})
    """Arguments of the class; scale is filled in, if it takes one of this name."""


class VGGDiscriminatorConfig(Section):
    name: Literal["vgg"] = "vgg"
    """Ledig et al. 2017: convolutions and two dense layers, one logit an image."""
    layout: Literal["srgan", "basicsr"] = "srgan"
    """srgan: the paper's eight convolutions; basicsr: BasicSR's ten, with 4x4 kernels at the strides."""
    channels: Channels = 64
    """Channels of the first convolution; the last have eight times as many."""
    norm: Literal["batch", "spectral", "spectral_gain", "none"] = "batch"
    """Normalisation of the convolutions. spectral: the norms of all layers are 1, so that little is left of a signal
    behind the last; spectral_gain: activations make up for what they take, so that a wide network begins to learn."""


class UNetDiscriminatorConfig(Section):
    name: Literal["unet"] = "unet"
    """Wang et al. 2021 (Real-ESRGAN): a U-Net with spectral normalisation, one logit a pixel."""
    channels: Channels = 64
    """Channels at full resolution."""


class PatchGANDiscriminatorConfig(Section):
    name: Literal["patchgan"] = "patchgan"
    """Isola et al. 2017 (pix2pix): convolutions alone, one logit for each patch of, by default, 70 pixels."""
    channels: Channels = 64
    """Channels of the first convolution; the last have up to eight times as many."""
    layers: Annotated[int, Field(ge=1, le=5)] = 3
    """Convolutions with a stride of 2; 1 to 5 make patches of 16, 34, 70, 142 and 286 pixels."""
    norm: Literal["batch", "spectral", "spectral_gain", "none"] = "batch"
    """Normalisation of the convolutions. spectral: the norms of all layers are 1, so that little is left of a signal
    behind the last; spectral_gain: activations make up for what they take, so that a wide network begins to learn."""


GeneratorConfig = Annotated[
    SRResNetConfig | RRDBConfig | MSRResNetConfig | CompactConfig | SPANConfig | SpandrelConfig | OwnGeneratorConfig,
    Choice(),
]
NotRecomputed = SpandrelConfig | OwnGeneratorConfig
"""Generators of whose parts nothing is known that could be run again."""
DiscriminatorConfig = Annotated[
    VGGDiscriminatorConfig | UNetDiscriminatorConfig | PatchGANDiscriminatorConfig, Choice()
]
