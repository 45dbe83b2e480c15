"""Builds the networks from the configuration, with freshly initialised weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from typing_extensions import assert_never

from srgan_dist.config.additional_losses import DISTSLossConfig, LearnedLossConfig, LPIPSLossConfig
from srgan_dist.config.models import (
    CompactConfig,
    DiscriminatorConfig,
    GeneratorConfig,
    MSRResNetConfig,
    OwnGeneratorConfig,
    PatchGANDiscriminatorConfig,
    RRDBConfig,
    SPANConfig,
    SpandrelConfig,
    SRResNetConfig,
    UNetDiscriminatorConfig,
    VGGDiscriminatorConfig,
)
from srgan_dist.config.perceptual import EfficientNetLite0Config, PerceptualLossConfig, VGG16Config, VGG19Config
from srgan_dist.models.classes import build_own, build_spandrel
from srgan_dist.models.compact import Compact
from srgan_dist.models.discriminator import PatchGANDiscriminator, UNetDiscriminator, VGGDiscriminator
from srgan_dist.models.features import EfficientNetLite0Features, FeatureNetwork, VGGFeatures
from srgan_dist.models.msrresnet import MSRResNet
from srgan_dist.models.perceptual import DISTS, LPIPS
from srgan_dist.models.pretrained import WeightsUnavailable
from srgan_dist.models.rrdb import RRDBNet
from srgan_dist.models.span import SPAN
from srgan_dist.models.srresnet import SRResNet


def build_generator(config: GeneratorConfig, *, scale: int, recompute: bool = False, merged: bool = False) -> nn.Module:
    """Build the generator, freshly initialised.

    Args:
        config: Architecture.
        scale: Factor between LR and SR.
        recompute: Trades time for memory.
        merged: In the form of files of weights, for inference, where that is another than the one that is trained (see
            `srgan_dist.models.reparameterised`).
    """
    match config:
        case SRResNetConfig():
            return SRResNet(
                scale=scale,
                channels=config.channels,
                blocks=config.blocks,
                norm=config.norm,
                skip=config.skip,
                upsampler=config.upsampler,
                end_kernel=config.end_kernel,
                recompute=recompute,
            )
        case RRDBConfig():
            return RRDBNet(
                scale=scale,
                channels=config.channels,
                blocks=config.blocks,
                growth=config.growth,
                padding=config.padding,
                recompute=recompute,
            )
        case MSRResNetConfig():
            return MSRResNet(scale=scale, channels=config.channels, blocks=config.blocks, recompute=recompute)
        case CompactConfig():
            return Compact(
                scale=scale, channels=config.channels, convs=config.convs, merged=merged, recompute=recompute
            )
        case SPANConfig():
            return SPAN(
                scale=scale,
                channels=config.channels,
                input_norm=config.input_norm,
                merged=merged,
                recompute=recompute,
            )
        case SpandrelConfig():
            return build_spandrel(config.architecture, config.parameters, scale=scale)
        case OwnGeneratorConfig():
            return build_own(config.name, config.parameters, scale=scale)
        case _:
            assert_never(config)


def generator_outline(config: GeneratorConfig, *, scale: int, num_tensors: int) -> dict[str, Tensor]:
    """The names, shapes and dtypes of what a generator's file holds, on the meta device: no weight is allocated.

    Args:
        config: Architecture.
        scale: Factor between LR and SR.
        num_tensors: About how many tensors it may have. What has far more is given up, since it would take hours.

    Raises:
        ValueError: It has far more, or the scale is not one of the network's.
        RuntimeError: A tensor has more values than can be counted.
    """
    with torch.device("meta"), _Outline(calls=1000 + 100 * num_tensors):
        return build_generator(config, scale=scale, merged=True).state_dict()


class _Outline(TorchFunctionMode):
    """Leaves new weights unfilled, as torch would import its compiler to draw none; and ends what never ends."""

    def __init__(self, *, calls: int) -> None:
        super().__init__()
        self.calls = calls

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.calls -= 1
        if self.calls < 0:
            raise ValueError("a network of far more tensors")
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        kwargs = dict(kwargs or {})
        if func is torch.linspace:  # whose values constructors read, such as rates of dropped paths by depth
            if int(kwargs.get("steps", args[2] if len(args) > 2 else 0)) > self.calls:
                raise ValueError("a network of far more layers")
            kwargs["device"] = "cpu"
        if func == Tensor.data.__set__:  # type: ignore[attr-defined]  # to numbers that constructors make elsewhere
            args = (args[0], args[1].to("meta"))
        return func(*args, **kwargs)


def build_discriminator(config: DiscriminatorConfig) -> nn.Module:
    """Build the discriminator, freshly initialised."""
    match config:
        case VGGDiscriminatorConfig():
            return VGGDiscriminator(channels=config.channels, norm=config.norm, layout=config.layout)
        case UNetDiscriminatorConfig():
            return UNetDiscriminator(channels=config.channels)
        case PatchGANDiscriminatorConfig():
            return PatchGANDiscriminator(channels=config.channels, layers=config.layers, norm=config.norm)
        case _:
            assert_never(config)


def build_features(config: PerceptualLossConfig, *, recompute: bool = False) -> FeatureNetwork:
    """Build the frozen feature network with its weights; ``recompute`` trades time for memory."""
    match config:
        case VGG16Config() | VGG19Config():
            try:
                return VGGFeatures(
                    network=config.network,
                    layers=list(config.layers),
                    normalise=config.normalise,
                    feature_scale=config.feature_scale,
                    weights=config.weights,
                    recompute=recompute,
                )
            except WeightsUnavailable as error:
                if config.weights != "auto":
                    raise
                others = "loss.perceptual.weights=PATH; loss.perceptual.network=efficientnet_lite0 needs no download"
                raise WeightsUnavailable(f"{error}, or set {others}") from None
        case EfficientNetLite0Config():
            return EfficientNetLite0Features(weights=config.weights, recompute=recompute)
        case _:
            assert_never(config)


def build_learned_distance(config: LearnedLossConfig, *, recompute: bool = False) -> LPIPS | DISTS:
    """Build the frozen network of an additional loss with its weights; ``recompute`` trades time for memory."""
    match config:
        case LPIPSLossConfig():
            return LPIPS(weights=config.weights, recompute=recompute)
        case DISTSLossConfig():
            return DISTS(weights=config.weights, recompute=recompute)
        case _:
            assert_never(config)


def generator_metadata(config: GeneratorConfig, *, scale: int) -> dict[str, str]:
    """Metadata of a weights file, from which the network can be rebuilt."""
    return {
        "format": "srgan-dist generator 1",
        "scale": str(scale),
        "generator": json.dumps(config.model_dump(mode="json")),
        "srgan_dist": version("srgan-dist"),
    }
