"""SPAN: attention without parameters, from convolutions that are trained as the sum of two branches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srgan_dist.models.recompute import in_turn
from srgan_dist.models.reparameterised import Reparameterised

_GAIN = 2  # by which the wide branch is wider
_BLOCKS = 6
_MEAN = (0.4488, 0.4371, 0.4040)  # RGB, of DIV2K
_RANGE = 255.0


class _BranchedConv(nn.Module):
    """A 3x3 convolution whose kernel is that of a 1x1, 3x3, 1x1 sequence plus that of a 1x1 convolution.

    The branches are merged in every forward pass, before the image: the gradient is that of the branches applied one
    after another, at a fifth of the operations and none of the memory.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        merged: Merge once, when weights are loaded, into `eval_conv`; not for training.
    """

    def __init__(self, in_channels: int, out_channels: int, *, merged: bool) -> None:
        super().__init__()
        wide_in, wide_out = _GAIN * in_channels, _GAIN * out_channels
        self.sk = nn.Conv2d(in_channels, out_channels, 1)
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, wide_in, 1), nn.Conv2d(wide_in, wide_out, 3), nn.Conv2d(wide_out, out_channels, 1)
        )
        self.eval_conv = nn.Conv2d(in_channels, out_channels, 3, padding=1) if merged else None
        if merged:
            self.register_load_state_dict_post_hook(_merge)  # type: ignore[no-untyped-call]

    def kernel(self) -> tuple[Tensor, Tensor]:
        """The weight [out, in, 3, 3] and bias [out] of the convolution that this is."""
        first, middle, last = (cast(nn.Conv2d, layer) for layer in self.conv)
        outer, inner = last.weight[..., 0, 0], first.weight[..., 0, 0]
        # Zeros around the image come before the first bias, so that this bias is the same up to the border.
        bias = outer @ (middle.weight.sum((2, 3)) @ _bias(first) + _bias(middle)) + _bias(last) + _bias(self.sk)
        weight = torch.einsum("om,mnhw,ni->oihw", outer, middle.weight, inner)
        return weight + F.pad(self.sk.weight, (1, 1, 1, 1)), bias

    def forward(self, x: Tensor) -> Tensor:
        if self.eval_conv is not None:
            return cast(Tensor, self.eval_conv(x))
        with torch.autocast(x.device.type, enabled=False):  # products of weights are not rounded to bfloat16
            weight, bias = self.kernel()
        return F.conv2d(x, weight, bias, padding=1)


def _bias(conv: nn.Conv2d) -> Tensor:
    return cast(Tensor, conv.bias)


@torch.no_grad()
def _merge(conv: nn.Module, _: Any) -> None:
    """Make `eval_conv` of the branches: what a file says of it counts for nothing, as in other programs."""
    assert isinstance(conv, _BranchedConv)
    assert conv.eval_conv is not None
    weight, bias = conv.kernel()
    conv.eval_conv.weight.copy_(weight)
    _bias(conv.eval_conv).copy_(bias)


class _AttentionBlock(nn.Module):
    """Three convolutions whose output is also the attention on it (Wan et al. 2024, eq. 4 and 5)."""

    def __init__(self, channels: int, *, merged: bool) -> None:
        super().__init__()
        self.c1_r = _BranchedConv(channels, channels, merged=merged)
        self.c2_r = _BranchedConv(channels, channels, merged=merged)
        self.c3_r = _BranchedConv(channels, channels, merged=merged)

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output, and the activations of the first convolution."""
        first = F.silu(self.c1_r(x))
        features = cast(Tensor, self.c3_r(F.silu(self.c2_r(first))))
        return (features + x) * (torch.sigmoid(features) - 0.5), first

    def forward(self, x: Tensor) -> Tensor:
        return self.both(x)[0]


