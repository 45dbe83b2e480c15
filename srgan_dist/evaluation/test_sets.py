"""Folders of test images: HR images with LR images that are read, or made by the standard method."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from srgan_dist.data.packing.layouts import ImageFolders, find_images
from srgan_dist.data.packing.pairing import Source, find_sources, read_lr
from srgan_dist.imaging.pixels import image_tensor
from srgan_dist.imaging.read import read_rgb
from srgan_dist.imaging.resize import downscale, modcrop

log = logging.getLogger("srgan_dist")


class ImagePair(NamedTuple):
    """One test image.

    Attributes:
        name: File name without its suffix.
        lr: uint8 [1, 3, h, w].
        hr: uint8 [1, 3, h * scale, w * scale].
    """

    name: str
    lr: Tensor
    hr: Tensor


@dataclass(frozen=True)
class ImageSet:
    """The images of a folder, found and not read yet.

    Attributes:
        images: The folders.
        sources: The files of each pair, in the order of their names.
        scale: Factor between LR and HR.
    """

    images: ImageFolders
    sources: Sequence[Source]
    scale: int

    def __len__(self) -> int:
        return len(self.sources)

    def read(self, *, start: int = 0, step: int = 1) -> Iterator[ImagePair]:
        """Read one image at a time, HR cropped to a multiple of the scale; at the end log what the folder is.

        Args:
            start: The first image.
            step: From one image to the next.

        Raises:
            UserError: One is unreadable.
        """
        for source in self.sources[start::step]:
            whole = read_rgb(source.hr)
            hr = modcrop(whole, self.scale)
            lr = read_lr(source.lr, whole, scale=self.scale) if source.lr else downscale(hr, self.scale)
            yield ImagePair(source.hr.stem, image_tensor(lr), image_tensor(hr))
        log.info("%s", self.images.description)


def find_pairs(folder: str | Path, *, scale: int) -> ImageSet:
    """Find the test images of a folder; see `read_pairs`."""
    images = find_images(folder, scale=scale)
    return ImageSet(images, find_sources(images, scale=scale), scale)


def read_pairs(folder: str | Path, *, scale: int) -> Iterator[ImagePair]:
    """Find the test images of a folder, and read one at a time, in the order of their names; at the end log which.

    Args:
        folder: Folder of HR images, or laid out as published sets are (`srgan_dist.data.packing.layouts.LAYOUTS`), such
            as HR/ beside LRx<scale>/: then LR images of this scale are read instead of being made by MATLAB-like
            bicubic downscaling.
        scale: Factor between LR and HR.

    Returns:
        The pairs, HR cropped to a multiple of the scale.

    Raises:
        UserError: The folder has no images, or several subfolders of them that fit no layout, one is unreadable, or HR
            and LR do not match; mismatches are reported here, before the first pair is read.
    """
    return find_pairs(folder, scale=scale).read()
