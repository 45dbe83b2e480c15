"""The index beside the shards: where every sample lies; and opening the shards by it.

`index.npy` has one row a sample and is mapped, not read. shards/README.md has the contract.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from srgan_dist.data.manifest import Manifest, file_sha256, manifest_path, read_manifest
from srgan_dist.errors import UserError

INDEX_NAME = "index.npy"
HR_SUFFIX, LR_SUFFIX = ".hr.npy", ".lr.npy"

ROW = np.dtype(
    [
        ("shard", "<u4"),
        ("height", "<u2"),  # of the HR tile, in pixels
        ("width", "<u2"),
        ("hr_offset", "<u8"),  # of the member's data in the tar
        ("lr_offset", "<u8"),
        ("hr_size", "<u4"),  # of the member's data
        ("lr_size", "<u4"),
        ("hr_crc", "<u4"),  # zlib.crc32 of the member's data
        ("lr_crc", "<u4"),
    ]
)
Rows = NDArray[np.void]


def build_index(shards: Sequence[str | Path], *, scale: int) -> Rows:
    """Index finished tars from their own headers and bytes.

    Args:
        shards: tar files, in the order of their numbers.
        scale: HR pixels per LR pixel.

    Returns:
        `ROW` array [num_samples], in the order of the tars.

    Raises:
        UserError: a member is foreign, half of a pair is missing, or the sizes of a pair do not agree.
    """
    rows: list[tuple[int, ...]] = []
    for number, shard in enumerate(shards):
        for hr, lr in _pairs(Path(shard)):
            expected = (hr.height // scale, hr.width // scale)
            if (lr.height, lr.width) != expected or hr.height % scale or hr.width % scale:
                raise UserError(
                    f"{shard}: member '{lr.name}' at offset {lr.offset} is {lr.height}x{lr.width}, expected "
                    f"{expected[0]}x{expected[1]} (hr {hr.height}x{hr.width} / scale {scale}): pack again"
                )
            rows.append(
                (number, hr.height, hr.width, hr.offset, lr.offset, hr.size, lr.size, hr.crc, lr.crc),
            )
    return np.array(rows, dtype=ROW)


class ShardSet:
    """Opened shards: one index over one or several packed folders.

    Attributes:
        scale: HR pixels per LR pixel, the same in all folders.
        index: `ROW` array [num_samples]; `index["shard"]` counts over `shard_paths`.
        shard_paths: the tar files.
        shard_encodings: for each tar, how its members' pixels are stored.
        digest: sha256 over the indices' digests, in hexadecimal: the same data in the same order, or not.
    """

    def __init__(
        self,
        *,
        scale: int,
        index: Rows,
        shard_paths: Sequence[Path],
        shard_encodings: Sequence[str],
        digest: str,
    ) -> None:
        self.scale = scale
        self.index = index
        self.shard_paths = tuple(shard_paths)
        self.shard_encodings = tuple(shard_encodings)
        self.digest = digest

    def __len__(self) -> int:
        return len(self.index)


def open_shards(paths: Sequence[str | Path]) -> ShardSet:
    """Open packed folders for reading, after checking that they are whole and agree.

    Args:
        paths: packed folders or their manifest.json files, at least one; several are concatenated.

    Returns:
        The shards; the index of a single folder stays mapped from disk.

    Raises:
        UserError: a folder is not packed, scales differ, or an index or a shard does not match its manifest.
    """
    if not paths:
        raise UserError("no packed folder given, expected at least one made by `srgan-dist pack`")
    manifests = [read_manifest(path) for path in paths]
    for path, manifest in zip(paths, manifests, strict=True):
        if manifest.scale != manifests[0].scale:
            raise UserError(
                f"{path}: scale {manifest.scale}, but {paths[0]} has scale {manifests[0].scale}: "
                "folders trained on together need one scale"
            )
    indices: list[Rows] = []
    shard_paths: list[Path] = []
    encodings: list[str] = []
    for path, manifest in zip(paths, manifests, strict=True):
        folder = manifest_path(path).parent
        index = _open_index(folder, manifest)
        if shard_paths:  # a copy, since the mapped index is read-only
            index = index.copy()
            index["shard"] += len(shard_paths)
        indices.append(index)
        shard_paths += [folder / shard.name for shard in manifest.shards]
        encodings += [manifest.encoding] * len(manifest.shards)
    together = hashlib.sha256("\n".join(manifest.index_sha256 for manifest in manifests).encode())
    return ShardSet(
        scale=manifests[0].scale,
        index=indices[0] if len(indices) == 1 else np.concatenate(indices),
        shard_paths=shard_paths,
        shard_encodings=encodings,
        digest=together.hexdigest(),
    )


class _Member(NamedTuple):
    name: str
    offset: int
    size: int
    crc: int
    height: int
    width: int


def _open_index(folder: Path, manifest: Manifest) -> Rows:
    path = folder / INDEX_NAME
    _refuse_changed_shards(folder, manifest)
    try:
        sha256 = file_sha256(path)
        # A plain array over the mapping: every slice of a numpy.memmap costs several times as much.
        index: Rows = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}): pack again") from error
    if sha256 != manifest.index_sha256:
        raise UserError(
            f"{path}: sha256 is {sha256[:12]}..., the manifest says {manifest.index_sha256[:12]}...: "
            "copy it again, or pack again"
        )
    if index.dtype != ROW or index.shape != (manifest.num_samples,):
        raise UserError(
            f"{path}: has shape {index.shape} and type {index.dtype}, expected ({manifest.num_samples},) and "
            f"{ROW}: pack again"
        )
    if index["shard"].max() >= len(manifest.shards):
        raise UserError(f"{path}: names shard {index['shard'].max()}, the manifest has {len(manifest.shards)} shards")
    ends = np.array([shard.bytes for shard in manifest.shards], dtype=np.uint64)[index["shard"]]
    for side in ("hr", "lr"):
        beyond = np.flatnonzero(index[f"{side}_offset"] + index[f"{side}_size"] > ends)
        if beyond.size:
            shard = folder / manifest.shards[int(index["shard"][beyond[0]])].name
            raise UserError(f"{path}: the {side} of sample {beyond[0]} lies beyond the end of {shard}: pack again")
    return index


def _refuse_changed_shards(folder: Path, manifest: Manifest) -> None:
    for shard in manifest.shards:
        path = folder / shard.name
        try:
            size = path.stat().st_size
        except OSError as error:
            raise UserError(f"{path}: shard cannot be found ({error.strerror}): copy it again") from error
        if size != shard.bytes:
            raise UserError(
                f"{path}: shard has {size} bytes, the manifest says {shard.bytes}: copy it again, or pack again"
            )


def _pairs(shard: Path) -> Iterator[tuple[_Member, _Member]]:
    hr: _Member | None = None
    for member in _members(shard):
        if hr is None and member.name.endswith(HR_SUFFIX):
            hr = member
        elif hr is not None and member.name == hr.name[: -len(HR_SUFFIX)] + LR_SUFFIX:
            yield hr, member
            hr = None
        else:
            expected = f"'{hr.name[: -len(HR_SUFFIX)]}{LR_SUFFIX}'" if hr else f"a name ending in {HR_SUFFIX}"
            raise UserError(f"{shard}: member '{member.name}' at offset {member.offset}, expected {expected}")
    if hr is not None:
        key = hr.name[: -len(HR_SUFFIX)]
        raise UserError(f"{shard}: ends after member '{hr.name}' at offset {hr.offset}, expected '{key}{LR_SUFFIX}'")


def _members(shard: Path) -> Iterator[_Member]:
    try:
        with tarfile.open(shard, "r:") as tar:
            for info in tar:
                stream = tar.extractfile(info) if info.isreg() else None
                if stream is None:
                    raise UserError(f"{shard}: member '{info.name}' at offset {info.offset_data} is not a file")
                data = stream.read()
                height, width = _raw_size(shard, info, data)
                yield _Member(info.name, info.offset_data, info.size, zlib.crc32(data), height, width)
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"{shard}: cannot be read as a tar ({error}): copy or pack again") from error


def _raw_size(shard: Path, info: tarfile.TarInfo, data: bytes) -> tuple[int, int]:
    try:
        image = np.load(io.BytesIO(data), allow_pickle=False)
        good = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.flags.c_contiguous
        found = f"{image.dtype} {image.shape}"
    except (OSError, ValueError) as error:
        good, found = False, f"not a .npy array ({error})"
    if not good:
        raise UserError(
            f"{shard}: member '{info.name}' at offset {info.offset_data} is {found}, expected uint8 (height, width, 3)"
        )
    return int(image.shape[0]), int(image.shape[1])
