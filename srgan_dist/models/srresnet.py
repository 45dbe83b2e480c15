"""SRResNet, the generator of the SRGAN paper, and cheaper variants of it."""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srgan_dist.models.recompute import in_turn

Norm = Literal["batch", "none", "group"]
Skip = Literal["none", "bicubic", "bilinear"]
Upsampler = Literal["pixelshuffle", "pixelshuffledirect"]

PRELU_SLOPE = 0.25  # nn.PReLU's initial slope; the Kaiming gain accounts for it


def _conv(in_channels: int, out_channels: int, kernel: int = 3, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=bias)


def _conv_norm(channels: int, norm: Norm) -> list[nn.Module]:
    # A normalisation would subtract the bias again, so there is none.
    conv = _conv(channels, channels, bias=norm == "none")
    if norm == "batch":
        return [conv, nn.BatchNorm2d(channels)]
    if norm == "group":
        return [conv, nn.GroupNorm(math.gcd(8, channels), channels)]
    return [conv]


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_conv_norm(channels, norm), nn.PReLU(), *_conv_norm(channels, norm))

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.layers(x))


def upsampling_stages(scale: int, channels: int) -> list[nn.Module]:
    """Build the paper's log2(scale) stages: convolution to 4 x channels, pixel shuffle x2, PReLU.

    Args:
        scale: A power of two.
        channels: Feature channels before and after each stage.

    Returns:
        The modules in order, three for each stage.

    Source:
        Shi et al. 2016, eq. 4; Ledig et al. 2017, figure 4.
    """
    stages: list[nn.Module] = []
    for _ in range(scale.bit_length() - 1):
        stages += [_conv(channels, 4 * channels), nn.PixelShuffle(2), nn.PReLU()]
    return stages


class SRResNet(nn.Module):
    """Map a low-resolution image to one `scale` times as large by residual blocks and pixel shuffles.

    Args:
        scale: 2, 4 or 8; 1 makes a denoiser.
        channels: Feature channels.
        blocks: Number of residual blocks.
        norm: Normalisation after each convolution of the trunk; "none" and "group" behave the same
            in training and evaluation and do not depend on the batch.
        skip: "none" predicts the image itself, as the paper does; "bicubic" and "bilinear" predict the
            difference to that interpolation, and an untrained network *is* the interpolation.
        upsampler: "pixelshuffle" is the paper's stages of x2 and a convolution at full resolution;
            "pixelshuffledirect" is one convolution at low resolution and one shuffle, several times cheaper.
        end_kernel: Odd kernel size, in pixels, of the first and (with "pixelshuffle") the last convolution.
        recompute: Run the blocks again in the backward pass instead of keeping their activations.

    Raises:
        ValueError: The scale or ``end_kernel`` is not one of the above.

    Source:
        Ledig et al. 2017, figure 4; "pixelshuffledirect" is the name in Liang et al. 2021 (SwinIR).
    """

    def __init__(
        self,
        *,
        scale: int = 4,
        channels: int = 64,
        blocks: int = 16,
        norm: Norm = "batch",
        skip: Skip = "none",
        upsampler: Upsampler = "pixelshuffle",
        end_kernel: int = 9,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if scale not in (1, 2, 4, 8):
            raise ValueError(f"SRResNet: scale is {scale}, allowed are 1, 2, 4 and 8")
        if end_kernel < 1 or end_kernel % 2 == 0:
            raise ValueError(f"SRResNet: end_kernel is {end_kernel}, expected an odd number such as 3 or 9")
        self.scale = scale
        self.skip, self.recompute = skip, recompute
        self.head = nn.Sequential(_conv(3, channels, end_kernel), nn.PReLU())
        self.body = nn.Sequential(*(_ResidualBlock(channels, norm) for _ in range(blocks)))
        self.body_end = nn.Sequential(*_conv_norm(channels, norm))
        if upsampler == "pixelshuffledirect":
            last = _conv(channels, 3 * scale**2)
            self.upsample = nn.Sequential(last, nn.PixelShuffle(scale))
        else:
            last = _conv(channels, 3, end_kernel)
            self.upsample = nn.Sequential(*upsampling_stages(scale, channels), last)
        self._init_weights(last)

    def _init_weights(self, last: nn.Conv2d) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=PRELU_SLOPE, nonlinearity="leaky_relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # Every residual block starts as the identity, so depth does not blow up the first activations.
        for module in self.body:
            ending = cast(_ResidualBlock, module).layers[-1]
            assert isinstance(ending, (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm))
            nn.init.zeros_(ending.weight)
        if self.skip != "none":
            nn.init.zeros_(last.weight)

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale a batch of images.

        Args:
            lr: [N, 3, h, w], RGB in [0, 1].

        Returns:
            [N, 3, scale * h, scale * w], not clamped; of the input's dtype when there is a skip.
        """
        shallow = self.head(lr)
        features = shallow + self.body_end(in_turn(self.body, shallow, recompute=self.recompute))
        residual = cast(Tensor, self.upsample(features))
        if self.skip == "none":
            return residual
        return residual + interpolate(lr, scale=self.scale, mode=self.skip)


def interpolate(lr: Tensor, *, scale: int, mode: Literal["bicubic", "bilinear"]) -> Tensor:
    """Enlarge images by interpolation, in the precision of the input, unaffected by autocast.

    Args:
        lr: [N, C, h, w].
        scale: Enlargement factor.
        mode: "bicubic" (a = -0.5, as MATLAB and Pillow) or "bilinear".

    Returns:
        [N, C, scale * h, scale * w], of the input's dtype.

    Source:
        Keys 1981, whose cubic kernel has a = -1/2.
    """
    # bfloat16 has 8 bits of mantissa: an interpolation in it would be visibly banded.
    with torch.autocast(lr.device.type, enabled=False):
        # In enlargement, antialias changes only torch's cubic coefficient, from -0.75 to -0.5.
        return F.interpolate(lr, scale_factor=float(scale), mode=mode, antialias=True, align_corners=False)
