"""Compact: Real-ESRGAN's small, fast generator (SRVGGNetCompact), with an identity beside each layer in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srgan_dist.models.recompute import in_turn
from srgan_dist.models.reparameterised import Reparameterised
from srgan_dist.models.rrdb import init_scaled_kaiming

_STAGE = 8  # layers, activations included, between two activations that recomputing keeps


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


class _ResidualConv(nn.Conv2d):
    """A convolution with an identity beside it: that of another kernel, one larger at its centre.

    To Adam both are the same network from another start. But in bfloat16 a weight near 1 moves in steps of 1/256, and
    beside it stays exact.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Compact(Reparameterised):
    """Map a low-resolution image to one `scale` times as large by a plain chain of convolutions above its pixels.

    Args:
        scale: 1, 2, 3, 4 or 8.
        channels: Feature channels (num_feat).
        convs: Convolutions between the first and the last (num_conv).
        merged: The form of the files, SRVGGNetCompact itself; otherwise each of those convolutions has an identity
            beside it, without which the network hardly leaves the nearest enlargement.
        recompute: Run parts again in the backward pass instead of keeping their activations.

    Raises:
        ValueError: The scale is not one of the above.

    Source:
        SRVGGNetCompact of Real-ESRGAN (Wang et al. 2021), under its parameter names, with its PReLU.
    """

    def __init__(
        self,
        *,
        scale: int = 4,
        channels: int = 64,
        convs: int = 16,
        merged: bool = False,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if scale not in (1, 2, 3, 4, 8):
            raise ValueError(f"Compact: scale is {scale}, allowed are 1, 2, 3, 4 and 8")
        self.scale, self.recompute = scale, recompute
        layers: list[nn.Module] = [_conv(3, channels), nn.PReLU(channels)]
        for _ in range(convs):
            layers += [_conv(channels, channels) if merged else _ResidualConv(channels), nn.PReLU(channels)]
        last = _conv(channels, 3 * scale**2)
        self.body = nn.Sequential(*layers, last)
        init_scaled_kaiming([layers[0]], gain=1.0)
        init_scaled_kaiming(layers[1:])
        nn.init.zeros_(last.weight)  # an untrained network is the nearest enlargement
        nn.init.zeros_(cast(Tensor, last.bias))

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale a batch of images.

        Args:
            lr: [N, 3, h, w], RGB in [0, 1].

        Returns:
            [N, 3, scale * h, scale * w], not clamped.
        """
        stages = [self.body]
        if self.recompute:
            stages = [self.body[start : start + _STAGE] for start in range(0, len(self.body), _STAGE)]
        residual = F.pixel_shuffle(in_turn(stages, lr, recompute=self.recompute), self.scale)
        return residual + F.interpolate(lr, scale_factor=float(self.scale), mode="nearest")

    def saved_weights(self) -> dict[str, Tensor]:
        """SRVGGNetCompact's state dict."""
        return self._shifted(self.state_dict(), by=1.0)

    def trained_weights(self, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Reparameterised`; a kernel of another shape than this network's stays as it is."""
        return self._shifted(saved, by=-1.0)

    def _shifted(self, weights: Mapping[str, Tensor], *, by: float) -> dict[str, Tensor]:
        shifted = dict(weights)
        for index, layer in enumerate(self.body):
            kernel = weights.get(f"body.{index}.weight")
            if not isinstance(layer, _ResidualConv) or kernel is None or kernel.shape != layer.weight.shape:
                continue
            if kernel.is_floating_point() and kernel.itemsize > 1:  # of others, loading says what is wrong
                identity = nn.init.dirac_(torch.empty_like(kernel, memory_format=torch.contiguous_format))
                shifted[f"body.{index}.weight"] = kernel + by * identity
        return shifted
