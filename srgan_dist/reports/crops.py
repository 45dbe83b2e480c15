"""The validation crops of runs, paired: the same picture of every run belongs to one image."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srgan_dist.errors import UserError
from srgan_dist.imaging.read import read_rgb
from srgan_dist.utils.names import printable

Pixels = NDArray[np.uint8]

_ALIKE = 1.0  # levels: the LR of two machines differ in rounding, those of two degradations or scales in more


class Box(NamedTuple):
    """A part of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int
    scale: int = 1
    """Pixels a side of the squares that stand for one."""


@dataclass(frozen=True)
class Crop:
    """One picture: a file, or a part of it."""

    path: Path
    box: Box | None = None

    def pixels(self) -> Pixels:
        """uint8 [H, W, 3].

        Raises:
            UserError: The file cannot be read as a picture.
        """
        if not self.box:
            return read_rgb(self.path)
        top, left, height, width, scale = self.box
        return _sheet(self.path)[top : top + height : scale, left : left + width : scale]

    def lossless(self) -> bytes:
        """As WebP: the file itself, if it is one."""
        if not self.box and (data := self.path.read_bytes())[8:12] == b"WEBP":
            return data
        return encode(self.pixels())

    def size(self) -> int:
        """About how many bytes `lossless` has."""
        return self.box.height * self.box.width // self.box.scale**2 if self.box else self.path.stat().st_size


@lru_cache(maxsize=4)
def _sheet(path: Path) -> Pixels:
    return read_rgb(path)


def encode(pixels: Pixels, *, quality: int | None = None) -> bytes:
    """Encode uint8 [H, W, 3] as WebP, lossless without a quality."""
    buffer = io.BytesIO()
    # The methods that are fast, and hardly larger: 5 and 2 ms for 192x192 pixels.
    options = {"lossless": True, "method": 0} if quality is None else {"quality": quality, "method": 2}
    Image.fromarray(pixels).save(buffer, format="WEBP", **options)
    return buffer.getvalue()


class Crops(NamedTuple):
    """The crops of one validation image in one run."""

    name: str | None
    """None where the run does not say."""
    lr: Crop | None
    bicubic: Crop | None
    hr: Crop | None
    steps: Mapping[int, Crop]


@dataclass
class PairedImage:
    """One validation image, and its crops in every run that has it."""

    name: str
    hr: Crop
    lr: Crop | None
    bicubic: Crop | None
    height: int
    width: int
    runs: dict[int, dict[int, Crop]] = field(default_factory=dict)
    """By run, then by step."""


@dataclass
class _Known:
    image: PairedImage
    hr: Pixels
    lr: Pixels | None


def pair(runs: Sequence[Iterable[Crops]], problems: Sequence[list[str]]) -> list[PairedImage]:
    """Pair crops across runs: those of one name whose HR is the same in every pixel, and whose LR is alike.

    Two pictures under one name are two images, and so is one that was degraded in two ways: what a run makes of
    another's LR is not to be compared.

    Args:
        runs: Of each run its crops.
        problems: Of each run; what is left out is appended, one line each.

    Returns:
        The images, in the order of the runs; a name that comes again gets a number.
    """
    known: list[_Known] = []
    decoded: dict[bytes, Pixels] = {}  # by the file's content, which most runs share

    def read(crop: Crop) -> Pixels:
        if crop.box:
            return crop.pixels()
        digest = hashlib.sha256(crop.path.read_bytes()).digest()
        if digest not in decoded:
            decoded[digest] = crop.pixels()
        return decoded[digest]

    for run, images in enumerate(runs):
        for crops in images:
            name = f"crops of {printable(crops.name or 'a contact sheet')}"
            if not crops.steps:
                problems[run].append(f"{name}: no SR yet")
                continue
            if not crops.hr:
                problems[run].append(f"{name}: left out, as their HR is missing")
                continue
            try:
                hr = read(crops.hr)
                lr = read(crops.lr) if crops.lr else None
            except (UserError, OSError) as error:
                problems[run].append(f"{name}: left out ({printable(str(error))})")
                continue
            found = next(
                (one for one in known if run not in one.image.runs and _is_same(one, crops.name, hr, lr)), None
            )
            if not found:
                size = hr.shape[:2]
                found = _Known(PairedImage(crops.name or "", crops.hr, crops.lr, crops.bicubic, *size), hr, lr)
                known.append(found)
            image = found.image
            image.name = image.name or crops.name or ""
            image.bicubic = image.bicubic or crops.bicubic
            if found.lr is None:
                image.lr, found.lr = crops.lr, lr
            image.runs[run] = dict(sorted(crops.steps.items()))
    images_found = [one.image for one in known]
    _name(images_found)
    return images_found


def _is_same(known: _Known, name: str | None, hr: Pixels, lr: Pixels | None) -> bool:
    if name and known.image.name and name != known.image.name:
        return False
    if known.hr.shape != hr.shape or not np.array_equal(known.hr, hr):
        return False
    if lr is None or known.lr is None:
        return True
    if known.lr.shape != lr.shape:
        return False
    return float(np.abs(known.lr.astype(np.int16) - lr).mean()) < _ALIKE


def _name(images: Sequence[PairedImage]) -> None:
    taken: set[str] = set()
    for image in images:
        base = printable(image.name) or "unnamed"
        name, number = base, 2
        while name in taken:
            name, number = f"{base} ({number})", number + 1
        taken.add(name)
        image.name = name
