"""Which images are packed, under which key, and which LR image belongs to which HR image."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from srgan_dist.data.images import list_images, read_size
from srgan_dist.errors import UserError

_MAX_NAMED = 3  # faults spelt out in one message
_MAX_KEY_BYTES = 72  # a plain tar name has 100 bytes; tile and suffix need some of them


class Source(NamedTuple):
    """An image to pack: its key (unique, safe in a tar), its HR file, and its LR file where one was given."""

    key: str
    hr: Path
    lr: Path | None


def find_sources(hr_dir: str | Path, lr_dir: str | Path | None, *, scale: int) -> list[Source]:
    """List the images of a folder, or the pairs of two folders, after checking every header.

    Pairs are matched by relative path without suffix; names may carry x4, _x4, LRx4, _LR, _HR and the like.

    Args:
        hr_dir: folder of HR images.
        lr_dir: folder of LR images, or None.
        scale: HR pixels per LR pixel.

    Returns:
        Sources in the order of the HR paths, at least one.

    Raises:
        UserError: a folder is bad, an image is unreadable or too small, a name stands alone or twice, or the
            sizes of a pair do not agree; all faults are counted, the first three named.
    """
    hr_dir = Path(hr_dir)
    hr_paths = list_images(hr_dir)
    keys = {path: make_key(path.relative_to(hr_dir)) for path in hr_paths}
    faults = _repeated_keys(keys)
    if lr_dir is None:
        where = f"{hr_dir} ({len(hr_paths)} images)"
        partners: dict[Path, Path] = {}
    else:
        lr_dir = Path(lr_dir)
        lr_paths = list_images(lr_dir)
        where = f"{hr_dir} ({len(hr_paths)} HR images) and {lr_dir} ({len(lr_paths)} LR images)"
        partners, unmatched = _match(hr_dir, hr_paths, lr_dir, lr_paths, scale=scale)
        faults += unmatched
    for hr in hr_paths:
        faults += _size_faults(hr, partners.get(hr), scale=scale)
    if faults:
        raise UserError(_one_line(where, faults))
    return [Source(keys[path], path, partners.get(path)) for path in hr_paths]


def make_key(path: Path) -> str:
    """Make a WebDataset key from an image's relative path.

    WebDataset splits a member's name at the first dot and groups by folder, so both become underscores.

    Args:
        path: relative path with suffix.

    Returns:
        Letters, digits, '-' and '_'; at most 72 bytes of UTF-8, long names ending in a hash.
    """
    stem = path.with_suffix("").as_posix()
    key = re.sub(r"[^\w-]", "_", stem)
    if len(key.encode()) <= _MAX_KEY_BYTES:
        return key
    tail = hashlib.sha256(stem.encode(errors="surrogateescape")).hexdigest()[:12]
    return key.encode()[: _MAX_KEY_BYTES - 13].decode(errors="ignore") + "-" + tail


def _repeated_keys(keys: dict[Path, str]) -> list[str]:
    by_key: defaultdict[str, list[Path]] = defaultdict(list)
    for path, key in keys.items():
        by_key[key].append(path)
    return [
        f"{' and '.join(map(str, paths))} give the same key '{key}': rename one"
        for key, paths in by_key.items()
        if len(paths) > 1
    ]


def _match(
    hr_dir: Path, hr_paths: Sequence[Path], lr_dir: Path, lr_paths: Sequence[Path], *, scale: int
) -> tuple[dict[Path, Path], list[str]]:
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
            faults.append(f"{lr} has no HR image")
        else:
            claims[hr].append(lr)
    faults += [f"{hr} has no LR image" for hr in hr_paths if hr not in claims]
    faults += [f"{hr} has {len(c)} LR images ({c[0].name}, {c[1].name})" for hr, c in claims.items() if len(c) > 1]
    return {hr: found[0] for hr, found in claims.items()}, faults


def _names(path: Path, scale: int) -> list[str]:
    marks = r"lr|hr|lq|gt|bicubic"
    mark = re.compile(rf"(?<=[^/])(?:[_-]?(?:{marks})?[_-]?x{scale}|[_-](?:{marks}))$", re.IGNORECASE)
    names = [path.with_suffix("").as_posix()]
    while (shorter := mark.sub("", names[-1])) != names[-1]:
        names.append(shorter)
    return names


def _size_faults(hr: Path, lr: Path | None, *, scale: int) -> list[str]:
    try:
        height, width = read_size(hr)
        if height < scale or width < scale:
            return [f"{hr} is {height}x{width}, smaller than one LR pixel at scale {scale}"]
        if lr is not None and read_size(lr) != (height // scale, width // scale):
            found = "x".join(map(str, read_size(lr)))
            return [
                f"{lr} is {found}, expected {height // scale}x{width // scale} (hr {height}x{width} / scale {scale})"
            ]
    except UserError as error:
        return [str(error)]
    return []


def _one_line(where: str, faults: Sequence[str]) -> str:
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    more = f"; and {len(faults) - _MAX_NAMED} more" if len(faults) > _MAX_NAMED else ""
    return f"{where}: {count}: {'; '.join(faults[:_MAX_NAMED])}{more}"
