"""Holds images out for validation: which ones, and copies of their files, which `data.validation` reads."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from srgan_dist.data.packing.pairing import Fault, Source
from srgan_dist.data.packing.workers import Workers
from srgan_dist.errors import UserError
from srgan_dist.imaging.read import read_rgb
from srgan_dist.utils.files import sync

VALIDATION_NAME = "validation"


def is_held_out(key: str, fraction: float) -> bool:
    """Decide whether an image is held out for validation, from its key alone, whatever other images there are.

    Args:
        key: Key of the image.
        fraction: Fraction of all keys to hold out, 0 to 1.

    Returns:
        True for about that fraction of all keys; a key held out at one fraction is held out at every greater one.
    """
    return int.from_bytes(sha256(key.encode()).digest()[:8], "big") < fraction * 2**64


def copy_held_out(
    sources: Sequence[Source],
    folder: Path,
    pool: Workers,
    *,
    hr_dir: str | Path,
    lr_dir: str | Path | None,
    scale: int,
) -> list[Fault]:
    """Copy the files of held-out images, after checking that they can be decoded.

    Args:
        sources: The images.
        folder: Folder to create: the HR images by their relative paths; or HR/ and LRx<scale>/ where LR images were
            given.
        pool: Workers that copy.
        hr_dir: Folder of the HR images.
        lr_dir: Folder of the LR images, or None.
        scale: HR pixels per LR pixel.

    Returns:
        The images that cannot be read, which are not copied.

    Raises:
        OSError: The folder cannot be written.
    """
    jobs: list[list[tuple[Path, Path]]] = []
    for source in sources:
        if lr_dir is None or source.lr is None:
            jobs.append([(source.hr, folder / source.hr.relative_to(hr_dir))])
        else:
            hr = folder / "HR" / source.hr.relative_to(hr_dir)
            jobs.append([(source.hr, hr), (source.lr, folder / f"LRx{scale}" / source.lr.relative_to(lr_dir))])
    return [fault for fault in pool.map(_copy, jobs) if fault is not None]


def _copy(files: Sequence[tuple[Path, Path]]) -> Fault | None:
    for path, _ in files:
        try:
            read_rgb(path)
        except UserError as error:
            return Fault(files[0][0], str(error))
    for path, target in files:
        target.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)
            sync(copy)
    return None
