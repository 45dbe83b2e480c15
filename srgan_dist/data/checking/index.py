"""Compares index and manifest with the shards."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from srgan_dist.data.checking.sample import Remark, SampleImage
from srgan_dist.data.checking.samples import SampleMembers
from srgan_dist.data.shard_format.index_rows import INDEX_NAME, Rows, map_rows
from srgan_dist.data.shard_format.manifest import Manifest, ShardEntry
from srgan_dist.utils.files import file_sha256


def load_index(folder: Path, manifest: Manifest, report: Callable[[str], None]) -> Rows | None:
    """Open the index of a packed folder, and report what is wrong with it as a whole.

    Args:
        folder: The packed folder.
        manifest: Its manifest.
        report: Called with each fault.

    Returns:
        `ROW` array, mapped into memory; None where it cannot be used.
    """
    path = folder / INDEX_NAME
    try:
        index = map_rows(path)
        digest = file_sha256(path)
    except OSError as error:
        report(f"cannot be read ({error.strerror})")
        return None
    except ValueError as error:
        report(str(error))
        return None
    if digest != manifest.index_sha256:
        report(f"sha256 is {digest[:12]}..., the manifest says {manifest.index_sha256[:12]}...")
    if len(index) != manifest.num_samples:
        report(f"has {len(index)} rows, the manifest says {manifest.num_samples}")
    beyond = np.flatnonzero(index["shard"] >= len(manifest.shards))
    if beyond.size:
        report(
            f"row {beyond[0]} names shard {index['shard'][beyond[0]]}, the manifest has {len(manifest.shards)}"
            f" ({beyond.size} such rows)"
        )
    if np.any(index["shard"][1:] < index["shard"][:-1]):
        report("rows are not in the order of the shards: not compared with them")
        return None
    return index


def shard_faults(path: Path, entry: ShardEntry) -> Iterator[str]:
    """Compare a shard's file with the manifest.

    Args:
        path: Path of the shard, which exists.
        entry: Its entry in the manifest.

    Yields:
        Each difference: the size, or the sha256 where the size is right.
    """
    size = path.stat().st_size
    if size != entry.bytes:
        yield f"has {size} bytes, the manifest says {entry.bytes}"
    elif (digest := file_sha256(path)) != entry.sha256:
        yield f"sha256 is {digest[:12]}..., the manifest says {entry.sha256[:12]}...: the file has changed"


class ShardIndex:
    """The index rows of one shard, checked off as its samples are found.

    Args:
        index: Index of the folder, in the order of the shards.
        shard: Number of the shard.
        scale: HR pixels per LR pixel.
    """

    def __init__(self, index: Rows, shard: int, *, scale: int) -> None:
        self._first, end = (int(place) for place in np.searchsorted(index["shard"], [shard, shard + 1]))
        self._rows = index[self._first : end]
        self._scale = scale
        self._by_offset = {offset: place for place, offset in enumerate(self._rows["hr_offset"].tolist())}
        self._last = -1

    def remarks(self, sample: SampleMembers, hr: SampleImage | int, lr: SampleImage | int | None) -> Iterator[Remark]:
        """Compare one sample with its row.

        Args:
            sample: Where its images are stored.
            hr: Its HR image as returned by `read_sample_image`.
            lr: Its LR image; None where it is made during training.

        Yields:
            Each difference.
        """
        place = self._by_offset.pop(sample.hr.member.offset, None)
        if place is None:
            yield Remark(sample.hr.member, f"{INDEX_NAME} has no row for its data")
            return
        row, name = self._rows[place], f"row {self._first + place} of {INDEX_NAME}"
        if place < self._last:
            yield Remark(sample.hr.member, f"{name} is not in the order of the members")
        self._last = max(place, self._last)
        if sample.lr is None and row["lr_size"]:
            yield Remark(sample.hr.member, f"{name} has an LR image, the shard has none")
        for side, half, part in (("hr", sample.hr, hr), ("lr", sample.lr, lr)):
            if half is None or part is None:
                continue
            crc = part if isinstance(part, int) else part.crc
            for field, found in (("offset", half.member.offset), ("size", half.member.size)):
                if int(row[f"{side}_{field}"]) != found:
                    yield Remark(half.member, f"{name} says {side}_{field} {row[f'{side}_{field}']}, found {found}")
            if int(row[f"{side}_crc"]) != crc:
                yield Remark(half.member, f"crc32 of its data is {crc:08x}, {name} says {int(row[f'{side}_crc']):08x}")
            if isinstance(part, SampleImage):
                yield from self._size_remarks(row, side, part, name)

    def _size_remarks(self, row: np.void, side: str, part: SampleImage, name: str) -> Iterator[Remark]:
        scale = self._scale
        height, width = part.header.height, part.header.width
        said = (int(row["height"]), int(row["width"]))
        # HR is read as if cropped to multiples of the scale.
        found = (height // scale * scale, width // scale * scale) if side == "hr" else (height * scale, width * scale)
        if found != said:
            yield Remark(part.member, f"is {height}x{width}, {name} is of hr {said[0]}x{said[1]} at scale {scale}")

    def unmatched(self) -> tuple[int, str] | None:
        """Return (offset of the first, message) for the rows without a sample; None where there are none."""
        if not self._by_offset:
            return None
        offset, place = min(self._by_offset.items())
        return offset, (
            f"row {self._first + place} of {INDEX_NAME} expects a sample here, none was found "
            f"({len(self._by_offset)} such rows in this shard)"
        )


class Duplicates:
    """Finds duplicates among millions of values, using 24 bytes for each."""

    def __init__(self) -> None:
        self._columns = (array("Q"), array("Q"), array("Q"))

    def add(self, digest: bytes, shard: int, header: int) -> None:
        """Add a value.

        Args:
            digest: Hash of the value, 8 bytes.
            shard: Number of the shard it is in.
            header: Offset of its member's first header block.
        """
        for column, value in zip(self._columns, (int.from_bytes(digest, "little"), shard, header), strict=True):
            column.append(value)

    def places(self, digests: Sequence[bytes]) -> Iterator[tuple[int, int]]:
        """Yield (shard, header) of each value that was added and is in a list of digests."""
        wanted = np.array([int.from_bytes(digest, "little") for digest in digests], dtype=np.uint64)
        values, shards, headers = (np.frombuffer(column, dtype=np.uint64) for column in self._columns)
        # Not by a table, which NumPy 2.0 also tries with numbers of 64 bits, and fails.
        for place in np.flatnonzero(np.isin(values, wanted, kind="sort")).tolist():
            yield int(shards[place]), int(headers[place])

    def found(self) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """Yield, for each repeated value, its (shard, header) and that of the first equal value, in order."""
        digests, shards, headers = (np.frombuffer(column, dtype=np.uint64) for column in self._columns)
        if not digests.size:
            return
        order = np.argsort(digests, kind="stable")
        again = np.flatnonzero(digests[order][1:] == digests[order][:-1]) + 1
        starts = np.flatnonzero(np.append(True, digests[order][1:] != digests[order][:-1]))
        firsts = order[starts[np.searchsorted(starts, again, side="right") - 1]]
        for place, first in sorted(zip(order[again].tolist(), firsts.tolist(), strict=True)):
            yield (int(shards[place]), int(headers[place])), (int(shards[first]), int(headers[first]))
