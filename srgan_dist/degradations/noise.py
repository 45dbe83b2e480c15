"""Gaussian and Poisson noise from per-sample keys, with the same bits on every device.

Normal and Poisson numbers are looked up in tables instead of computed (Box-Muller's logarithm and cosine
differ in the last bit between devices, and between the vector and the scalar code of one CPU).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from srgan_dist.degradations.draws import hash_counters
from srgan_dist.degradations.pixels import to_levels

_QUANTILES = 1 << 16
_LEVELS = 256
_POWERS = 9  # 1, 2, 4, ... 256 photons
_LUMA = (0.2989, 0.587, 0.114)  # MATLAB rgb2gray, as the published code


class NoiseTables(NamedTuple):
    """Lookup tables of noise; see `noise_tables`.

    Attributes:
        normal: float32 [65536], equally likely values of a standard normal.
        poisson: float64 [n], ascending: the distribution functions of rows 0, 1, ... one after another, each
            with its row's number added. Row power * 256 + level has the mean level / 255 * 2^power.
        starts: int64 [rows], where each row begins.
    """

    normal: Tensor
    poisson: Tensor
    starts: Tensor


def noise_tables(device: torch.device | str) -> NoiseTables:
    """Compute the tables, 2.5 MB, and put them on a device.

    Args:
        device: Device on which noise is made.

    Returns:
        The tables.
    """
    middles = (torch.arange(_QUANTILES, dtype=torch.float64) + 0.5) / _QUANTILES
    normal = torch.special.ndtri(middles)
    normal = normal / normal.square().mean().sqrt()  # the cut tails (beyond 4.3) would lower the variance
    rows, starts, total = [], [], 0
    for power in range(_POWERS):
        photons = 1 << power
        # Beyond 7 deviations plus 12, the rest of any row is below the resolution of 2^-32 of the draws.
        counts = torch.arange(int(photons + 7 * photons**0.5 + 12), dtype=torch.float64)
        means = torch.arange(_LEVELS, dtype=torch.float64)[:, None] / 255 * photons
        table = torch.special.gammaincc(counts + 1, means)  # P(X <= count)
        table[:, -1] = 1.0
        rows.append((table + torch.arange(_LEVELS)[:, None] + power * _LEVELS).flatten())
        starts.append(total + torch.arange(_LEVELS) * counts.numel())
        total += _LEVELS * counts.numel()
    return NoiseTables(normal.float().to(device), torch.cat(rows).to(device), torch.cat(starts).to(device))


def add_gaussian(image: Tensor, tables: NoiseTables, *, keys: Tensor, sigma: Tensor, grey: Tensor) -> Tensor:
    """Add white Gaussian noise, without clamping.

    Args:
        image: float32 [b, 3, H, W] in [0, 1].
        tables: The result of `noise_tables` on the image's device.
        keys: int64 [b], keys of the noise.
        sigma: float32 [b], standard deviation in 8-bit levels.
        grey: bool [b]; the same noise in all channels.

    Returns:
        float32 [b, 3, H, W]. The noise is within 4.3 sigma.
    """
    field = _normal(keys, tables.normal, image.shape)
    field = torch.where(_wide(grey), field[:, :1], field)
    return image + field * _wide(sigma / 255)  # not addcmul, whose fused rounding differs between devices


def add_poisson(image: Tensor, tables: NoiseTables, *, keys: Tensor, scale: Tensor, grey: Tensor) -> Tensor:
    """Add photon noise, without clamping.

    The brightest pixel has as many photons as the image has distinct levels, rounded up to a power of two,
    so that the noise of an ordinary photograph is Poisson at 256 photons times the scale.

    Args:
        image: float32 [b, 3, H, W] in [0, 1]; the noise is that of its 8-bit levels.
        tables: The result of `noise_tables` on the image's device.
        keys: int64 [b], keys of the noise.
        scale: float32 [b], factor on the noise.
        grey: bool [b]; the noise of the luma in all channels.

    Returns:
        float32 [b, 3, H, W].

    Source:
        Wang et al., "Real-ESRGAN", 2021, and its published code.
    """
    # Not a matrix product, which might run in TF32 or bf16, depending on the training's settings.
    luma = image[:, 0] * _LUMA[0] + image[:, 1] * _LUMA[1] + image[:, 2] * _LUMA[2]
    levels = to_levels(torch.where(_wide(grey), luma[:, None], image)).long()
    power = _log2_distinct(levels)
    row = _wide(power * _LEVELS) + levels
    unit = torch.where(_wide(grey), (field := _uniform(keys, image.shape))[:, :1], field)
    photons = torch.searchsorted(tables.poisson, row + unit, right=True) - tables.starts[row]
    noise = photons.float() / _wide(2.0 ** power.float()) - levels.float() / 255
    return image + noise * _wide(scale)


def _log2_distinct(levels: Tensor) -> Tensor:
    flat = levels.flatten(1)
    seen = torch.zeros(flat.shape[0], _LEVELS, device=flat.device, dtype=torch.int64).scatter_(1, flat, 1)
    # The bit length of count - 1, computed on the device.
    bounds = 1 << torch.arange(_POWERS - 1, device=flat.device)
    return (seen.sum(1)[:, None] > bounds).sum(1)


def _normal(keys: Tensor, quantiles: Tensor, shape: torch.Size) -> Tensor:
    return quantiles[_parts(keys, shape, bits=16)]


def _uniform(keys: Tensor, shape: torch.Size) -> Tensor:
    # float64: a row's number and 32 random bits need 44.
    return _parts(keys, shape, bits=32).double() / 2.0**32


def _parts(keys: Tensor, shape: torch.Size, *, bits: int) -> Tensor:
    """Split hashes into numbers of ``bits`` bits: [b, ...] for keys [b]."""
    each = 64 // bits
    size = shape[1:].numel()
    hashes = hash_counters(keys, -(-size // each))
    shifts = torch.arange(0, 64, bits, device=keys.device)
    parts = (hashes[..., None] >> shifts).bitwise_and_((1 << bits) - 1)
    return parts.flatten(1)[:, :size].reshape(shape)


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None, None]
