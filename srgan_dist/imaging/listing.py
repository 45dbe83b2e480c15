"""Lists the images of a folder as people keep them: links, hidden files, formats, and names of any bytes."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from srgan_dist.errors import UserError
from srgan_dist.utils.names import expand_home, printable

log = logging.getLogger("srgan_dist")

# Of each format, the names that its files have. Pillow's wheels decode all of them; tests/imaging/test_listing.py
# writes and reads one of each.
SUFFIXES = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "QOI": (".qoi",),
}
_ALL_SUFFIXES = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)

# What systems put into folders of photographs, besides names that begin with a dot.
_SYSTEM_NAMES = {
    "__macosx",
    "thumbs.db",
    "desktop.ini",
    "@eadir",
    "#recycle",
    "$recycle.bin",
    "system volume information",
    "lost+found",
}
_MAX_NAMED = 3  # names that are shown for each reason

_HIDDEN, _OTHER, _BROKEN = "hidden", "of other formats", "links that lead nowhere"
_LISTED, _CIRCLE, _SPECIAL = (
    "links to what is listed anyway",
    "links to a folder around them",
    "neither file nor folder",
)


class Listing(NamedTuple):
    """The images of a folder.

    Attributes:
        paths: At least one path, in the order of the POSIX paths relative to the folder; all begin with the folder.
        left_out: What was left out, counted and named by reason; "" where nothing was.
    """

    paths: list[Path]
    left_out: str


def list_images(folder: str | Path) -> list[Path]:
    """List the image files below a folder as `list_folder` does, and log what was left out.

    Args:
        folder: Folder to search, including its subfolders; `~` is the home folder.

    Returns:
        At least one path, in the order of their relative POSIX paths; all begin with `folder`.

    Raises:
        UserError: The folder is missing, is not a folder, cannot be listed, or contains no image.
    """
    paths, left_out = list_folder(folder)
    if left_out:
        log.info("%s: images: %d; left out: %s", folder, len(paths), left_out)
    return paths


def list_folder(folder: str | Path) -> Listing:
    """List the image files below a folder.

    Links to files and to folders are followed; each folder is listed once, so that a link to one around it is no
    circle. Hidden files and folders, and those of systems (`__MACOSX`, `@eaDir`, `Thumbs.db`), are left out.

    Args:
        folder: Folder to search, including its subfolders; `~` is the home folder.

    Returns:
        The images.

    Raises:
        UserError: The folder is missing, is not a folder, cannot be listed, or contains no image.
    """
    folder = expand_home(folder)
    if not os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir raises where a folder above may not be entered
        problem = "is not a folder" if os.path.exists(folder) else "does not exist"  # noqa: PTH110
        raise UserError(f"{folder}: {problem}, expected a folder of images")
    left_out: defaultdict[str, list[Path]] = defaultdict(list)
    found = sorted(_walk(folder, left_out), key=lambda path: path.relative_to(folder).as_posix())
    reasons = ", ".join(_counted(folder, reason, paths) for reason, paths in left_out.items())
    if not found:
        raise UserError(
            f"{folder}: holds no images, expected files named {' '.join('*' + s for s in _ALL_SUFFIXES)}"
            + (f"; left out: {reasons}" if reasons else "")
        )
    return Listing(found, reasons)


def _walk(folder: Path, left_out: defaultdict[str, list[Path]]) -> Iterator[Path]:
    seen: set[Path] = set()
    folders: list[Path] = [folder]
    links: list[Path] = []
    # Links last, so that a folder that is there itself is listed under its own name, not under a link's.
    while folders or links:
        here = folders.pop() if folders else links.pop(0)
        real = here.resolve()
        if real in seen or (here != folder and here.parent.resolve().is_relative_to(real)):
            left_out[_LISTED if real in seen else _CIRCLE].append(here)
            continue
        seen.add(real)
        for entry in _entries(here):
            path, is_link = here / entry.name, entry.is_symlink()
            if entry.name.startswith(".") or entry.name.lower() in _SYSTEM_NAMES:
                left_out[_HIDDEN].append(path)
            elif is_link and not os.path.exists(path):  # noqa: PTH110
                left_out[_BROKEN].append(path)
            elif entry.is_dir():
                (links if is_link else folders).append(path)
            elif path.suffix.lower() not in _ALL_SUFFIXES:
                left_out[_OTHER].append(path)
            elif entry.is_file():
                yield path
            else:
                left_out[_SPECIAL].append(path)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be listed ({error.strerror}): let it be read, or move it elsewhere"
        ) from None


def _counted(folder: Path, reason: str, paths: list[Path]) -> str:
    names = [path.relative_to(folder).as_posix() for path in paths[:_MAX_NAMED]]
    more = ", ..." if len(paths) > _MAX_NAMED else ""
    return f"{reason}: {len(paths)} ({printable(', '.join(names))}{more})"
