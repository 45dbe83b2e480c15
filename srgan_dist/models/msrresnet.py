"""MSRResNet: BasicSR's SRResNet without normalisation, under BasicSR's parameter names."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srgan_dist.models.recompute import in_turn
from srgan_dist.models.rrdb import init_scaled_kaiming

NEGATIVE_SLOPE = 0.1  # of every LeakyReLU outside the residual blocks


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels)
        self.conv2 = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.conv2(F.relu(self.conv1(x), inplace=True)))


class MSRResNet(nn.Module):
    """Map a low-resolution image to one `scale` times as large by residuals above a bilinear enlargement.

    Args:
        scale: 2 or 3 (one pixel shuffle) or 4 (two).
        channels: Feature channels (BasicSR's num_feat).
        blocks: Number of residual blocks (BasicSR's num_block).
        recompute: Run the blocks again in the backward pass instead of keeping their activations.

    Raises:
        ValueError: The scale is not one of the above.

    Source:
        BasicSR's MSRResNet (its state dicts load key for key), after Ledig et al. 2017 and, for the blocks without
        normalisation, Lim et al. 2017 (EDSR).
    """

    def __init__(self, *, scale: int = 4, channels: int = 64, blocks: int = 16, recompute: bool = False) -> None:
        super().__init__()
        if scale not in (2, 3, 4):
            raise ValueError(f"MSRResNet: scale is {scale}, allowed are 2, 3 and 4")
        self.scale, self.recompute = scale, recompute
        factor = 2 if scale == 4 else scale
        self.conv_first = _conv(3, channels)
        self.body = nn.Sequential(*(_Block(channels) for _ in range(blocks)))
        self.upconv1 = _conv(channels, channels * factor**2)
        if scale == 4:
            self.upconv2 = _conv(channels, channels * factor**2)
        self.pixel_shuffle = nn.PixelShuffle(factor)
        self.conv_hr = _conv(channels, channels)
        self.conv_last = _conv(channels, 3)
        # Small throughout: the network starts close to the bilinear enlargement.
        init_scaled_kaiming(self.modules())

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale a batch of images.

        Args:
            lr: [N, 3, h, w], RGB in [0, 1].

        Returns:
            [N, 3, scale * h, scale * w], not clamped, of the input's dtype.
        """
        features = F.leaky_relu(self.conv_first(lr), NEGATIVE_SLOPE, inplace=True)
        features = in_turn(self.body, features, recompute=self.recompute)
        for conv in (self.upconv1, self.upconv2) if self.scale == 4 else (self.upconv1,):
            features = F.leaky_relu(self.pixel_shuffle(conv(features)), NEGATIVE_SLOPE, inplace=True)
        features = F.leaky_relu(self.conv_hr(features), NEGATIVE_SLOPE, inplace=True)
        residual = cast(Tensor, self.conv_last(features))
        with torch.autocast(lr.device.type, enabled=False):  # bfloat16 would band the smooth areas
            base = F.interpolate(lr, scale_factor=float(self.scale), mode="bilinear", align_corners=False)
        return residual + base
