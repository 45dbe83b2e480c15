"""JPEG compression and decompression on the device, with the result of Pillow's libjpeg."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from srgan_dist.degradations.pixels import pad, to_levels

# ITU-T T.81, tables K.1 and K.2, row by row.
_LUMA_TABLE = """
16 11 10 16  24  40  51  61
12 12 14 19  26  58  60  55
14 13 16 24  40  57  69  56
14 17 22 29  51  87  80  62
18 22 37 56  68 109 103  77
24 35 55 64  81 104 113  92
49 64 78 87 103 121 120 101
72 92 95 98 112 100 103  99
"""
_CHROMA_TABLE = """
17 18 24 47 99 99 99 99
18 21 26 66 99 99 99 99
24 26 56 99 99 99 99 99
47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99
99 99 99 99 99 99 99 99
99 99 99 99 99 99 99 99
99 99 99 99 99 99 99 99
"""
_TIE = 1e-6  # exact halves are common in flat blocks; their rounding must not depend on rounding errors


def jpeg_constants(device: torch.device | str) -> Tensor:
    """Compute the constants of `jpeg` on a device.

    Args:
        device: Device of the images.

    Returns:
        float64 [3, 8, 8]: the DCT's matrix, the quantisation tables of luma and of chroma.
    """
    frequency, place = torch.arange(8.0, dtype=torch.float64)[:, None], torch.arange(8.0, dtype=torch.float64)
    dct = torch.cos((2 * place + 1) * frequency * math.pi / 16) / 2
    dct[0] = math.sqrt(1 / 8)
    tables = [torch.tensor([float(number) for number in t.split()]).double() for t in (_LUMA_TABLE, _CHROMA_TABLE)]
    return torch.stack([dct, *(table.view(8, 8) for table in tables)]).to(device)


def jpeg(image: Tensor, quality: Tensor, constants: Tensor) -> Tensor:
    """Compress images as baseline JPEG with 4:2:0 chroma, and decompress them again.

    Chroma is averaged over 2x2 pixels and interpolated linearly, as libjpeg does by default; at most
    a sixth of the levels differ from Pillow's, by 0.2 levels on average (its DCT rounds in between).

    Args:
        image: float32 [b, 3, H, W] in [0, 1], RGB; rounded to 8-bit levels first. H and W are any
            (libjpeg does not interpolate the chroma of images 3 or 4 pixels wide; here it always is).
        quality: integer [b], 1..100, on the image's device.
        constants: The result of `jpeg_constants`, on the image's device.

    Returns:
        float32 [b, 3, H, W] in [0, 1], 8-bit levels / 255.

    Source:
        ITU-T T.81 (JPEG) and T.871 (JFIF); the tables are scaled by quality as in libjpeg.
    """
    height, width = image.shape[-2:]
    luma, chroma = _to_ycc(to_levels(image))
    luma = _through_blocks(luma, _scaled(constants[1], quality), constants[0])
    small = _halved(chroma)
    small = _through_blocks(small, _scaled(constants[2], quality), constants[0])
    return _to_rgb(luma, _doubled(small, height, width)) / 255


def _scaled(table: Tensor, quality: Tensor) -> Tensor:
    q = quality.double()
    percent = torch.where(q < 50, torch.floor(5000 / q), 200 - 2 * q)[:, None, None]
    return torch.floor((table * percent + 50) / 100).clamp_(1, 255)


def _to_ycc(levels: Tensor) -> tuple[Tensor, Tensor]:
    r, g, b = levels.unbind(1)
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    blue = -0.168735892 * r - 0.331264108 * g + 0.5 * b + 128
    red = 0.5 * r - 0.418687589 * g - 0.081312411 * b + 128
    # libjpeg rounds the halves of chroma down, those of luma up.
    chroma = torch.ceil(torch.stack([blue, red], 1) - (0.5 + 1e-4))
    return torch.floor(luma[:, None] + (0.5 + 1e-4)), chroma


def _to_rgb(luma: Tensor, chroma: Tensor) -> Tensor:
    blue, red = (chroma[:, :1] - 128, chroma[:, 1:] - 128)
    r = torch.floor(1.402 * red + 0.5)
    g = torch.floor(-0.344136286 * blue - 0.714136286 * red + 0.5)
    b = torch.floor(1.772 * blue + 0.5)
    return torch.cat([luma + r, luma + g, luma + b], 1).clamp_(0, 255)


def _through_blocks(planes: Tensor, table: Tensor, dct: Tensor) -> Tensor:
    """Transform, quantise and transform back; [b, c, H, W] of levels with one table [b, 8, 8]."""
    height, width = planes.shape[-2:]
    padded = pad(planes, bottom=-height % 8, right=-width % 8)
    # float64 is not affected by TF32 or autocast, and no batch size changes a rounded coefficient.
    values = padded.double().sub_(128)
    step = table[:, None, None, :, None, :]
    # libjpeg's DCT returns whole eighths; without this rounding twice as many levels would differ.
    eighths = torch.floor(_transformed(values, dct) * 8 + (0.5 + _TIE))
    eighths = eighths.view(*padded.shape[:2], -1, 8, padded.shape[-1] // 8, 8)
    whole = torch.floor((eighths.abs() + 4 * step) / (8 * step)).copysign_(eighths)
    values = _transformed((whole * step).view(padded.shape), dct.T)
    levels = torch.floor(values + (128.5 + _TIE)).clamp_(0, 255)
    return levels[..., :height, :width].to(planes.dtype)


def _transformed(planes: Tensor, matrix: Tensor) -> Tensor:
    """Multiply each 8x8 block from both sides: M B M^T."""
    width = planes.shape[-1]
    columns = torch.matmul(matrix, planes.reshape(-1, 8, width))
    return torch.matmul(columns.reshape(-1, 8), matrix.T).view(planes.shape)


def _halved(chroma: Tensor) -> Tensor:
    height, width = chroma.shape[-2:]
    # To whole blocks on the right, to an even number of rows at the bottom: libjpeg repeats the border there.
    even = pad(chroma, bottom=height % 2, right=-width % 16)
    sums = even[..., 0::2, 0::2] + even[..., 0::2, 1::2] + even[..., 1::2, 0::2] + even[..., 1::2, 1::2]
    bias = torch.arange(sums.shape[-1], device=sums.device) % 2 + 1  # alternates, so that no shade is favoured
    return torch.floor((sums + bias) / 4)


def _doubled(small: Tensor, height: int, width: int) -> Tensor:
    # Padded samples are ignored: the border repeats the last real sample.
    small = small[..., : (height + 1) // 2, : (width + 1) // 2]
    wide = pad(small, top=1, bottom=1, left=1, right=1)
    here = 3 * wide[..., 1:-1, :]
    rows = torch.stack([here + wide[..., :-2, :], here + wide[..., 2:, :]], -2)
    rows = rows.flatten(-3, -2)
    near = 3 * rows[..., 1:-1]
    left, right = near + rows[..., :-2] + 8, near + rows[..., 2:] + 7
    return torch.floor(torch.stack([left, right], -1) / 16).flatten(-2)[..., :height, :width]
