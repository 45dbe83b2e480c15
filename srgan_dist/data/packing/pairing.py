"""Gives images their keys, and matches LR images with HR images by name."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from srgan_dist.data.packing.layouts import ImageFolders
from srgan_dist.errors import UserError
from srgan_dist.imaging.read import read_rgb, read_size
from srgan_dist.utils.names import printable

_MAX_NAMED = 3  # faults that one message describes
_MAX_KEY_BYTES = 72  # a plain tar name has 100 bytes, some of which tile and suffix need


class Source(NamedTuple):
    """An image to pack.

    Attributes:
        key: Unique key, valid in WebDataset; see `make_key`.
        hr: HR file.
        lr: LR file; None where LR images were not given.
    """

    key: str
    hr: Path
    lr: Path | None


class Fault(NamedTuple):
    """Why a file cannot be used.

    Attributes:
        path: The file.
        reason: A message that names it.
    """

    path: Path
    reason: str


class SourceHeader(NamedTuple):
    """What is known about a source without reading its pixels.

    Attributes:
        height: Height of the HR image, upright, in pixels.
        width: Width of the HR image, upright, in pixels.
        stamp: Sizes and modification times of the files; it changes when an image changes.
    """

    height: int
    width: int
    stamp: str


def find_sources(images: ImageFolders, *, scale: int) -> list[Source]:
    """List the images of a set, or its pairs, after checking every header.

    Args:
        images: The images; see `match_sources`.
        scale: HR pixels per LR pixel.

    Returns:
        The sources in the order of the HR paths, at least one.

    Raises:
        UserError: An image is unreadable or too small, an image has no partner or the key of another one, or the sizes
            of a pair do not agree; all faults are counted, the first three described.
    """
    sources, faults = match_sources(images, scale=scale)
    headers = (read_source_header(source, scale=scale) for source in sources)
    faults += [header for header in headers if isinstance(header, Fault)]
    if faults:
        raise UserError(summarize_faults(images.hr_dir, images.lr_dir, faults))
    return sources


def match_sources(images: ImageFolders, *, scale: int) -> tuple[list[Source], list[Fault]]:
    """Match LR images with HR images from their names alone.

    Pairs have the same relative path without suffix, or one without marks at its ends such as x4, _x4, x4m, _LR4,
    _bicLRx4, _SRF_4_HR, or LR_ and HR_ before the file's name.

    Args:
        images: The images, with or without LR images.
        scale: HR pixels per LR pixel.

    Returns:
        The sources in the order of the HR paths, and the files without a partner or with the key of another one.
    """
    keys = {path: make_key(path.relative_to(images.hr_dir)) for path in images.hr}
    faults = _repeated_keys(keys)
    partners: dict[Path, Path] = {}
    if images.lr_dir is not None:
        repeated = {fault.path for fault in faults}
        hr_paths = [path for path in keys if path not in repeated]
        partners, unmatched = _match(images._replace(hr=hr_paths), images.lr_dir, scale=scale)
        faults += unmatched
    unusable = {fault.path for fault in faults}
    return [Source(key, path, partners.get(path)) for path, key in keys.items() if path not in unusable], faults


def read_source_header(source: Source, *, scale: int) -> SourceHeader | Fault:
    """Read the headers of a source's files, and check that they can be used.

    Args:
        source: The image, or the pair.
        scale: HR pixels per LR pixel.

    Returns:
        Size and stamp, or why the source cannot be used.
    """
    try:
        height, width = read_size(source.hr)
        if height < scale or width < scale:
            reason = f"{source.hr} is {height}x{width}, smaller than one LR pixel at scale {scale}"
            return Fault(source.hr, reason)
        if source.lr is not None and (problem := _other_size(read_size(source.lr), (height, width), scale=scale)):
            return Fault(source.hr, f"{source.lr} {problem}")
        states = [path.stat() for path in (source.hr, source.lr) if path is not None]
    except (UserError, OSError) as error:
        return Fault(source.hr, str(error))
    return SourceHeader(height, width, " ".join(f"{state.st_size} {state.st_mtime_ns}" for state in states))


def read_lr(lr: Path, hr: NDArray[np.uint8], *, scale: int) -> NDArray[np.uint8]:
    """Read the LR image of a pair, as much of it as the HR image covers.

    Args:
        lr: File of the LR image; its sides may be rounded down or up.
        hr: uint8 [H, W, 3].
        scale: HR pixels per LR pixel.

    Returns:
        uint8 [H // scale, W // scale, 3].

    Raises:
        UserError: The image is unreadable, unsuitable, or of another size.
    """
    pixels = read_rgb(lr)
    height, width = hr.shape[:2]
    if problem := _other_size(pixels.shape[:2], (height, width), scale=scale):
        raise UserError(f"{lr}: {problem}")
    return pixels[: height // scale, : width // scale]


def _other_size(lr: tuple[int, ...], hr: tuple[int, int], *, scale: int) -> str | None:
    down, up = [side // scale for side in hr], [-(-side // scale) for side in hr]
    if all(side in allowed for side, *allowed in zip(lr, down, up, strict=True)):
        return None
    rounded = f" or, rounded up, {up[0]}x{up[1]}" if up != down else ""
    return f"is {lr[0]}x{lr[1]}, expected {down[0]}x{down[1]}{rounded} (hr {hr[0]}x{hr[1]} / scale {scale})"


def summarize_faults(hr_dir: str | Path, lr_dir: str | Path | None, faults: Sequence[Fault]) -> str:
    """Summarize any number of faults in one line.

    Args:
        hr_dir: Folder of HR images.
        lr_dir: Folder of LR images, or None.
        faults: One or more.

    Returns:
        The folders, the number of faults, and the first three of them.
    """
    where = f"{hr_dir} and {lr_dir}" if lr_dir else f"{hr_dir}"
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    more = f"; and {len(faults) - _MAX_NAMED} more" if len(faults) > _MAX_NAMED else ""
    return f"{where}: {count}: {'; '.join(fault.reason for fault in faults[:_MAX_NAMED])}{more}"


def make_key(path: Path) -> str:
    """Derive a WebDataset key from an image's relative path.

    WebDataset splits a member's name at the first dot and groups by folder, so both become underscores.

    Args:
        path: Relative path with suffix.

    Returns:
        Letters, digits, '-' and '_'; at most 72 bytes of UTF-8. Long names, and those that hold control characters or
        bytes that are no text, end in a hash.
    """
    stem = path.with_suffix("").as_posix()
    key = re.sub(r"[^\w-]", "_", stem)
    # What nobody can see in a name may be all in which two differ.
    if len(key.encode()) <= _MAX_KEY_BYTES and printable(stem) == stem:
        return key
    tail = hashlib.sha256(stem.encode(errors="surrogateescape")).hexdigest()[:12]
    return key.encode()[: _MAX_KEY_BYTES - 13].decode(errors="ignore") + "-" + tail


def _repeated_keys(keys: dict[Path, str]) -> list[Fault]:
    by_key: defaultdict[str, list[Path]] = defaultdict(list)
    for path, key in keys.items():
        by_key[key].append(path)
    return [
        Fault(path, f"{first} and {path} give the same key '{key}': rename one")
        for key, (first, *others) in by_key.items()
        for path in others
    ]


def _match(images: ImageFolders, lr_dir: Path, *, scale: int) -> tuple[dict[Path, Path], list[Fault]]:
    names = {path: _names(path.relative_to(images.hr_dir), scale) for path in images.hr}
    hr_by_name = {chain[0]: path for path, chain in names.items()}
    for path, chain in names.items():  # whole names win over shortened ones
        for name in chain[1:]:
            hr_by_name.setdefault(name, path)
    claims: defaultdict[Path, list[Path]] = defaultdict(list)
    faults = []
    for lr in images.lr:
        hr = next((hr_by_name[name] for name in _names(lr.relative_to(lr_dir), scale) if name in hr_by_name), None)
        if hr is None:
            faults.append(Fault(lr, f"{lr} has no HR image"))
        else:
            claims[hr].append(lr)
    faults += [Fault(hr, f"{hr} has no LR image") for hr in images.hr if hr not in claims]
    faults += [
        Fault(hr, f"{hr} has {len(found)} LR images ({found[0].name}, {found[1].name})")
        for hr, found in claims.items()
        if len(found) > 1
    ]
    return {hr: found[0] for hr, found in claims.items()}, faults


def _names(path: Path, scale: int) -> list[str]:
    """The names by which an image may be matched: its own, and shorter ones, without marks."""
    kinds = r"(?:bic)?lr(?:bic?)?|hr|lq|gt|bicubic"
    factor = rf"x{scale}(?:[md]|w\d)?"  # DIV2K's mild, difficult and wild
    end = re.compile(
        rf"(?<=[^/])(?:[_-]?(?:{kinds})?[_-]?{factor}|[_-](?:{kinds}){scale}?|_SRF_{scale})$", re.IGNORECASE
    )
    begin = re.compile(r"(^|/)(?:lr|hr|lq|gt)[_-](?=[^/]+$)", re.IGNORECASE)
    names = [path.with_suffix("").as_posix()]
    while (shorter := begin.sub(r"\1", end.sub("", names[-1]))) != names[-1]:
        names.append(shorter)
    return names
