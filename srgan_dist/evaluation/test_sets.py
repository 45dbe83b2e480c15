"""Folders of test images: HR images with LR images that are read, or made by the standard method."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
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
    images = find_images(folder, scale=scale)
    return _read(images, find_sources(images, scale=scale), scale=scale)


def _read(images: ImageFolders, sources: Sequence[Source], *, scale: int) -> Iterator[ImagePair]:
    for source in sources:
        whole = read_rgb(source.hr)
        hr = modcrop(whole, scale)
        lr = read_lr(source.lr, whole, scale=scale) if source.lr else downscale(hr, scale)
        yield ImagePair(source.hr.stem, image_tensor(lr), image_tensor(hr))
    log.info("%s", images.description)
