"""Writes the shards of a pack, their index and their manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial as bind
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import webdataset

from srgan_dist.data.packing.pairing import Fault, Source
from srgan_dist.data.packing.partial import PartialPack, Progress
from srgan_dist.data.packing.tiles import CutImage, EncodedSample, TileOptions, cut_image
from srgan_dist.data.packing.workers import Workers
from srgan_dist.data.shard_format.encodings import Encoding, suffixes
from srgan_dist.data.shard_format.index_rows import INDEX_NAME, Rows
from srgan_dist.data.shard_format.manifest import MANIFEST_NAME, Manifest, ShardEntry
from srgan_dist.data.shards.shard_set import build_index
from srgan_dist.errors import UserError
from srgan_dist.utils.files import file_sha256, sync, write_whole

OnProgress = Callable[[int, int], None]

_MADE_LR = "bicubic with antialiasing of the whole mod-cropped image, like MATLAB imresize, 8-bit"
_GIVEN_LR = "given as images"


def write_shards(
    partial: PartialPack,
    sources: Sequence[Source],
    tile_options: TileOptions,
    pool: Workers,
    *,
    shard_bytes: int,
    on_fault: Callable[[Fault], None],
    on_progress: OnProgress | None,
) -> None:
    """Write the shards that are not finished yet.

    Where a shard ends depends on the samples' order and sizes alone, so that the bytes are the same however often
    the pack was interrupted and whichever worker cut the images.

    Args:
        partial: Folder of the pack.
        sources: All images, in order.
        tile_options: How they are cut into samples.
        pool: Workers that cut them.
        shard_bytes: Maximum size of a shard.
        on_fault: Called for each image that turns out to be unusable; may raise.
        on_progress: Called after each image with (images done, images in all).

    Raises:
        OSError: The folder cannot be written.
    """
    hr_suffix, lr_suffix = suffixes(tile_options.encoding)
    progress = partial.progress
    cuts = pool.map(bind(_cut, tile_options=tile_options), sources[progress.image :])
    samples = _samples(cuts, sources, progress, on_fault=on_fault, on_progress=on_progress)
    waiting = next(samples, None)
    while waiting is not None:
        path = partial.begin_shard()
        with open(path, "wb") as file:
            # mtime=0: with the current time, every run would write other bytes.
            with closing(webdataset.TarWriter(file, encoder=False, mtime=0)) as tar:
                written = 0
                while waiting is not None and (not written or written + _size(waiting) <= shard_bytes):
                    content: dict[str, Any] = {
                        "__key__": waiting.key,
                        f"hr.{hr_suffix}": waiting.hr,
                        f"lr.{lr_suffix}": waiting.lr,
                    }
                    tar.write(content)
                    written += _size(waiting)
                    waiting = next(samples, None)
            sync(file)
        partial.finish_shard(path, progress)


def _cut(source: Source, *, tile_options: TileOptions) -> CutImage | Fault:
    try:
        return cut_image(source, tile_options)
    except UserError as error:
        return Fault(source.hr, str(error))


def _samples(
    cuts: Iterable[CutImage | Fault],
    sources: Sequence[Source],
    progress: Progress,
    *,
    on_fault: Callable[[Fault], None],
    on_progress: OnProgress | None,
) -> Iterator[EncodedSample]:
    """Yield the samples from `progress` on, and advance it: it counts what precedes the sample yielded last."""
    for cut in cuts:
        if isinstance(cut, Fault):
            on_fault(cut)
            progress.skipped.append((str(cut.path), cut.reason))
        else:
            for sample in cut.samples[progress.sample :]:
                yield sample
                progress.sample += 1
            progress.num_flat += cut.num_flat
            progress.num_reencoded += cut.reencoded
        progress.image, progress.sample = progress.image + 1, 0
        if on_progress is not None:
            on_progress(progress.image, len(sources))


def _size(sample: EncodedSample) -> int:
    return len(sample.hr) + len(sample.lr) + 2048  # two headers of 512 bytes, and rounding up to 512


def describe(
    partial: PartialPack,
    pool: Workers,
    *,
    tile_options: TileOptions,
    given_lr: bool,
    num_images: int,
    num_skipped: int,
    num_small: int,
    num_validation: int,
) -> Manifest:
    """Write the index and the manifest of the finished shards, from what the files really contain.

    Args:
        partial: Folder of the pack.
        pool: Workers that read the shards.
        tile_options: How the images were cut into samples.
        given_lr: Whether the LR images were given.
        num_images: Images that were packed.
        num_skipped: Files left out because they could not be used.
        num_small: Images left out because they were small.
        num_validation: Images held out for validation.

    Returns:
        The manifest.
    """
    folder, shards = partial.folder, partial.shards
    read_back = bind(_read_back, scale=tile_options.scale, encoding=tile_options.encoding)
    rows: list[Rows] = []
    entries: list[ShardEntry] = []
    for number, (found, entry) in enumerate(pool.map(read_back, shards)):
        found["shard"] = number
        rows.append(found)
        entries.append(entry)
    index = np.concatenate(rows)
    with open(folder / INDEX_NAME, "wb") as file:
        np.lib.format.write_array(file, index, version=(1, 0), allow_pickle=False)
        sync(file)
    manifest = Manifest(
        scale=tile_options.scale,
        tile=tile_options.tile or int(max(index["height"].max(), index["width"].max())),
        encoding=tile_options.encoding,
        kernel=_GIVEN_LR if given_lr else _MADE_LR,
        num_samples=len(index),
        num_images=num_images,
        index_sha256=file_sha256(folder / INDEX_NAME),
        shards=tuple(entries),
        created_by=f"srgan-dist {version('srgan-dist')}",
        num_skipped=num_skipped,
        num_small=num_small,
        num_flat=partial.progress.num_flat,
        num_reencoded=partial.progress.num_reencoded,
        num_validation=num_validation,
    )
    write_whole(folder / MANIFEST_NAME, manifest.to_json())
    return manifest


def _read_back(shard: Path, *, scale: int, encoding: Encoding) -> tuple[Rows, ShardEntry]:
    rows = build_index([shard], scale=scale, encoding=encoding)  # from the file itself
    entry = ShardEntry(name=shard.name, bytes=shard.stat().st_size, sha256=file_sha256(shard), samples=len(rows))
    return rows, entry
