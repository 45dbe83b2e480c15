"""Measures a generator on validation images, and draws sample images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypedDict

import numpy as np
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
from srgan_dist.utils.names import file_names

Upscaler = Callable[[Tensor], Tensor]

TILE = 512  # LR pixels: images of the test sets fit into one tile, larger photographs need bounded memory
_SAMPLES = 4
_CROP = 192  # HR pixels a side in the sample pictures


class ImageQuality(TypedDict):
    """The quality of one validation image: a line of val.jsonl.

    Attributes:
        image: Its name.
        psnr_y: In dB; None where it is infinite, or would be for bicubic upscaling.
        ssim_y: In [-1, 1].
        perceptual: `perceptual_distance`, or None without a feature network.
    """

    image: str
    psnr_y: float | None
    ssim_y: float
    perceptual: float | None


class Validator:
    """Measures generators on the validation images, distributed among the ranks.

    Args:
        images: All validation images, on every rank.
        scale: Factor between LR and HR.
        runtime: The ranks.
        features: Frozen network for the perceptual distance, or None to omit it.

    Attributes:
        names: For each image a name of its own, which can be a folder's.
    """

    def __init__(self, images: Sequence[ImagePair], *, scale: int, runtime: Runtime, features: Features | None) -> None:
        self.images, self.scale, self.runtime, self.features = images, scale, runtime, features
        self.names = file_names(image.name for image in images)

    def measure(self, network: nn.Module | Upscaler) -> dict[str, float | None]:
        """Measure the mean quality over the images: `mean_quality` of `measure_each`."""
        return mean_quality(self.measure_each(network))

    def measure_each(self, network: nn.Module | Upscaler) -> list[ImageQuality]:
        """Measure the quality of each image; all ranks call it, and get the same.

        Args:
            network: Maps [1, 3, h, w] in [0, 1] to [1, 3, h * scale, w * scale]; it must be the same on all ranks.

        Returns:
            The quality of each image, in their order.
        """
        measured = []
        for image, is_blank in zip(self._own_images, self._are_blank, strict=True):
            sr = self.upscale(network, image)
            psnr, ssim, distance = quality(sr, image.hr.to(sr.device), scale=self.scale, features=self.features)
            measured.append((None if is_blank or math.isinf(psnr) else psnr, ssim, distance if self.features else None))
        of_ranks = self.runtime.all_gather_object(measured)
        rows = []
        for number, name in enumerate(self.names):
            psnr_y, ssim_y, perceptual = of_ranks[number % len(of_ranks)][number // len(of_ranks)]
            rows.append(ImageQuality(image=name, psnr_y=psnr_y, ssim_y=ssim_y, perceptual=perceptual))
        return rows

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

    @cached_property
    def references(self) -> dict[str, dict[str, Image.Image]]:
        """Of the sample images, by their names, the most detailed crop: ``lr``, with its pixels as squares, ``bicubic``
        and ``hr``, all of the same size.
        """
        upscaled = {"lr": self.crops(self.nearest), "bicubic": self.crops(self.bicubic)}
        hr = {name: Image.fromarray(image_array(image.hr[crop])) for name, image, crop in self._samples}
        return {name: {kind: crops[name] for kind, crops in (upscaled | {"hr": hr}).items()} for name in hr}

    def crops(self, network: nn.Module | Upscaler) -> dict[str, Image.Image]:
        """The same crops of what a network makes of the sample images, by their names."""
        return {
            name: Image.fromarray(image_array(self.upscale(network, image)[crop]))
            for name, image, crop in self._samples
        }

    def contact_sheet(self, columns: Mapping[str, Mapping[str, Image.Image]]) -> Image.Image:
        """Draw the sample images: LR | bicubic | the columns | HR.

        Args:
            columns: By label, the `crops` of a network.
        """
        labels = ["LR", "bicubic", *columns, "HR"]
        rows = [
            [crops["lr"], crops["bicubic"], *(column[name] for column in columns.values()), crops["hr"]]
            for name, crops in self.references.items()
        ]
        return contact_sheet(labels, [[np.asarray(crop) for crop in row] for row in rows])

    @cached_property
    def _samples(self) -> list[tuple[str, ImagePair, tuple[Any, ...]]]:
        """Name, image and the index of its most detailed crop, of the first images; all crops have the same size."""
        smallest = min(min(image.hr.shape[-2:]) for image in self.images)
        side = min(_CROP, smallest) // self.scale * self.scale
        samples: list[tuple[str, ImagePair, tuple[Any, ...]]] = []
        for name, image in zip(self.names[:_SAMPLES], self.images, strict=False):
            top, left = busiest_crop(image_array(image.hr), side=side, multiple=self.scale)
            samples.append((name, image, (..., slice(top, top + side), slice(left, left + side))))
        return samples

    def nearest(self, lr: Tensor) -> Tensor:
        """Nearest-neighbour upscaling: the LR pixels as squares."""
        return lr.repeat_interleave(self.scale, dim=-2).repeat_interleave(self.scale, dim=-1)


def mean_quality(rows: Sequence[ImageQuality]) -> dict[str, float | None]:
    """The mean quality over all validation images.

    Args:
        rows: The quality of each.

    Returns:
        ``psnr_y`` in dB, ``ssim_y``, and ``perceptual`` (None without a feature network). The PSNR of identical images
        is infinite: they are not in its mean, which is None where there are no others, nor are those that bicubic
        upscaling reproduces, such as blank pages, so that the means of all networks are over the same images.
        ``identical`` counts both, if there are any.
    """
    psnr = [row["psnr_y"] for row in rows if row["psnr_y"] is not None]
    perceptual = [row["perceptual"] for row in rows if row["perceptual"] is not None]
    identical = len(rows) - len(psnr)
    return {
        "psnr_y": sum(psnr) / len(psnr) if psnr else None,
        "ssim_y": sum(row["ssim_y"] for row in rows) / len(rows),
        "perceptual": sum(perceptual) / len(perceptual) if perceptual else None,
        **({"identical": identical} if identical else {}),
    }


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
