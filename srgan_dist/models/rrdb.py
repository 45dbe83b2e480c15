"""RRDBNet, the generator of ESRGAN, under the parameter names that other tools load."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srgan_dist.models.recompute import in_turn

RESIDUAL_SCALE = 0.2  # Wang et al. 2018, section 3.1: residuals are scaled down to keep training stable


@torch.no_grad()
def init_scaled_kaiming(modules: Iterable[nn.Module], *, gain: float = 0.1) -> None:
    """Initialise convolutions with Kaiming weights times a small gain and zero biases.

    Args:
        modules: Any modules; those that are not Conv2d are ignored.
        gain: Multiplies the Kaiming weights.

    Source:
        Wang et al. 2018 (ESRGAN), section 3.1, "smaller initialization".
    """
    for module in modules:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            module.weight.mul_(gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


class _DenseBlock(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, growth)
        self.conv2 = _conv(channels + growth, growth)
        self.conv3 = _conv(channels + 2 * growth, growth)
        self.conv4 = _conv(channels + 3 * growth, growth)
        self.conv5 = _conv(channels + 4 * growth, channels)

    def forward(self, x: Tensor) -> Tensor:
        dense = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            dense = torch.cat((dense, F.leaky_relu(conv(dense), 0.2, inplace=True)), dim=1)
        return x + RESIDUAL_SCALE * cast(Tensor, self.conv5(dense))


class _RRDB(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = _DenseBlock(channels, growth)
        self.rdb2 = _DenseBlock(channels, growth)
        self.rdb3 = _DenseBlock(channels, growth)

    def forward(self, x: Tensor) -> Tensor:
        return x + RESIDUAL_SCALE * cast(Tensor, self.rdb3(self.rdb2(self.rdb1(x))))


class RRDBNet(nn.Module):
    """Map a low-resolution image to one `scale` times as large by residual-in-residual dense blocks.

    Args:
        scale: 1, 2 or 4. The network itself enlarges four times; for 1 and 2 its input is first folded
            4 and 2 times (pixel unshuffle), which keeps the weights' names and most of their shapes.
        channels: Feature channels.
        blocks: Number of RRDBs.
        growth: Channels that each dense layer adds.
        padding: How an image is continued whose sides are no multiples of 4 / scale; "reflect" as in the original.
        recompute: Run the blocks again in the backward pass instead of keeping their activations.

    Raises:
        ValueError: The scale is not one of the above.

    Source:
        Wang et al. 2018 (ESRGAN), figures 3 and 4; Wang et al. 2021 (Real-ESRGAN), figure 4, for scales 1 and 2.
        Parameter names as in BasicSR, so that chaiNNer and ComfyUI load the weights.
    """

    def __init__(
        self,
        *,
        scale: int = 4,
        channels: int = 64,
        blocks: int = 23,
        growth: int = 32,
        padding: Literal["reflect", "replicate"] = "reflect",
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if scale not in (1, 2, 4):
            raise ValueError(f"RRDBNet: scale is {scale}, allowed are 1, 2 and 4")
        self.scale, self.recompute = scale, recompute
        self.fold, self.padding = 4 // scale, padding
        self.conv_first = _conv(3 * self.fold**2, channels)
        self.body = nn.Sequential(*(_RRDB(channels, growth) for _ in range(blocks)))
        self.conv_body = _conv(channels, channels)
        self.conv_up1 = _conv(channels, channels)
        self.conv_up2 = _conv(channels, channels)
        self.conv_hr = _conv(channels, channels)
        self.conv_last = _conv(channels, 3)
        # Only inside the residuals: elsewhere small weights would make output and gradient almost 0.
        init_scaled_kaiming(self.body.modules())

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale a batch of images.

        Args:
            lr: [N, 3, h, w], RGB in [0, 1]; any h and w (padded inside to a multiple of 4 / scale).

        Returns:
            [N, 3, scale * h, scale * w], not clamped.
        """
        height, width = lr.shape[-2:]
        folded = lr
        if self.fold > 1:
            folded = F.pixel_unshuffle(self._padded(lr, -height % self.fold, -width % self.fold), self.fold)
        shallow = self.conv_first(folded)
        features = shallow + self.conv_body(in_turn(self.body, shallow, recompute=self.recompute))
        for conv in (self.conv_up1, self.conv_up2):
            enlarged = F.interpolate(features, scale_factor=2.0, mode="nearest")
            features = F.leaky_relu(conv(enlarged), 0.2, inplace=True)
        sr = cast(Tensor, self.conv_last(F.leaky_relu(self.conv_hr(features), 0.2, inplace=True)))
        return sr[..., : self.scale * height, : self.scale * width]

    def _padded(self, lr: Tensor, below: int, right: int) -> Tensor:
        """Continue an image beyond its lower and right border, by at most 3 pixels."""
        if self.padding == "reflect":  # as far as there is something to reflect; a row of 1 has nothing
            reflected = min(below, lr.shape[-2] - 1), min(right, lr.shape[-1] - 1)
            lr = F.pad(lr, (0, reflected[1], 0, reflected[0]), mode="reflect")
            below, right = below - reflected[0], right - reflected[1]
        return F.pad(lr, (0, right, 0, below), mode="replicate")
