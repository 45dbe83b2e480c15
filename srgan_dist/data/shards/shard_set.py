"""Builds the index of shards, and opens packed folders as one set of samples.

`index.npy` has one row per sample and is mapped into memory, not read. shards/README.md specifies the format.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from srgan_dist.data.remote.cache import Cache
from srgan_dist.data.remote.sources import PIPE, expand_sources, is_remote
from srgan_dist.data.shard_format.encodings import ENCODINGS, Encoding, read_size, suffixes
from srgan_dist.data.shard_format.index_rows import INDEX_NAME, MAX_BYTES, MAX_SIDE, ROW, Rows, read_index
from srgan_dist.data.shard_format.tar import read_at, walk_tar
from srgan_dist.data.shards.folders import Folder, open_command, open_local, open_url, refuse_small_cache
from srgan_dist.errors import UserError
from srgan_dist.utils.names import expand_home
from srgan_dist.utils.secrets import shown


def build_index(shards: Sequence[str | Path], *, scale: int, encoding: Encoding = "raw") -> Rows:
    """Index finished tars from their headers and data.

    Args:
        shards: Tar files, in the order of their numbers.
        scale: HR pixels per LR pixel.
        encoding: Encoding of all members.

    Returns:
        `ROW` array [num_samples], in the order of the tars.

    Raises:
        UserError: A member belongs to no pair, half of a pair is missing, or the sizes of a pair do not agree.
    """
    rows: list[tuple[int, ...]] = []
    for number, shard in enumerate(shards):
        for hr, lr in _pairs(Path(shard), encoding):
            expected = (hr.height // scale, hr.width // scale)
            # Rows of raw tiles are located by their width; a JPEG is a whole image of any size, read as if cropped.
            uneven = encoding != "jpeg" and (hr.height % scale or hr.width % scale)
            if (lr.height, lr.width) != expected or uneven:
                raise UserError(
                    f"{shard}: member '{lr.name}' at offset {lr.offset} is {lr.height}x{lr.width}, expected "
                    f"{expected[0]}x{expected[1]} (hr {hr.height}x{hr.width} / scale {scale}): pack again"
                )
            rows.append(
                (
                    number,
                    lr.height * scale,
                    lr.width * scale,
                    hr.offset,
                    lr.offset,
                    hr.size,
                    lr.size,
                    hr.crc,
                    lr.crc,
                ),
            )
    return np.array(rows, dtype=ROW)


class ShardSet:
    """Opened shards: one index over one or several packed folders, local or remote.

    Attributes:
        scale: HR pixels per LR pixel, the same in all folders.
        index: `ROW` array [num_samples]; `index["shard"]` counts over `shard_paths`.
        shard_paths: The tar files; those of remote folders are in the cache, once they are fetched.
        shard_encodings: For each tar, how its members' pixels are stored.
        shard_samples: For each tar, its number of samples; the index has them in this order.
        digest: sha256 of the indices' digests, in hexadecimal; equal for the same data.
        window_shards: Shards in a shuffle window, see `Order`; None for all.
    """

    def __init__(
        self,
        *,
        folders: Sequence[Folder],
        index: Rows,
        window_shards: int | None = None,
        cache: Cache | None = None,
    ) -> None:
        self.scale = folders[0].manifest.scale
        self.index = index
        self.window_shards = window_shards
        shards = [(folder, shard) for folder in folders for shard in folder.manifest.shards]
        self.shard_paths = tuple(folder.path / shard.name for folder, shard in shards)
        self.shard_encodings = tuple(folder.manifest.encoding for folder, _ in shards)
        self.shard_samples = tuple(shard.samples for _, shard in shards)
        digests = "\n".join(folder.manifest.index_sha256 for folder in folders)
        self.digest = hashlib.sha256(digests.encode()).hexdigest()
        self._cache = cache
        self._remote = tuple(folder.remote_file(shard) for folder, shard in shards)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def is_remote(self) -> bool:
        """Whether any shard has to be fetched."""
        return any(self._remote)

    def open_shard(self, shard: int) -> int:
        """Open a shard for reading, after fetching it where necessary.

        Args:
            shard: Number of the shard.

        Returns:
            A descriptor, to be closed by the caller; valid even after the shard is evicted from the cache.

        Raises:
            OSError: A local shard cannot be opened.
            UserError, Failure: A remote shard cannot be fetched.
        """
        remote = self._remote[shard]
        if remote and self._cache:
            return self._cache.open(remote)
        return os.open(self.shard_paths[shard], os.O_RDONLY | os.O_CLOEXEC)

    def fetch(self, shard: int, *, wait: bool = True) -> None:
        """Fetch a shard to local disk, unless it is there, or another process is fetching it and `wait` is false.

        Args:
            shard: Number of the shard.
            wait: Whether to wait for the other process.

        Raises:
            UserError, Failure: The shard cannot be fetched.
        """
        remote = self._remote[shard]
        if remote and self._cache:
            self._cache.fetch(remote, wait=wait)

    def keep(self, shards: Sequence[int]) -> None:
        """Mark shards as just used, so that all others are evicted before them.

        Args:
            shards: Numbers of the shards.
        """
        for remote in (self._remote[shard] for shard in shards):
            if remote and self._cache:
                self._cache.touch(remote)


def open_shards(
    sources: Sequence[str | Path],
    *,
    scale: int | None = None,
    window_shards: int | None = None,
    cache_dir: str | Path = "~/.cache/srgan-dist",
    cache_bytes: int = 64 << 30,
) -> ShardSet:
    """Open packed folders for reading, after checking that they are complete and agree.

    Of remote folders, the manifest and the index are fetched now, the shards when they are read.

    Args:
        sources: Packed folders or their manifest.json, globs, brace patterns, URLs, or commands (see
            `sources.expand_sources`); their samples are concatenated.
        scale: HR pixels per LR pixel of what commands write; not needed for other sources.
        window_shards: Shards in a shuffle window, see `Order`; None shuffles over all shards.
        cache_dir: Folder for the shards of remote folders.
        cache_bytes: Limit of their total size.

    Returns:
        The shards; the index of a single folder stays mapped from disk.

    Raises:
        UserError: A folder is not packed or cannot be accessed, scales differ, an index or a shard does not match its
            manifest, or the cache is too small.
        Failure: A remote folder cannot be reached.
    """
    names = expand_sources(sources)
    if not names:
        raise UserError("no packed folder given, expected at least one made by `srgan-dist pack`")
    cache = Cache(expand_home(cache_dir), max_bytes=cache_bytes) if any(map(is_remote, names)) else None
    folders = [_open_folder(name, cache, scale) for name in names]
    for folder in folders:
        if folder.manifest.scale != folders[0].manifest.scale:
            raise UserError(
                f"{folder.name}: scale {folder.manifest.scale}, but {folders[0].name} has scale "
                f"{folders[0].manifest.scale}: folders trained on together need one scale"
            )
    if cache:
        refuse_small_cache(folders, cache, window_shards)
    indices = [read_index(folder.path / INDEX_NAME, folder.manifest) for folder in folders]
    index = indices[0] if len(indices) == 1 else _concatenated(indices, folders)
    return ShardSet(folders=folders, index=index, window_shards=window_shards, cache=cache)


def _open_folder(name: str, cache: Cache | None, scale: int | None) -> Folder:
    if cache is None or not is_remote(name):
        return open_local(name)
    if not name.startswith(PIPE):
        return open_url(name, cache)
    if scale is None:
        raise UserError(f"{shown(name)}: the scale of what a command writes must be given")
    return open_command(name, cache, partial(_index_tar, scale=scale), scale=scale)


def _index_tar(shard: Path, *, scale: int) -> tuple[Rows, Encoding]:
    with open(shard, "rb") as file:
        first = next(walk_tar(file, partial(_refuse, shard)), None)
    suffix = first.name.rpartition(".")[2] if first else ""
    encoding: Encoding = next((name for name in ENCODINGS if suffixes(name)[0] == suffix), "raw")
    rows = build_index([shard], scale=scale, encoding=encoding)
    if not len(rows):
        raise UserError(f"{shard}: holds no samples, expected pairs of KEY.hr.npy and KEY.lr.npy, or of images")
    return rows, encoding


def _concatenated(indices: Sequence[Rows], folders: Sequence[Folder]) -> Rows:
    # Each index goes straight into its place: at a million samples every copy is 40 MB in each rank.
    index: Rows = np.empty(sum(map(len, indices)), dtype=ROW)
    start = first_shard = 0
    for part, folder in zip(indices, folders, strict=True):
        index[start : start + len(part)] = part
        index["shard"][start : start + len(part)] += first_shard
        start, first_shard = start + len(part), first_shard + len(folder.manifest.shards)
    return index


class _Member(NamedTuple):
    name: str
    offset: int
    size: int
    crc: int
    height: int
    width: int


def _pairs(shard: Path, encoding: Encoding) -> Iterator[tuple[_Member, _Member]]:
    hr_end, lr_end = (f".{side}.{suffix}" for side, suffix in zip(("hr", "lr"), suffixes(encoding), strict=True))
    hr: _Member | None = None
    for member in _members(shard):
        if hr is None and member.name.endswith(hr_end):
            hr = member
        elif hr is not None and member.name == hr.name.removesuffix(hr_end) + lr_end:
            yield hr, member
            hr = None
        else:
            expected = f"'{hr.name.removesuffix(hr_end)}{lr_end}'" if hr else f"a name ending in {hr_end}"
            raise UserError(f"{shard}: member '{member.name}' at offset {member.offset}, expected {expected}")
    if hr is not None:
        key = hr.name.removesuffix(hr_end)
        raise UserError(f"{shard}: ends after member '{hr.name}' at offset {hr.offset}, expected '{key}{lr_end}'")


def _members(shard: Path) -> Iterator[_Member]:
    try:
        with open(shard, "rb") as file:
            for member in walk_tar(file, partial(_refuse, shard)):
                where = f"{shard}: member {member.name!r} at offset {member.offset}"
                if not member.is_file:
                    raise UserError(f"{where} is not a file")
                data = read_at(file, member.offset, member.size)
                try:
                    height, width = read_size(data, member.name.rpartition(".")[2])
                except ValueError as error:
                    raise UserError(f"{where} {error}") from error
                if max(height, width) > MAX_SIDE or member.size > MAX_BYTES:
                    what = f"is {height}x{width} in {member.size} bytes"
                    raise UserError(f"{where} {what}, the index can hold {MAX_SIDE} a side and {MAX_BYTES} bytes")
                yield _Member(member.name, member.offset, member.size, zlib.crc32(data), height, width)
    except OSError as error:
        raise UserError(f"{shard}: cannot be read ({error.strerror}): copy or pack again") from error


def _refuse(shard: Path, member: str, offset: int, what: str) -> None:
    where = f"member {member!r} at offset {offset}" if member else f"offset {offset}"
    raise UserError(f"{shard}: cannot be read as a tar ({where}: {what}): copy or pack again")
