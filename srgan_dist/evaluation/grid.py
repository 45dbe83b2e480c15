"""The measure of grid artefacts: what upsampling by pixel shuffle or transposed convolution leaves on smooth areas."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

_SIDE = 32  # pixels of a window, about
_FEWEST = 8  # bins from one grid frequency to the next, so that there are neighbours between them
_LOBE = 1  # bins to each side that the Hann window spreads a line over
_RING = (3, 4)  # bins to each side at which the neighbours lie
_VISIBLE = 2.0  # levels, root mean square: a pattern on a smooth area that makes the measure 2
_PIXELS = 2**22  # of windows at a time: 100 MB
# The mean of the logarithm of exponentially distributed power lies this far below the logarithm of its mean: Euler's.
_LOG_OF_MEAN = 0.5772156649


def grid_ratio(sr: Tensor, hr: Tensor, *, scale: int) -> float | None:
    """Measure how much stronger the upsampling grid of an image is than that of its HR image.

    A network that upsamples by pixel shuffle or transposed convolution may repeat a pattern every ``scale`` pixels.
    Such a pattern has power at multiples of 1/scale cycles a pixel alone, on both axes and between them, where a
    photograph has as much as at the frequencies beside them. In overlapping Hann windows, for each colour and each of
    the scale^2 - 1 frequencies g, the power P at it is compared with the geometric mean N of the power around it::

        q = max(1, mean over g of (P + c) / (N + c)),    grid = max(1, exp(mean over windows of log q_SR - log q_HR))

    c is the power of a pattern of 2 levels (root mean square, of 255), so that what nobody sees does not count, and a
    flat area divides by no zero. The mean of the logarithm lets no single edge or text outweigh the smooth areas.

    Args:
        sr: uint8 [1, 3, H, W].
        hr: Like ``sr``.
        scale: Factor between LR and HR.

    Returns:
        A number from 1: no more of a grid than HR; 2: twice as much power at the grid's frequencies, as a pattern of 2
        levels on a smooth image has. None without upscaling, or where the image is smaller than a window.
    """
    if scale == 1 or min(hr.shape[-2:]) < _side(scale):
        return None
    return max(1.0, (_log_excess(sr, scale) - _log_excess(hr, scale)).exp().item())


def _side(scale: int) -> int:
    """Pixels of a window a side: an even number of periods."""
    return scale * max(_FEWEST, 2 * round(_SIDE / (2 * scale)))


def _log_excess(image: Tensor, scale: int) -> Tensor:
    """The mean of log q over colours and windows."""
    side = _side(scale)
    windows = image[0].unfold(-2, side, side // 2).unfold(-2, side, side // 2)  # [3, rows, columns, side, side]
    rows = max(1, _PIXELS // (3 * windows.shape[2] * side**2))
    return torch.cat([_window_excess(part, scale).log().flatten() for part in torch.split(windows, rows, dim=1)]).mean()


def _window_excess(windows: Tensor, scale: int) -> Tensor:
    """q of windows [..., side, side] with values from 0 to 255: [...]."""
    side = windows.shape[-1]
    hann = torch.hann_window(side, dtype=torch.float32, device=windows.device)
    hann = hann[:, None] * hann
    values = windows.float()
    values = values - values.mean((-2, -1), keepdim=True)
    # Normalised so that white noise has its variance as power.
    power = torch.fft.fft2(values * hann).abs().square() / hann.square().sum()
    # Of a line |F|^2 = (amplitude x sum of the window)^2; to each side a Hann window leaves half of the amplitude.
    line = (1.5 / (2 * _LOBE + 1)) ** 2 * hann.sum() ** 2 / hann.square().sum()
    floor = _VISIBLE**2 / (scale**2 - 1) * line
    offsets = torch.arange(-_RING[1], _RING[1] + 1, device=windows.device)
    distance = torch.maximum(offsets[:, None].abs(), offsets.abs())
    lobe, ring = distance <= _LOBE, distance >= _RING[0]
    ratios = []
    for row, column in product(range(scale), repeat=2):
        if row or column:
            rows, columns = ((at * side // scale + offsets) % side for at in (row, column))
            around = power[..., rows[:, None], columns]
            at_grid = around[..., lobe].mean(-1)
            beside = around[..., ring].clamp(min=1e-12).log().mean(-1).add(_LOG_OF_MEAN).exp()
            ratios.append((at_grid + floor) / (beside + floor))
    return torch.stack(ratios).mean(0).clamp(min=1)
