"""The quality of the generated images of a training batch, cheap enough to be measured at every step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from srgan_dist.data.loading.loader import Patches
from srgan_dist.imaging.resize import bicubic_matrix
from srgan_dist.losses import functional as losses

_SATURATED = 0.52  # distance from 0.5: 5 of 255 levels outside of [0, 1]; good networks overshoot by less


class BatchQuality:
    """Measures generated images; nothing here waits for the device.

    All patches have one size, so that bicubic enlarging is a product with the same two matrices every time: an eighth
    of the time that resizing takes on a CPU.
    """

    def __init__(self) -> None:
        self._matrices: dict[tuple[int, int], Tensor] = {}

    @torch.no_grad()
    def __call__(self, generated: Sequence[Tensor], batch: Sequence[Patches]) -> dict[str, Tensor]:
        """Measure the generated images of a batch.

        Args:
            generated: [N, 3, H, W] each, one tensor for each micro-batch.
            batch: The micro-batches, all of the same size.

        Returns:
            Means over the images: ``g/mse`` and ``g/mse_bicubic``, the squared errors of the images and of bicubic
            enlargements, both clamped to [0, 1]; ``g/saturated``, the fraction of values that are more than 5 of 255
            levels outside of [0, 1].
        """
        rows = []
        for sr, pair in zip(map(losses.full, generated), batch, strict=True):
            hr, bicubic = losses.full(pair.hr), self._upscaled(losses.full(pair.lr), pair.hr.shape[-1])
            outside = (sr - 0.5).abs() > _SATURATED
            errors = ((image.clamp(0, 1) - hr).square().mean() for image in (sr, bicubic))
            rows.append(torch.stack([*errors, outside.to(sr.dtype).mean()]))
        return dict(zip(("g/mse", "g/mse_bicubic", "g/saturated"), torch.stack(rows).mean(dim=0), strict=True))

    def _upscaled(self, lr: Tensor, width: int) -> Tensor:
        scale = width // lr.shape[-1]
        rows, columns = (self._matrix(length, scale, like=lr) for length in lr.shape[-2:])
        return rows @ lr @ columns.T

    def _matrix(self, length: int, scale: int, *, like: Tensor) -> Tensor:
        if (length, scale) not in self._matrices:
            self._matrices[length, scale] = bicubic_matrix(length, scale).to(like)
        return self._matrices[length, scale]
