"""From chosen images to finished tars, their index and their manifest, inside the folder of a pack."""

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
from srgan_dist.data.packing.partial import Partial, Progress
from srgan_dist.data.packing.tiles import Cut, Cutting, Sample, cut_image
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
    partial: Partial,
    sources: Sequence[Source],
    cutting: Cutting,
    crew: Workers,
    *,
    shard_bytes: int,
    on_fault: Callable[[Fault], None],
    on_progress: OnProgress | None,
) -> None:
    """Write the shards that a folder does not hold yet.

    Where a shard ends depends on the samples' order and sizes alone, so that the bytes are the same however often
    this was interrupted and whoever cut the images.

    Args:
        partial: the folder.
        sources: all images, in order.
        cutting: how they become samples.
        crew: cuts them.
        shard_bytes: size at which the next shard begins.
        on_fault: called for each image that turns out to be unusable; may raise.
        on_progress: called after each image with (images done, images in all).

    Raises:
        OSError: the folder cannot be written.
    """
    hr_suffix, lr_suffix = suffixes(cutting.encoding)
    progress = partial.progress
    cuts = crew.map(bind(_cut, cutting=cutting), sources[progress.image :])
    samples = _samples(cuts, sources, progress, on_fault=on_fault, on_progress=on_progress)
    waiting = next(samples, None)
    while waiting is not None:
        path = partial.begin_shard()
        with open(path, "wb") as file:
            # mtime=0: the present time would give other bytes on every run.
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


def _cut(source: Source, *, cutting: Cutting) -> Cut | Fault:
    try:
        return cut_image(source, cutting)
    except UserError as error:
        return Fault(source.hr, str(error))


def _samples(
    cuts: Iterable[Cut | Fault],
    sources: Sequence[Source],
    progress: Progress,
    *,
    on_fault: Callable[[Fault], None],
    on_progress: OnProgress | None,
) -> Iterator[Sample]:
    """Yield the samples from where `progress` is, and move it along: it counts what lies before the last one."""
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


def _size(sample: Sample) -> int:
    return len(sample.hr) + len(sample.lr) + 2048  # two headers of 512 bytes, and rounding up to 512


def describe(
    partial: Partial,
    crew: Workers,
    *,
    cutting: Cutting,
    given_lr: bool,
    num_images: int,
    num_skipped: int,
    num_small: int,
    num_validation: int,
) -> Manifest:
    """Write the index and the manifest of finished shards, from the files themselves.

    Args:
        partial: the folder.
        crew: reads the shards.
        cutting: how the images became samples.
        given_lr: whether the LR images were given.
        num_images: images that the samples are of.
        num_skipped: files left out because they could not be used.
        num_small: images left out because they were small.
        num_validation: images put aside.

    Returns:
        The manifest.
    """
    folder, shards = partial.folder, partial.shards
    look = bind(_read_back, scale=cutting.scale, encoding=cutting.encoding)
    rows: list[Rows] = []
    entries: list[ShardEntry] = []
    for number, (found, entry) in enumerate(crew.map(look, shards)):
        found["shard"] = number
        rows.append(found)
        entries.append(entry)
    index = np.concatenate(rows)
    with open(folder / INDEX_NAME, "wb") as file:
        np.lib.format.write_array(file, index, version=(1, 0), allow_pickle=False)
        sync(file)
    manifest = Manifest(
        scale=cutting.scale,
        tile=cutting.tile or int(max(index["height"].max(), index["width"].max())),
        encoding=cutting.encoding,
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
    rows = build_index([shard], scale=scale, encoding=encoding)  # what the writer meant proves nothing
    entry = ShardEntry(name=shard.name, bytes=shard.stat().st_size, sha256=file_sha256(shard), samples=len(rows))
    return rows, entry
