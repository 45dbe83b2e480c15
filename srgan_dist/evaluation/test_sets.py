"""Folders of test images: HR images with LR images that are read, or made by the standard method."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from srgan_dist.data.packing.pairing import find_sources
from srgan_dist.imaging.pixels import image_tensor
from srgan_dist.imaging.read import read_rgb
from srgan_dist.imaging.resize import downscale, modcrop


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
    """Read the test images of a folder, one at a time, in the order of their names.

    Args:
        folder: Folder of HR images, or with HR/ and LRx<scale>/, in which case the LR images are read instead of being
            made by MATLAB-like bicubic downscaling.
        scale: Factor between LR and HR.

    Yields:
        The pairs, HR cropped to a multiple of the scale.

    Raises:
        UserError: The folder has no images, one is unreadable, or HR and LR do not match; all mismatches are reported
            before the first pair.
    """
    folder = Path(folder)
    hr_folder = folder / "HR" if (folder / "HR").is_dir() else folder
    lr_folder = folder / f"LRx{scale}"
    sources = find_sources(hr_folder, lr_folder if lr_folder.is_dir() else None, scale=scale)
    for source in sources:
        hr = modcrop(read_rgb(source.hr), scale)
        lr = read_rgb(source.lr) if source.lr else downscale(hr, scale)
        yield ImagePair(source.hr.stem, image_tensor(lr), image_tensor(hr))
