"""Lists the images to pack and their keys, and matches LR images with HR images by name."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from srgan_dist.errors import UserError
from srgan_dist.imaging.read import list_images, read_size

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


def find_sources(hr_dir: str | Path, lr_dir: str | Path | None, *, scale: int) -> list[Source]:
    """List the images of a folder, or the pairs of two folders, after checking every header.

    Pairs are matched by relative path without suffix; names may end in x4, _x4, LRx4, _LR, _HR and the like.

    Args:
        hr_dir: Folder of HR images.
        lr_dir: Folder of LR images, or None.
        scale: HR pixels per LR pixel.

    Returns:
        The sources in the order of the HR paths, at least one.

    Raises:
        UserError: A folder is unusable, an image is unreadable or too small, an image has no partner or the key of
            another one, or the sizes of a pair do not agree; all faults are counted, the first three described.
    """
    sources, faults = match_sources(hr_dir, lr_dir, scale=scale)
    headers = (read_source_header(source, scale=scale) for source in sources)
    faults += [header for header in headers if isinstance(header, Fault)]
    if faults:
        raise UserError(summarize_faults(hr_dir, lr_dir, faults))
    return sources


def match_sources(hr_dir: str | Path, lr_dir: str | Path | None, *, scale: int) -> tuple[list[Source], list[Fault]]:
    """List the images of a folder, or the pairs of two folders, from their names alone.

    Args:
        hr_dir: Folder of HR images.
        lr_dir: Folder of LR images, or None.
        scale: HR pixels per LR pixel.

    Returns:
        The sources in the order of the HR paths, and the files without a partner or with the key of another one.

    Raises:
        UserError: A folder is missing or contains no image.
    """
    hr_dir = Path(hr_dir)
    keys = {path: make_key(path.relative_to(hr_dir)) for path in list_images(hr_dir)}
    faults = _repeated_keys(keys)
    partners: dict[Path, Path] = {}
    if lr_dir is not None:
        repeated = {fault.path for fault in faults}
        hr_paths = [path for path in keys if path not in repeated]
        partners, unmatched = _match(hr_dir, hr_paths, Path(lr_dir), list_images(lr_dir), scale=scale)
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
        if source.lr is not None and (found := read_size(source.lr)) != (height // scale, width // scale):
            expected = f"{height // scale}x{width // scale} (hr {height}x{width} / scale {scale})"
            return Fault(source.hr, f"{source.lr} is {found[0]}x{found[1]}, expected {expected}")
        states = [path.stat() for path in (source.hr, source.lr) if path is not None]
    except (UserError, OSError) as error:
        return Fault(source.hr, str(error))
    return SourceHeader(height, width, " ".join(f"{state.st_size} {state.st_mtime_ns}" for state in states))


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
        Letters, digits, '-' and '_'; at most 72 bytes of UTF-8, long names ending in a hash.
    """
    stem = path.with_suffix("").as_posix()
    key = re.sub(r"[^\w-]", "_", stem)
    if len(key.encode()) <= _MAX_KEY_BYTES:
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


def _match(
    hr_dir: Path, hr_paths: Sequence[Path], lr_dir: Path, lr_paths: Sequence[Path], *, scale: int
) -> tuple[dict[Path, Path], list[Fault]]:
    names = {path: _names(path.relative_to(hr_dir), scale) for path in hr_paths}
    hr_by_name = {chain[0]: path for path, chain in names.items()}
    for path, chain in names.items():  # whole names win over shortened ones
        for name in chain[1:]:
            hr_by_name.setdefault(name, path)
    claims: defaultdict[Path, list[Path]] = defaultdict(list)
    faults = []
    for lr in lr_paths:
        hr = next((hr_by_name[name] for name in _names(lr.relative_to(lr_dir), scale) if name in hr_by_name), None)
        if hr is None:
            faults.append(Fault(lr, f"{lr} has no HR image"))
        else:
            claims[hr].append(lr)
    faults += [Fault(hr, f"{hr} has no LR image") for hr in hr_paths if hr not in claims]
    faults += [
        Fault(hr, f"{hr} has {len(found)} LR images ({found[0].name}, {found[1].name})")
        for hr, found in claims.items()
        if len(found) > 1
    ]
    return {hr: found[0] for hr, found in claims.items()}, faults


def _names(path: Path, scale: int) -> list[str]:
    marks = r"lr|hr|lq|gt|bicubic"
    mark = re.compile(rf"(?<=[^/])(?:[_-]?(?:{marks})?[_-]?x{scale}|[_-](?:{marks}))$", re.IGNORECASE)
    names = [path.with_suffix("").as_posix()]
    while (shorter := mark.sub("", names[-1])) != names[-1]:
        names.append(shorter)
    return names
