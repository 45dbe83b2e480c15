"""Reads the pixels of a patch from a shard; of raw tiles, only the rows of the patch."""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from srgan_dist.data.shard_format.encodings import decode
from srgan_dist.data.shard_format.tar import BLOCK
from srgan_dist.data.shards.shard_set import ShardSet
from srgan_dist.errors import Failure
from srgan_dist.imaging.read import TooManyPixels
from srgan_dist.imaging.resize import downscale_part
from srgan_dist.utils.system_errors import explain

_MAX_OPEN = 128  # shards held open per process; systems allow 1024 files or more


class ShardError(Failure):
    """A shard can no longer be read as its index says: it shrank, vanished, or the disk failed."""


class Tile(NamedTuple):
    """Where an image of a sample is stored in a shard.

    Attributes:
        shard: Number of the shard.
        offset: Offset of the member's data in the tar, bytes.
        size: Length of the member's data, bytes.
        height: Height of the image, pixels.
        width: Width of the image, pixels.
    """

    shard: int
    offset: int
    size: int
    height: int
    width: int


class PatchReader:
    """Reads patches from shards by `pread`; may be passed to forked and spawned workers.

    Args:
        shards: The opened shards.
    """

    def __init__(self, shards: ShardSet) -> None:
        self._shards = shards
        self._files: OrderedDict[int, int] = OrderedDict()
        self._owner = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": OrderedDict()}

    def __del__(self) -> None:
        if self._owner == os.getpid():  # a forked child's descriptors are copies, closed when it ends
            while self._files:
                os.close(self._files.popitem()[1])

    def read_patch(self, tile: Tile, *, top: int, left: int, out: NDArray[np.uint8]) -> None:
        """Read a patch of a tile.

        Args:
            tile: Where the image is stored.
            top: Upper edge, pixels; top + h <= tile.height.
            left: Left edge, pixels; left + w <= tile.width.
            out: uint8 [h, w, 3], filled in place.

        Raises:
            ShardError: The shard cannot be opened, ends too early, or has other data there.
        """
        rows, columns = out.shape[:2]
        if self._shards.shard_encodings[tile.shard] == "raw":
            pixels = self._read_rows(tile, top, rows)
        else:
            pixels = self._read_image(tile)[top : top + rows]
        out[...] = pixels[:, left : left + columns]

    def read_pair(
        self, tile: Tile, *, scale: int, top: int, left: int, hr: NDArray[np.uint8], lr: NDArray[np.uint8]
    ) -> None:
        """Read an HR patch of a whole image without a stored LR image, and make the LR patch.

        Args:
            tile: Where the HR image is stored.
            scale: HR pixels per LR pixel.
            top: Upper edge, LR pixels.
            left: Left edge, LR pixels.
            hr: uint8 [h * scale, w * scale, 3], filled in place.
            lr: uint8 [h, w, 3], filled in place with that part of the LR image of the whole HR image.

        Raises:
            ShardError: The shard cannot be opened, ends too early, or has other data there.
        """
        raw = self._shards.shard_encodings[tile.shard] == "raw"
        image = self._read_rows(tile, 0, tile.height) if raw else self._read_image(tile)
        rows, columns = hr.shape[:2]
        hr[...] = image[top * scale : top * scale + rows, left * scale : left * scale + columns]
        lr[...] = downscale_part(image, scale, top=top, left=left, height=lr.shape[0], width=lr.shape[1])

    def _read_rows(self, tile: Tile, top: int, rows: int) -> NDArray[np.uint8]:
        stride = tile.width * 3
        # Pixels are found from the end of the member: the length of the .npy header before them varies.
        pixels = tile.offset + tile.size - tile.height * stride
        data = self._read(tile, pixels + top * stride, rows * stride)
        return np.frombuffer(data, dtype=np.uint8).reshape(rows, tile.width, 3)

    def _read_image(self, tile: Tile) -> NDArray[np.uint8]:
        data = self._read(tile, tile.offset, tile.size)
        scale = self._shards.scale
        try:
            image = decode(data, below=(tile.height + scale, tile.width + scale))
        except ValueError as error:
            advice = "" if isinstance(error.__cause__, TooManyPixels) else ": copy the shard again"
            raise ShardError(f"{self._where(tile)}: cannot be decoded ({error}){advice}") from error
        # A whole image may have rows and columns beyond the last whole LR pixel.
        if image.shape[0] < tile.height or image.shape[1] < tile.width:
            found = f"{image.shape[0]}x{image.shape[1]}"
            raise ShardError(f"{self._where(tile)}: is {found}, the index says {tile.height}x{tile.width}: pack again")
        return image

    def _read(self, tile: Tile, offset: int, count: int) -> bytes:
        try:
            file = self._file(tile.shard)
            data = os.pread(file, count, offset)
            while len(data) < count and (more := os.pread(file, count - len(data), offset + len(data))):
                data += more  # network file systems may return less than asked before the end
        except OSError as error:
            path = self._shards.shard_paths[tile.shard]
            raise ShardError(
                explain(error, path) or f"{path}: cannot be read ({error.strerror}): copy it again"
            ) from error
        if len(data) < count:
            raise ShardError(
                f"{self._where(tile)}: wanted {count} bytes at {offset}, got {len(data)}: "
                "the shard was cut short, copy it again"
            )
        return data

    def _where(self, tile: Tile) -> str:
        name = _member_name(self._file(tile.shard), tile.offset)
        return f"{self._shards.shard_paths[tile.shard]}: member {name} at offset {tile.offset}"

    def _file(self, shard: int) -> int:
        if self._owner != os.getpid():  # after a fork: leave the parent's files alone, open our own
            self._files, self._owner = OrderedDict(), os.getpid()
        file = self._files.get(shard)
        if file is None:
            if len(self._files) >= _MAX_OPEN:
                os.close(self._files.popitem(last=False)[1])
            file = self._files[shard] = self._shards.open_shard(shard)
        else:
            self._files.move_to_end(shard)
        return file


def _member_name(file: int, offset: int) -> str:
    header = os.pread(file, BLOCK, offset - BLOCK) if offset >= BLOCK else b""
    if header[257:262] != b"ustar":
        return "(header lost)"
    return repr(header[:100].split(b"\0")[0].decode(errors="replace"))  # names may contain line breaks
