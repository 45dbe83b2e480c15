"""Discriminators: SRGAN's VGG-style classifier, Real-ESRGAN's U-Net, and pix2pix's PatchGAN."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

DiscriminatorNorm = Literal["batch", "spectral", "spectral_gain", "none"]
VGGLayout = Literal["srgan", "basicsr"]

NEGATIVE_SLOPE = 0.2  # Ledig et al. 2017, section 2.1.1; the U-Net uses the same
LEAKY_RELU_GAIN = math.sqrt(2 / (1 + NEGATIVE_SLOPE**2))  # He et al. 2015, section 2.2: makes up for what it takes


class _Layout(NamedTuple):
    """Channels of the convolutions as multiples of the first, kernel of those with a stride, and dense layers."""

    multiples: tuple[int, ...]
    strided_kernel: int
    pooled_size: int
    hidden: int


# pooled_size is what the strides leave of the patches that each layout was designed for: 96 and 128 pixels.
_LAYOUTS: dict[VGGLayout, _Layout] = {
    "srgan": _Layout((1, 1, 2, 2, 4, 4, 8, 8), strided_kernel=3, pooled_size=6, hidden=1024),
    "basicsr": _Layout((1, 1, 2, 2, 4, 4, 8, 8, 8, 8), strided_kernel=4, pooled_size=4, hidden=100),
}


def _init(layer: nn.Conv2d | nn.Linear) -> None:
    # Before spectral_norm wraps the layer, as its first estimate of the norm is made from these weights.
    nn.init.kaiming_normal_(layer.weight, a=NEGATIVE_SLOPE, nonlinearity="leaky_relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _layer(layer: nn.Conv2d | nn.Linear, *, norm: DiscriminatorNorm) -> nn.Module:
    _init(layer)
    return spectral_norm(layer) if norm in ("spectral", "spectral_gain") else layer


class _Gain(nn.Module):
    """Multiply by `LEAKY_RELU_GAIN`."""

    def forward(self, x: Tensor) -> Tensor:
        return x * LEAKY_RELU_GAIN


def _activation(norm: DiscriminatorNorm) -> nn.Module:
    """LeakyReLU; as one module in either case, so that the layers behind it keep their numbers."""
    activation = nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True)
    return nn.Sequential(activation, _Gain()) if norm == "spectral_gain" else activation


def _batchnorm(channels: int) -> nn.Module:
    # No running statistics: D is never evaluated with them, and as buffers they would be changed by the forward passes
    # of G's update and broadcast between those of D's. Without them the layer uses the batch's own statistics in train
    # and eval mode alike.
    return nn.BatchNorm2d(channels, track_running_stats=False)


def advance_power_iteration(module: nn.Module) -> None:
    """Run one power iteration of every spectrally normalised layer, in place; the weights do not change.

    A discriminator is kept in eval() mode, where no forward changes a buffer: real and generated images of
    one update, every micro-batch and every rank then see the same normalised weights. This function
    advances the estimate of the norms; call it once for each discriminator update, on every rank.

    Args:
        module: Any network, wrapped or not; layers without spectral norm are ignored.

    Source:
        Miyato et al. 2018, algorithm 1 (one iteration for each update).
    """
    for layer in module.modules():
        if not isinstance(layer, parametrize.ParametrizationList):
            continue
        was_training = layer.training
        layer.train()
        weight = layer.original
        with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
            layer()  # computing the normalised weight in train mode is what updates u and v
        layer.train(was_training)


class VGGDiscriminator(nn.Module):
    """Classify whole images with convolutions, every second one with a stride of 2, and two dense layers.

    Args:
        channels: Channels of the first convolution; they double with each stride, up to eight times as many.
        norm: "batch" (the paper; not after the first convolution), "spectral" (on every layer), "spectral_gain" (there,
            and each activation times `LEAKY_RELU_GAIN`) or "none". A layer of norm 1 and a LeakyReLU leave about half
            of a signal: a wide network that "spectral" keeps from learning at first begins with the gain.
        layout: "srgan", the paper's eight convolutions, or "basicsr", BasicSR's ten with 4x4 kernels at the strides.
        hidden: Width of the first dense layer; None for the layout's own, 1024 or 100.

    Source:
        Ledig et al. 2017, figure 4, without its sigmoid, which belongs to the loss; BasicSR's VGGStyleDiscriminator.
    """

    def __init__(
        self,
        *,
        channels: int = 64,
        norm: DiscriminatorNorm = "batch",
        layout: VGGLayout = "srgan",
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        multiples, strided_kernel, self.pooled_size, dense = _LAYOUTS[layout]
        hidden = hidden or dense
        widths = [channels * multiple for multiple in multiples]
        layers: list[nn.Module] = []
        for index, width in enumerate(widths):
            normalised = norm == "batch" and index > 0
            previous = widths[index - 1] if index else 3
            kernel, stride = (strided_kernel, 2) if index % 2 else (3, 1)
            layers.append(_layer(nn.Conv2d(previous, width, kernel, stride, 1, bias=not normalised), norm=norm))
            if normalised:
                layers.append(_batchnorm(width))
            layers.append(_activation(norm))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            _layer(nn.Linear(widths[-1] * self.pooled_size**2, hidden), norm=norm),
            _activation(norm),
            _layer(nn.Linear(hidden, 1), norm=norm),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logit of each image.

        Args:
            images: [N, 3, H, W], RGB in [0, 1]; any size. With norm "batch" the last maps must hold more
                than one value for each channel: H or W above 16 (32), or N above 1.

        Returns:
            [N, 1], logits; above 0 means "real".
        """
        features = cast(Tensor, self.features(images))
        # Patches of the layout's own size need no pooling, whose backward on CUDA is not deterministic.
        if features.shape[-2:] != (self.pooled_size, self.pooled_size):
            features = F.adaptive_avg_pool2d(features, self.pooled_size)
        return cast(Tensor, self.classifier(features.flatten(1)))