class SPAN(Reparameterised):
    """Map a low-resolution image to one `scale` times as large by blocks of parameter-free attention.

    Args:
        scale: 1, 2, 3, 4 or 8.
        channels: Feature channels.
        input_norm: Subtract DIV2K's mean and multiply by 255, as the paper's code does; many trainers leave it out.
        merged: The form of the files, for inference: with a plain convolution beside the branches of each.
        recompute: Run the blocks again in the backward pass instead of keeping their activations.

    Raises:
        ValueError: The scale is not one of the above.

    Source:
        Wan et al. 2024 (Swift Parameter-free Attention Network), figures 2 to 4, under its parameter names.
    """

    def __init__(
        self,
        *,
        scale: int = 4,
        channels: int = 48,
        input_norm: bool = False,
        merged: bool = False,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if scale not in (1, 2, 3, 4, 8):
            raise ValueError(f"SPAN: scale is {scale}, allowed are 1, 2, 3, 4 and 8")
        self.scale, self.input_norm, self.recompute = scale, input_norm, recompute
        self.conv_1 = _BranchedConv(3, channels, merged=merged)
        for number in range(1, _BLOCKS + 1):
            self.add_module(f"block_{number}", _AttentionBlock(channels, merged=merged))
        self.conv_2 = _BranchedConv(channels, channels, merged=merged)
        self.conv_cat = nn.Conv2d(4 * channels, channels, 1)
        self.upsampler = nn.Sequential(nn.Conv2d(channels, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))
        self.no_norm: Tensor | None
        self.register_buffer("no_norm", None if input_norm else torch.zeros(1))  # by which files tell
        self._begin_as_nearest()

    @torch.no_grad()
    def _begin_as_nearest(self) -> None:
        """Let the first three features be the image, and the output that image enlarged.

        From torch's own initialisation, whose output is noise, a short training gets nowhere: 25 s on a core led to
        24.9 dB on Set5 from there, and to 29.2 dB from here.
        """
        identity, features, last = torch.eye(3), self.conv_1, cast(nn.Conv2d, self.upsampler[0])
        wide = cast(nn.Conv2d, features.conv[2])
        for values in (features.sk.weight, _bias(features.sk), wide.weight, _bias(wide)):
            values[:3] = 0
        features.sk.weight[:3, :, 0, 0] = identity
        self.conv_cat.weight[:3], _bias(self.conv_cat)[:3] = 0, 0
        self.conv_cat.weight[:3, :3, 0, 0] = identity
        nn.init.zeros_(last.weight)
        nn.init.zeros_(_bias(last))
        last.weight[:, :3, 1, 1] = identity.repeat_interleave(self.scale**2, dim=0)
        if self.input_norm:
            last.weight.div_(_RANGE)
            _bias(last).copy_(torch.tensor(_MEAN).repeat_interleave(self.scale**2))

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale a batch of images.

        Args:
            lr: [N, 3, h, w], RGB in [0, 1].

        Returns:
            [N, 3, scale * h, scale * w], not clamped.
        """
        x = (lr - lr.new_tensor(_MEAN).view(1, 3, 1, 1)) * _RANGE if self.input_norm else lr
        blocks = [self.get_submodule(f"block_{number}") for number in range(1, _BLOCKS + 1)]
        shallow = self.conv_1(x)
        first = in_turn(blocks[:1], shallow, recompute=self.recompute)
        last, within_last = cast(_AttentionBlock, blocks[-1]).both(
            in_turn(blocks[1:-1], first, recompute=self.recompute)
        )
        features = self.conv_cat(torch.cat((shallow, self.conv_2(last), first, within_last), dim=1))
        return cast(Tensor, self.upsampler(features))

    @torch.no_grad()
    def saved_weights(self) -> dict[str, Tensor]:
        """The original's state dict: the branches, and the convolution that they add up to."""
        weights = self.state_dict()
        for name, module in self.named_modules():
            if isinstance(module, _BranchedConv):
                weights[f"{name}.eval_conv.weight"], weights[f"{name}.eval_conv.bias"] = module.kernel()
        return weights

    def trained_weights(self, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Reparameterised`: without what the branches add up to."""
        return {name: value for name, value in saved.items() if ".eval_conv." not in name}
