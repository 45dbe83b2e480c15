"""Upscales image files: one, or every one of a folder, of which a bad one does not stop the others."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, TypeAlias

from srgan_dist.distributed.memory import available_ram
from srgan_dist.errors import Failure, UserError
from srgan_dist.imaging.listing import list_images
from srgan_dist.imaging.picture import Picture, read_picture, read_shape
from srgan_dist.imaging.write import check_fits, check_holds, check_quality, format_of, write_picture
from srgan_dist.inference.generator import NotFinite, SRGenerator
from srgan_dist.utils.files import why_unwritable

log = logging.getLogger("srgan_dist")

_COPIES = 2  # of the result, at least: one of ours, and Pillow's

Job: TypeAlias = tuple[Path, Path]
"""An image, and the file for its result."""
OnError: TypeAlias = Literal["stop", "skip"]
Report: TypeAlias = Callable[[int, int | None], None]


def upscale_jobs(source: Path, target: Path, *, suffix: str = ".png") -> list[Job]:
    """List the images to upscale and their results, before any is upscaled.

    Args:
        source: An image, or a folder of them; a target folder inside it does not belong to it.
        target: For an image, a file or a folder that exists; for a folder, one for files of the same relative names.
        suffix: Format of files in a target folder.

    Returns:
        (image, result) for each image.

    Raises:
        UserError: The source does not exist, or a target has an unknown format, would overwrite an image, or is in a
            folder that cannot be written.
    """
    if source.is_dir():
        if target.resolve() == source.resolve():
            raise UserError(f"{target}: is the folder of the images to upscale; choose another output")
        images = [image for image in list_images(source) if target.resolve() not in image.resolve().parents]
        if not images:
            raise UserError(f"{source}: holds no images but those in the output {target}")
        jobs = [(image, (target / image.relative_to(source)).with_suffix(suffix)) for image in images]
    elif source.is_file():
        jobs = [(source, (target / source.name).with_suffix(suffix) if target.is_dir() else target)]
    else:
        raise UserError(f"{source}: there is no such image or folder")
    claimed: dict[Path, Path] = {}
    originals = {_identity(image) for image, _ in jobs}
    for image, result in jobs:
        format_of(result)
        if result.exists() and _identity(result) in originals:
            raise UserError(f"{result}: would overwrite an image that is to be upscaled; choose another output")
        other = claimed.setdefault(result, image)
        if other is not image:
            raise UserError(f"{result}: would be the result of both {other} and {image}; rename one")
    for folder in {result.parent: None for _, result in jobs}:
        if unwritable := why_unwritable(folder):
            raise UserError(f"{folder}: results cannot be written there ({unwritable})")
    return jobs


def _identity(path: Path) -> tuple[int, int]:
    # Links, and names that only differ in case where the file system does not tell them apart, are one file.
    status = path.stat()
    return status.st_dev, status.st_ino


def upscale_file(
    generator: SRGenerator,
    source: Path,
    target: Path,
    *,
    tile: int,
    quality: int | None = None,
    on_tile: Callable[[int, int], None] | None = None,
) -> None:
    """Upscale an image file; the target is written atomically.

    Args:
        generator: The network.
        source: The image.
        target: Its result; the suffix is the format.
        tile: Largest side of a tile, in LR pixels.
        quality: Of JPEG and WebP, from 1 to 100.
        on_tile: Called with (number of finished tiles, number of tiles).

    Raises:
        UserError: The source is unreadable or of a kind that is not upscaled, or the target cannot be written or hold
            the result, before it is computed where that can be known; or the network's output is not finite.
    """
    check_quality(quality, target)
    picture = read_picture(source)
    check_fits(target, picture, scale=generator.scale)
    _check_memory(source, picture, scale=generator.scale)
    try:
        result = generator.upscale_picture(picture, tile=tile, on_tile=on_tile)
    except NotFinite as error:
        raise NotFinite(f"{source}: {error}") from None
    write_picture(result, target, quality=quality)


def _check_memory(source: Path, picture: Picture, *, scale: int) -> None:
    # The kernel would kill the process, without a word, perhaps after hours.
    size = (picture.pixels.nbytes + (0 if picture.alpha is None else picture.alpha.nbytes)) * scale**2
    if (needed := _COPIES * size) > (free := available_ram()):
        height, width = (side * scale for side in picture.pixels.shape[:2])
        raise UserError(
            f"{source}: the result, {width}x{height} pixels, needs {needed / 2**30:.1f} GiB of memory, and there are "
            f"{free / 2**30:.1f}: cut the picture, or use a machine with more"
        )


def upscale_folder(
    generator: SRGenerator,
    jobs: Sequence[Job],
    *,
    tile: int,
    quality: int | None,
    on_error: OnError,
    progress: Callable[[str], AbstractContextManager[Report]],
) -> int:
    """Upscale the images of a folder; headers are read before the first is computed.

    Args:
        generator: The network.
        jobs: Of `upscale_jobs`.
        tile: Largest side of a tile, in LR pixels.
        quality: Of JPEG and WebP, from 1 to 100.
        on_error: What to do with an image that cannot be upscaled: log it and continue, or stop at it.
        progress: Makes a context of a progress bar with a label.

    Returns:
        The number of images.

    Raises:
        UserError: An image cannot be upscaled, and ``on_error`` is "stop".
        Failure: Some could not; how many, and why.
    """
    problems: list[str] = []

    def attempt(action: Callable[[Job], None], job: Job) -> bool:
        try:
            action(job)
        except UserError as error:
            if on_error == "stop":
                raise
            log.warning("%s", error)
            problems.append(_reason(str(error), job))
            return False
        return True

    def check_header(job: Job) -> None:
        height, width, bits = read_shape(job[0])
        check_holds(job[1], height * generator.scale, width * generator.scale, bits=bits)

    numbers = itertools.count(1)

    def upscale(job: Job) -> None:
        with progress(f"{job[0].name} ({next(numbers)}/{len(sound)})") as report:
            upscale_file(generator, *job, tile=tile, quality=quality, on_tile=report)

    sound = [job for job in jobs if attempt(check_header, job)]
    num_done = sum(attempt(upscale, job) for job in sound)
    if problems:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in Counter(problems).most_common())
        raise Failure(f"{num_done} of {len(jobs)} images upscaled, {len(problems)} failed: {reasons}")
    return num_done


def _reason(message: str, job: Job) -> str:
    """What failed, without what differs from image to image."""
    for path in job:
        message = message.removeprefix(f"{path}: ")
    return message.partition(" (")[0].partition(",")[0].partition(":")[0]
