"""Measures a generator on validation images, and draws sample images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from srgan_dist.distributed.runtime import Runtime
from srgan_dist.evaluation.image_measures import ImageMeasure, measure_image
from srgan_dist.evaluation.metrics import luma
from srgan_dist.evaluation.test_sets import ImagePair
from srgan_dist.imaging.contact_sheet import busiest_crop, contact_sheet
from srgan_dist.imaging.pixels import image_array
from srgan_dist.imaging.resize import upscale_bicubic_tensor
from srgan_dist.imaging.tiling import upscale_tiled
from srgan_dist.utils.measures import ALWAYS, MEASURES
from srgan_dist.utils.names import file_names

Upscaler = Callable[[Tensor], Tensor]

TILE = 512  # LR pixels: images of the test sets fit into one tile, larger photographs need bounded memory
_SAMPLES = 4
_CROP = 192  # HR pixels a side in the sample pictures


ImageQuality = dict[str, Any]
"""The quality of one validation image, a line of val.jsonl: ``image``, its name; ``psnr_y`` in dB, None where it is
infinite, or would be for bicubic upscaling; ``ssim_y``; ``perceptual``, None without a feature network; and what else
is measured."""


class Validator:
    """Measures generators on the validation images, distributed among the ranks.

    Args:
        images: All validation images, on every rank.
        scale: Factor between LR and HR.
        runtime: The ranks.
        measures: What is measured besides PSNR and SSIM, by the names of `MEASURES`.

    Attributes:
        names: For each image a name of its own, which can be a folder's.
    """

    def __init__(
        self, images: Sequence[ImagePair], *, scale: int, runtime: Runtime, measures: Mapping[str, ImageMeasure]
    ) -> None:
        self.images, self.scale, self.runtime, self.measures = images, scale, runtime, measures
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
        with self.runtime.images_of_any_size():
            for image, is_blank in zip(self._own_images, self._are_blank, strict=True):
                sr = self.upscale(network, image)
                values = measure_image(sr, image.hr.to(sr.device), scale=self.scale, measures=self.measures)
                if is_blank or values["psnr_y"] == math.inf:
                    values["psnr_y"] = None
                measured.append(dict.fromkeys(ALWAYS) | values)
        of_ranks = self.runtime.all_gather_object(measured)
        return [
            {"image": name, **of_ranks[number % len(of_ranks)][number // len(of_ranks)]}
            for number, name in enumerate(self.names)
        ]

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
        with self.runtime.images_of_any_size():
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
        ``psnr_y`` in dB, ``ssim_y``, ``perceptual`` (None without a feature network), and what else was measured. The
        PSNR of identical images is infinite: they are not in its mean, which is None where there are no others, nor are
        those that bicubic upscaling reproduces, such as blank pages, so that the means of all networks are over the
        same images. ``identical`` counts both, if there are any. Likewise, images that are too small for a measure are
        not in its mean.
    """
    values = {name: [row[name] for row in rows if row[name] is not None] for name in MEASURES if name in rows[0]}
    identical = len(rows) - len(values["psnr_y"])
    means = {name: sum(of_images) / len(of_images) if of_images else None for name, of_images in values.items()}
    return {**means, **({"identical": identical} if identical else {})}


def check_sizes(images: Iterable[ImagePair], *, scale: int) -> str | None:
    """Describe the first image that is too small to be measured, in one line, or return None."""
    smallest = 11 + 2 * scale
    for image in images:
        height, width = image.hr.shape[-2:]
        if min(height, width) < smallest:
            return f"{image.name} is {width}x{height}; images to measure on need at least {smallest} pixels a side"
    return None
