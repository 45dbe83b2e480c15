"""Reading the pixels of a crop out of the shards, by position, without reading the rest of the tile."""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from srgan_dist.data.index import ShardSet
from srgan_dist.errors import Failure

_MAX_OPEN = 128  # shards held open per process; systems allow 1024 files or more
_TAR_BLOCK = 512


class ShardError(Failure):
    """A shard cannot be read any more as its index says: it shrank, vanished, or the disk failed."""


class Tile(NamedTuple):
    """One image of a sample inside a shard.

    Attributes:
        shard: number of the shard.
        offset: of the member's data in the tar, bytes.
        size: of the member's data, bytes.
        height: pixels.
        width: pixels.
    """

    shard: int
    offset: int
    size: int
    height: int
    width: int


class Store:
    """Reads crops from shards by `pread`; safe to share with forked and spawned workers.

    Args:
        shards: the opened shards.
    """

    def __init__(self, shards: ShardSet) -> None:
        self._paths = shards.shard_paths
        self._encodings = shards.shard_encodings
        self._files: OrderedDict[int, int] = OrderedDict()
        self._owner = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": OrderedDict()}

    def __del__(self) -> None:
        if self._owner == os.getpid():  # a forked child's numbers are its own copies, closed as it ends
            while self._files:
                os.close(self._files.popitem()[1])

    def read_crop(self, tile: Tile, *, top: int, left: int, out: NDArray[np.uint8]) -> None:
        """Read a rectangle of a tile.

        Args:
            tile: where the image lies.
            top: upper edge, pixels; top + h <= tile.height.
            left: left edge, pixels; left + w <= tile.width.
            out: uint8 [h, w, 3], filled in place.

        Raises:
            ShardError: the shard cannot be opened, or ends too early.
        """
        match self._encodings[tile.shard]:
            case "raw":
                self._read_raw(tile, top, left, out)
            case other:  # open_shards has refused it with a line for the user
                raise ValueError(f"encoding {other!r} cannot be read")

    def _read_raw(self, tile: Tile, top: int, left: int, out: NDArray[np.uint8]) -> None:
        rows, columns = out.shape[:2]
        stride = tile.width * 3
        # Pixels end where the member ends, whatever the length of the .npy header before them.
        pixels = tile.offset + tile.size - tile.height * stride
        data = self._read(tile, pixels + top * stride, rows * stride)
        out[...] = np.frombuffer(data, dtype=np.uint8).reshape(rows, tile.width, 3)[:, left : left + columns]

    def _read(self, tile: Tile, offset: int, count: int) -> bytes:
        try:
            file = self._file(tile.shard)
            data = os.pread(file, count, offset)
            while len(data) < count and (more := os.pread(file, count - len(data), offset + len(data))):
                data += more  # network file systems may return less than asked before the end
        except OSError as error:
            raise ShardError(f"{self._paths[tile.shard]}: cannot be read ({error.strerror}): copy it again") from error
        if len(data) < count:
            member = f"member {_member_name(file, tile.offset)} at offset {tile.offset}"
            raise ShardError(
                f"{self._paths[tile.shard]}: {member}: wanted {count} bytes at {offset}, got {len(data)}: "
                "the shard was cut short, copy it again"
            )
        return data

    def _file(self, shard: int) -> int:
        if self._owner != os.getpid():  # after a fork: leave the parent's files alone, open our own
            self._files, self._owner = OrderedDict(), os.getpid()
        file = self._files.get(shard)
        if file is None:
            if len(self._files) >= _MAX_OPEN:
                os.close(self._files.popitem(last=False)[1])
            file = self._files[shard] = os.open(self._paths[shard], os.O_RDONLY | os.O_CLOEXEC)
        else:
            self._files.move_to_end(shard)
        return file


def _member_name(file: int, offset: int) -> str:
    header = os.pread(file, _TAR_BLOCK, offset - _TAR_BLOCK)
    name = header[:100].rstrip(b"\0").decode(errors="replace")
    return f"'{name}'" if len(header) == _TAR_BLOCK else "(header lost)"