class UNetDiscriminator(nn.Module):
    """Classify each pixel in its context with a U-Net with spectral normalisation and additive skips.

    Args:
        channels: Channels at full resolution; they double each of the three times that the resolution is halved.

    Source:
        Wang et al. 2021 (Real-ESRGAN), figure 6; layer names as there.
    """

    def __init__(self, *, channels: int = 64) -> None:
        super().__init__()
        c = channels
        # The first and last layer are not normalised, so that the range of the logits is free.
        self.conv0 = nn.Conv2d(3, c, 3, padding=1)
        self.conv1 = self._halve(c, 2 * c)
        self.conv2 = self._halve(2 * c, 4 * c)
        self.conv3 = self._halve(4 * c, 8 * c)
        self.conv4 = self._same(8 * c, 4 * c)
        self.conv5 = self._same(4 * c, 2 * c)
        self.conv6 = self._same(2 * c, c)
        self.conv7 = self._same(c, c)
        self.conv8 = self._same(c, c)
        self.conv9 = nn.Conv2d(c, 1, 3, padding=1)
        _init(self.conv0)
        _init(self.conv9)

    @staticmethod
    def _halve(in_channels: int, out_channels: int) -> nn.Module:
        conv = nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)
        _init(conv)
        return spectral_norm(conv)

    @staticmethod
    def _same(in_channels: int, out_channels: int) -> nn.Module:
        conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        _init(conv)
        return spectral_norm(conv)

    @staticmethod
    def _activate(x: Tensor) -> Tensor:
        return F.leaky_relu(x, NEGATIVE_SLOPE)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logit of each pixel.

        Args:
            images: [N, 3, H, W], RGB in [0, 1]; H and W at least 8.

        Returns:
            [N, 1, H, W], logits; above 0 means "real".
        """
        down0 = self._activate(self.conv0(images))
        down1 = self._activate(self.conv1(down0))
        down2 = self._activate(self.conv2(down1))
        up = self._activate(self.conv3(down2))
        for conv, skip in ((self.conv4, down2), (self.conv5, down1), (self.conv6, down0)):
            # To the skip's own size, as halving rounds down if it is not a multiple of 8.
            up = F.interpolate(up, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            up = self._activate(conv(up)) + skip
        up = self._activate(self.conv8(self._activate(self.conv7(up))))
        return cast(Tensor, self.conv9(up))


class PatchGANDiscriminator(nn.Module):
    """Classify overlapping patches of an image with convolutions alone: texture, whatever the image shows.

    Args:
        channels: Channels of the first convolution; they double with each layer, up to eight times as many.
        layers: Convolutions with a stride of 2, before two without. A logit sees patches of 16, 34, 70, 142 or 286
            pixels for 1 to 5 of them.
        norm: As in `VGGDiscriminator`; "batch" is the paper's, not in the first and last layer.

    Source:
        Isola et al. 2017 (pix2pix), section 3.2.2 and appendix 6.1.2: 70 pixels; layers numbered as in its code.
    """

    def __init__(self, *, channels: int = 64, layers: int = 3, norm: DiscriminatorNorm = "batch") -> None:
        super().__init__()
        widths = [channels * min(2**index, 8) for index in range(layers + 1)]
        modules: list[nn.Module] = []
        for index, width in enumerate(widths):
            normalised = norm == "batch" and index > 0
            stride = 2 if index < layers else 1
            conv = nn.Conv2d(widths[index - 1] if index else 3, width, 4, stride, 1, bias=not normalised)
            modules.append(_layer(conv, norm=norm))
            if normalised:
                modules.append(_batchnorm(width))
            modules.append(_activation(norm))
        self.model = nn.Sequential(*modules, _layer(nn.Conv2d(widths[-1], 1, 4, 1, 1), norm=norm))

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logit of each patch.

        Args:
            images: [N, 3, H, W], RGB in [0, 1]; H and W at least 3 * 2 ** layers.

        Returns:
            [N, 1, H // 2 ** layers - 2, W // 2 ** layers - 2], logits; above 0 means "real".
        """
        return cast(Tensor, self.model(images))
