"""Packing folders of images into WebDataset shards with an index and a manifest."""

from __future__ import annotations

import io
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import webdataset
from numpy.typing import NDArray

from srgan_dist.data.images import read_rgb, read_size
from srgan_dist.data.index import INDEX_NAME, build_index
from srgan_dist.data.manifest import MANIFEST_NAME, Manifest, ShardEntry, file_sha256
from srgan_dist.data.pairing import Source, find_sources
from srgan_dist.data.resize import downscale, modcrop
from srgan_dist.errors import UserError

log = logging.getLogger("srgan_dist")

_MAX_SCALE = 8  # beyond it the padding of downscale would have to grow, and nobody trains it
_MAX_TILE = 65528  # heights and widths are 16-bit in the index
_MADE_LR = "bicubic with antialiasing of the whole mod-cropped image, like MATLAB imresize, 8-bit"
_GIVEN_LR = "given as images"


def pack(
    hr_dir: str | Path,
    out: str | Path,
    *,
    lr_dir: str | Path | None = None,
    scale: int = 4,
    tile: int = 480,
    min_side: int = 0,
    shard_bytes: int = 256 * 2**20,
    on_progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Pack images into a folder of shards that appears whole, or not at all.

    The same images give the same bytes. One image is held in memory at a time.

    Args:
        hr_dir: folder of HR images; see `list_images`.
        out: folder to make; may exist only if it is empty.
        lr_dir: folder of the LR images, matched by name; None makes them with `downscale`.
        scale: HR pixels per LR pixel, 1 to 8.
        tile: greatest side of a tile in HR pixels, a multiple of `scale`.
        min_side: images with a shorter side, in HR pixels, are left out and counted in the log.
        shard_bytes: size at which the next shard begins; one larger sample still gets its own shard.
        on_progress: called after each image with (images done, images in all).

    Returns:
        The manifest, as written.

    Raises:
        UserError: an image, a pair, a number or the output folder is bad.
    """
    _refuse_bad_numbers(scale=scale, tile=tile, shard_bytes=shard_bytes)
    _refuse_taken(Path(out))
    sources = _large_enough(find_sources(hr_dir, lr_dir, scale=scale), min_side=min_side, hr_dir=hr_dir)
    final = Path(out).resolve()
    partial = final.with_name(f"{final.name}.partial-{os.getpid()}")  # a sibling, so that the rename is atomic
    try:
        partial.mkdir(parents=True)
        samples = _samples(sources, scale=scale, tile=tile, on_progress=on_progress)
        shards = _write_shards(partial, samples, shard_bytes=shard_bytes)
        kernel = _MADE_LR if lr_dir is None else _GIVEN_LR
        manifest = _describe(partial, shards, scale=scale, tile=tile, kernel=kernel, num_images=len(sources))
        _sync_folder(partial)
        partial.rename(final)
        _sync_folder(final.parent)
    except OSError as error:
        raise UserError(
            f"{out}: cannot be written ({error.strerror or error}): choose a folder with room that is yours to write"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _large_enough(sources: Sequence[Source], *, min_side: int, hr_dir: str | Path) -> list[Source]:
    kept = [source for source in sources if min(read_size(source.hr)) >= min_side]
    if not kept:
        raise UserError(f"{hr_dir}: no image has {min_side} pixels a side (--min-side): lower it")
    if len(kept) < len(sources):
        log.info("%s: left out %d images smaller than %d pixels", hr_dir, len(sources) - len(kept), min_side)
    return kept


def split_side(length: int, *, tile: int, scale: int) -> list[int]:
    """Split a side into the fewest parts that fit, of nearly equal length.

    Args:
        length: pixels, a multiple of `scale`.
        tile: greatest part in pixels, a multiple of `scale`.
        scale: every part is a multiple of it.

    Returns:
        The parts' edges: 0, ..., length, ascending.
    """
    units = length // scale
    parts = -(-units // (tile // scale))
    return [units * i // parts * scale for i in range(parts + 1)]


class _Sample(NamedTuple):
    key: str
    hr: bytes
    lr: bytes


def _samples(
    sources: Sequence[Source], *, scale: int, tile: int, on_progress: Callable[[int, int], None] | None
) -> Iterator[_Sample]:
    for done, source in enumerate(sources, start=1):
        hr = modcrop(read_rgb(source.hr), scale)
        # The LR image is made from the whole image: made tile by tile, its borders would be wrong.
        lr = downscale(hr, scale) if source.lr is None else read_rgb(source.lr)
        rows = split_side(hr.shape[0], tile=tile, scale=scale)
        columns = split_side(hr.shape[1], tile=tile, scale=scale)
        for row, (top, bottom) in enumerate(pairwise(rows)):
            for column, (left, right) in enumerate(pairwise(columns)):
                yield _Sample(
                    key=f"{source.key}_r{row:02d}c{column:02d}",
                    hr=_npy(hr[top:bottom, left:right]),
                    lr=_npy(lr[top // scale : bottom // scale, left // scale : right // scale]),
                )
        if on_progress is not None:
            on_progress(done, len(sources))


def _npy(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(pixels), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _write_shards(folder: Path, samples: Iterator[_Sample], *, shard_bytes: int) -> list[Path]:
    shards: list[Path] = []
    waiting = next(samples, None)
    while waiting is not None:
        path = folder / f"shard-{len(shards):06d}.tar"
        shards.append(path)
        with open(path, "xb") as file:
            # mtime=0: the present time would give other bytes on every run.
            with closing(webdataset.TarWriter(file, encoder=False, mtime=0)) as tar:
                written = 0
                while waiting is not None and (not written or written + _size(waiting) <= shard_bytes):
                    content: dict[str, Any] = {
                        "__key__": waiting.key,
                        "hr.npy": waiting.hr,
                        "lr.npy": waiting.lr,
                    }
                    tar.write(content)
                    written += _size(waiting)
                    waiting = next(samples, None)
            _sync(file)
    return shards


def _size(sample: _Sample) -> int:
    return len(sample.hr) + len(sample.lr) + 2048  # two headers of 512 bytes, and rounding up to 512


def _describe(folder: Path, shards: Sequence[Path], *, scale: int, tile: int, kernel: str, num_images: int) -> Manifest:
    index = build_index(shards, scale=scale)  # from the finished files: what the writer meant proves nothing
    with open(folder / INDEX_NAME, "xb") as file:
        np.lib.format.write_array(file, index, version=(1, 0), allow_pickle=False)
        _sync(file)
    counts = np.bincount(index["shard"], minlength=len(shards)).tolist()
    manifest = Manifest(
        scale=scale,
        tile=tile,
        encoding="raw",
        kernel=kernel,
        num_samples=len(index),
        num_images=num_images,
        index_sha256=file_sha256(folder / INDEX_NAME),
        shards=tuple(
            ShardEntry(name=path.name, bytes=path.stat().st_size, sha256=file_sha256(path), samples=count)
            for path, count in zip(shards, counts, strict=True)
        ),
        created_by=f"srgan-dist {_version()}",
    )
    with open(folder / MANIFEST_NAME, "x", encoding="utf-8") as text:
        text.write(manifest.to_json())
        _sync(text)
    return manifest


def _version() -> str:
    try:
        return metadata.version("srgan-dist")
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "(not installed)"


def _sync(file: io.BufferedWriter | io.TextIOWrapper) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_bad_numbers(*, scale: int, tile: int, shard_bytes: int) -> None:
    if not 1 <= scale <= _MAX_SCALE:
        raise UserError(f"scale is {scale}, allowed are 1 to {_MAX_SCALE}")
    if not scale <= tile <= _MAX_TILE or tile % scale:
        below = max(scale, min(tile, _MAX_TILE) // scale * scale)
        raise UserError(
            f"tile is {tile}, allowed are multiples of scale {scale} up to {_MAX_TILE}: take {below}, for example"
        )
    if shard_bytes < 1:
        raise UserError(f"shard_bytes is {shard_bytes}, allowed are 1 or more")


def _refuse_taken(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file, expected a folder to make: choose another name")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out}: exists and is not empty: choose another name, or remove it first")
