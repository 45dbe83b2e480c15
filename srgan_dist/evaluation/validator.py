"""Measures a generator on validation images, and draws sample images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor, nn

from srgan_dist.distributed.runtime import Runtime
from srgan_dist.evaluation.metrics import luma, psnr_ssim_y
from srgan_dist.evaluation.test_sets import ImagePair
from srgan_dist.imaging.contact_sheet import busiest_crop, contact_sheet
from srgan_dist.imaging.pixels import image_array
from srgan_dist.imaging.resize import upscale_bicubic_tensor
from srgan_dist.imaging.tiling import upscale_tiled
from srgan_dist.losses.content import Features
from srgan_dist.losses.functional import perceptual_distance

Upscaler = Callable[[Tensor], Tensor]

TILE = 512  # LR pixels: images of the test sets fit into one tile, larger photographs need bounded memory
_SAMPLES = 4
_CROP = 192  # HR pixels a side in the sample pictures


class Validator:
    """Measures generators on the validation images, distributed among the ranks.

    Args:
        images: All validation images, on every rank.
        scale: Factor between LR and HR.
        runtime: The ranks.
        features: Frozen network for the perceptual distance, or None to omit it.
    """

    def __init__(self, images: Sequence[ImagePair], *, scale: int, runtime: Runtime, features: Features | None) -> None:
        self.images, self.scale, self.runtime, self.features = images, scale, runtime, features

    def measure(self, network: nn.Module | Upscaler) -> dict[str, float | None]:
        """Measure the mean quality over the images.

        Args:
            network: Maps [1, 3, h, w] in [0, 1] to [1, 3, h * scale, w * scale]; it must be the same on all ranks.

        Returns:
            ``psnr_y`` in dB, ``ssim_y``, and ``perceptual`` (`perceptual_distance`; None without a feature network).
            The PSNR of identical images is infinite: they are not in its mean, which is None where there are no others,
            nor are those that bicubic upscaling reproduces, such as blank pages, so that the means of all networks are
            over the same images. ``identical`` counts both, if there are any.
        """
        total = torch.zeros(4, dtype=torch.float64)
        for image, is_blank in zip(self._own_images, self._are_blank, strict=True):
            sr = self.upscale(network, image)
            psnr, *others = quality(sr, image.hr.to(sr.device), scale=self.scale, features=self.features)
            total += torch.tensor([0.0, *others, 1.0] if is_blank or math.isinf(psnr) else [psnr, *others, 0.0])
        psnr, ssim, perceptual, identical = self.runtime.reduce_sum(total).tolist()
        count, differing = len(self.images), len(self.images) - identical
        return {
            "psnr_y": psnr / differing if differing else None,
            "ssim_y": ssim / count,
            "perceptual": perceptual / count if self.features else None,
            **({"identical": int(identical)} if identical else {}),
        }

    @property
    def _own_images(self) -> Sequence[ImagePair]:
        return self.images[self.runtime.rank :: self.runtime.world_size]

    @cached_property
    def _are_blank(self) -> list[bool]:
        pairs = ((luma(self.upscale(self.bicubic, image)).cpu(), luma(image.hr)) for image in self._own_images)
        inside = slice(self.scale, -self.scale)
        return [torch.equal(sr[..., inside, inside], hr[..., inside, inside]) for sr, hr in pairs]

    def upscale(self, network: nn.Module | Upscaler, image: ImagePair) -> Tensor:
        """Upscale one image. Returns uint8 on the device."""
        lr = image.lr.to(self.runtime.device, memory_format=self.runtime.memory_format)
        with torch.no_grad():
            return upscale_tiled(network, lr, scale=self.scale, tile=TILE)

    def bicubic(self, lr: Tensor) -> Tensor:
        """The baseline: MATLAB-like bicubic upscaling of [1, 3, h, w]."""
        return upscale_bicubic_tensor(lr, self.scale)

    def contact_sheet(self, networks: Mapping[str, nn.Module]) -> Image.Image:
        """Draw the most detailed crops: LR | bicubic | one column for each network | HR."""
        labels = ["LR", "bicubic", *networks, "HR"]
        smallest = min(min(image.hr.shape[-2:]) for image in self.images)
        side = min(_CROP, smallest) // self.scale * self.scale
        rows = []
        for image in self.images[:_SAMPLES]:
            top, left = busiest_crop(image_array(image.hr), side=side, multiple=self.scale)
            crop = (..., slice(top, top + side), slice(left, left + side))
            upscalers: list[nn.Module | Upscaler] = [self.nearest, self.bicubic, *networks.values()]
            big = [self.upscale(upscaler, image) for upscaler in upscalers]
            rows.append([image_array(picture[crop]) for picture in (*big, image.hr)])
        return contact_sheet(labels, rows)

    def nearest(self, lr: Tensor) -> Tensor:
        """Nearest-neighbour upscaling: the LR pixels as squares."""
        return lr.repeat_interleave(self.scale, dim=-2).repeat_interleave(self.scale, dim=-1)


def quality(sr: Tensor, hr: Tensor, *, scale: int, features: Features | None) -> tuple[float, float, float]:
    """Measure the quality of one image.

    Args:
        sr: uint8 [1, 3, H, W].
        hr: Like ``sr``.
        scale: Number of border pixels that PSNR and SSIM ignore.
        features: Frozen network for the perceptual distance, or None.

    Returns:
        PSNR-Y in dB, SSIM-Y, perceptual distance (0 without a feature network).
    """
    psnr, ssim = psnr_ssim_y(sr, hr, border=scale)
    if features is None:
        return psnr, ssim, 0.0
    with torch.no_grad():
        distance = perceptual_distance(features(sr.float() / 255), features(hr.float() / 255))
    return psnr, ssim, distance.item()


def check_sizes(images: Iterable[ImagePair], *, scale: int) -> str | None:
    """Describe the first image that is too small to be measured, in one line, or return None."""
    smallest = 11 + 2 * scale
    for image in images:
        height, width = image.hr.shape[-2:]
        if min(height, width) < smallest:
            return f"{image.name} is {width}x{height}; images to measure on need at least {smallest} pixels a side"
    return None
