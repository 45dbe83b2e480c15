"""Packs folders of images into WebDataset shards with an index and a manifest."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial as bind
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from srgan_dist.data.packing.held_out import VALIDATION_NAME, copy_held_out, is_held_out
from srgan_dist.data.packing.layouts import find_images
from srgan_dist.data.packing.options import make_tile_options
from srgan_dist.data.packing.pairing import (
    Fault,
    Source,
    SourceHeader,
    match_sources,
    read_source_header,
    summarize_faults,
)
from srgan_dist.data.packing.partial import JOURNAL_NAME, PackOptions, PackPlan, PartialPack, other_option, read_plan
from srgan_dist.data.packing.shard_writer import OnProgress, describe, write_shards
from srgan_dist.data.packing.tiles import TileOptions
from srgan_dist.data.packing.workers import Workers, start_workers
from srgan_dist.data.shard_format.manifest import Manifest, read_manifest
from srgan_dist.errors import UserError
from srgan_dist.utils.files import write_whole
from srgan_dist.utils.names import beside, expand_home, printable

log = logging.getLogger("srgan_dist")

SKIPPED_NAME = "skipped.txt"

_IMAGES_PER_WORKER = 8  # about as many photographs are packed in the time that a worker takes to start

OnError = Literal["stop", "skip"]


def pack(
    hr_dir: str | Path,
    out: str | Path,
    *,
    lr_dir: str | Path | None = None,
    scale: int = 4,
    encoding: str = "raw",
    tile: int | None = None,
    stride: int | None = None,
    min_side: int = 0,
    min_detail: float = 0.0,
    validation_fraction: float = 0.0,
    shard_bytes: int = 256 * 2**20,
    on_error: OnError = "stop",
    workers: int = 1,
    on_progress: OnProgress | None = None,
) -> Manifest:
    """Pack images into a folder of shards that appears complete or not at all.

    The same images give the same bytes, whatever the number of workers. A call that was stopped or killed resumes in
    `OUT.partial` when it is repeated; repeating a finished call changes nothing.

    Args:
        hr_dir: Folder of HR images; see `list_images`. One that is laid out as published sets are (HR/ beside LRx4/,
            DIV2K_train_HR/ beside DIV2K_train_LR_bicubic/X4/, ...) has LR images, too.
        out: Folder to create; may exist only if it is empty or the result of the same call.
        lr_dir: Folder of the LR images, matched by name; None makes them with `downscale`, unless `hr_dir` has some.
        scale: HR pixels per LR pixel, 1 to 8.
        encoding: "raw", "png", "webp" or "jpeg"; see shards/README.md.
        tile: Maximum side of a tile in HR pixels, a multiple of `scale`; None takes 480, or whole images for jpeg,
            which allows nothing else.
        stride: HR pixels from tile to tile, below `tile` for tiles that overlap; None splits without overlap.
        min_side: Images with a shorter side, in HR pixels, are left out and counted in the manifest.
        min_detail: Tiles with less `detail`, in levels of 255, are left out and counted in the manifest.
        validation_fraction: Fraction of the images, chosen by a hash of their keys, that is copied to
            `OUT/validation` instead of being packed; 0 to below 1.
        shard_bytes: Maximum size of a shard; a sample that is larger gets a shard of its own.
        on_error: What to do with unusable files: `stop`, or `skip` and list them in `OUT/skipped.txt`.
        workers: Processes; more than one needs a guarded main file, see `start_workers`. Each has up to two images in
            memory.
        on_progress: Called after each image with (images done, images in all).

    Returns:
        The manifest that was written.

    Raises:
        UserError: An image, a pair, an option or the output folder is unusable.
        Failure: A worker was killed.
    """
    tile_options = make_tile_options(scale=scale, encoding=encoding, tile=tile, stride=stride, min_detail=min_detail)
    _refuse_bad_values(shard_bytes, workers, validation_fraction, on_error)
    out, images = expand_home(out), find_images(hr_dir, lr_dir, scale=scale, training=True)
    options = asdict(tile_options) | {
        "min_side": min_side,
        "validation_fraction": validation_fraction,
        "shard_bytes": shard_bytes,
        "lr": "given" if images.lr_dir else "made",
    }
    _refuse_taken(out, options)
    sources, faults = match_sources(images, scale=scale)
    with start_workers(min(workers, len(sources) // _IMAGES_PER_WORKER)) as pool:
        work = _Work(images.hr_dir, images.lr_dir, tile_options, pool, on_error, on_progress)
        chosen = _select(work, sources, faults, min_side=min_side, validation_fraction=validation_fraction)
        manifest = _make(out, work, chosen, options, shard_bytes=shard_bytes)
    log.info("%s", images.description)
    return manifest


def summary(manifest: Manifest) -> str:
    """Summarize in one line what was packed and what was left out.

    Args:
        manifest: The manifest that `pack` returned.

    Returns:
        Counts and the size of the shards.
    """
    size = sum(shard.bytes for shard in manifest.shards) / 2**20
    counts = [
        f"{manifest.num_images} images",
        f"{manifest.num_samples} tiles" if manifest.encoding != "jpeg" else "",
        f"{len(manifest.shards)} shards",
        f"{size:.1f} MiB",
        manifest.num_validation and f"{manifest.num_validation} images held out in {VALIDATION_NAME}/",
        manifest.num_reencoded and f"{manifest.num_reencoded} images encoded as JPEG with loss",
        manifest.num_small and f"{manifest.num_small} small images left out",
        manifest.num_flat and f"{manifest.num_flat} flat tiles left out",
        manifest.num_skipped and f"{manifest.num_skipped} unusable files left out ({SKIPPED_NAME})",
    ]
    return ", ".join(str(count) for count in counts if count)


class _Item(NamedTuple):
    source: Source
    identity: str


class _Selection(NamedTuple):
    training: list[_Item]
    held_out: list[_Item]
    faults: list[Fault]
    num_small: int


class _Work(NamedTuple):
    hr_dir: Path
    lr_dir: Path | None
    tile_options: TileOptions
    pool: Workers
    on_error: OnError
    on_progress: OnProgress | None

    def stop_at(self, faults: Sequence[Fault]) -> None:
        if faults and self.on_error == "stop":
            raise UserError(
                f"{summarize_faults(self.hr_dir, self.lr_dir, faults)} (--on-error skip leaves such files out)"
            )


def _select(
    work: _Work, sources: Sequence[Source], faults: Sequence[Fault], *, min_side: int, validation_fraction: float
) -> _Selection:
    chosen = _Selection([], [], list(faults), 0)
    num_small = 0
    headers = work.pool.map(bind(read_source_header, scale=work.tile_options.scale), sources, chunk=64)
    for source, header in zip(sources, headers, strict=True):
        if isinstance(header, Fault):
            chosen.faults.append(header)
        elif min(header.height, header.width) < min_side:
            num_small += 1
        else:
            held_out = is_held_out(source.key, validation_fraction)
            (chosen.held_out if held_out else chosen.training).append(_Item(source, _identity(source, header)))
    work.stop_at(chosen.faults)
    if not chosen.training:
        why = f"no image has {min_side} pixels a side (--min-side): lower it" if num_small else "no image is left"
        raise UserError(f"{work.hr_dir}: {why}{_many('files are unusable', chosen.faults)}")
    if validation_fraction and not chosen.held_out:
        raise UserError(
            f"{work.hr_dir}: --validation-fraction {validation_fraction} chooses none of {len(chosen.training)} "
            "images: raise it"
        )
    return chosen._replace(num_small=num_small)


def _identity(source: Source, header: SourceHeader) -> str:
    return f"{source.key} {printable(source.hr.name)} {header.stamp}"


def _many(what: str, faults: Sequence[Fault]) -> str:
    return f", {len(faults)} {what}, such as: {faults[0].reason}" if faults else ""


def _make(out: Path, work: _Work, chosen: _Selection, options: PackOptions, *, shard_bytes: int) -> Manifest:
    plan = PackPlan(options, [item.identity for item in chosen.training], [item.identity for item in chosen.held_out])
    final = out.resolve()
    if read_plan(final):
        return _packed_before(final, plan)
    try:
        # A sibling of the final folder, so that the rename is atomic.
        with PartialPack(beside(final, after=".partial"), plan) as partial:
            if read_plan(final):  # another process was quicker
                return _packed_before(final, plan)
            manifest = _fill(partial, work, chosen, shard_bytes=shard_bytes)
            partial.publish(final)
    except OSError as error:
        raise UserError(
            f"{out}: cannot be written ({error.strerror or error}): choose a folder with room that is yours to "
            "write, or make room and run the same command again"
        ) from error
    return manifest


def _fill(partial: PartialPack, work: _Work, chosen: _Selection, *, shard_bytes: int) -> Manifest:
    sources = [item.source for item in chosen.training]
    work.stop_at([Fault(Path(path), reason) for path, reason in partial.progress.skipped])
    write_shards(
        partial,
        sources,
        work.tile_options,
        work.pool,
        shard_bytes=shard_bytes,
        on_fault=lambda fault: work.stop_at([fault]),
        on_progress=work.on_progress,
    )
    late = [Fault(Path(path), reason) for path, reason in partial.progress.skipped]
    if not partial.shards:
        flat = partial.progress.num_flat
        why = f", {flat} have less detail than {work.tile_options.min_detail} (--min-detail)" if flat else ""
        raise UserError(f"{work.hr_dir}: no tile is left{why}{_many('files are unusable', [*chosen.faults, *late])}")
    unread = copy_held_out(
        [item.source for item in chosen.held_out],
        partial.folder / VALIDATION_NAME,
        work.pool,
        hr_dir=work.hr_dir,
        lr_dir=work.lr_dir,
        scale=work.tile_options.scale,
    )
    work.stop_at(unread)
    skipped = [*chosen.faults, *late, *unread]
    if skipped:
        write_whole(
            partial.folder / SKIPPED_NAME,
            "".join(f"{printable(str(path))}\t{printable(reason)}\n" for path, reason in skipped),
        )
        log.warning("left out, as %s lists: %s", SKIPPED_NAME, summarize_faults(work.hr_dir, work.lr_dir, skipped))
    return describe(
        partial,
        work.pool,
        tile_options=work.tile_options,
        given_lr=work.lr_dir is not None,
        num_images=len(sources) - len(late),
        num_skipped=len(skipped),
        num_small=chosen.num_small,
        num_validation=len(chosen.held_out) - len(unread),
    )


def _packed_before(final: Path, plan: PackPlan) -> Manifest:
    kept = read_plan(final)
    if kept is None or kept["inputs"] != plan.digest:
        raise UserError(
            f"{final}: was packed from other images, or some have changed since: choose another name, or remove it"
        )
    (final / JOURNAL_NAME).unlink(missing_ok=True)  # left by a process that was killed just before it finished
    log.info("%s: already packed", final)
    return read_manifest(final)


def _refuse_bad_values(shard_bytes: int, workers: int, validation_fraction: float, on_error: str) -> None:
    if shard_bytes < 1:
        raise UserError(f"shard_bytes is {shard_bytes}, allowed are 1 or more")
    if workers < 1:
        raise UserError(f"workers is {workers}, allowed are 1 or more")
    if not 0 <= validation_fraction < 1:
        raise UserError(f"validation_fraction is {validation_fraction}, allowed are 0 to below 1")
    if on_error not in get_args(OnError):
        raise UserError(f"on_error is {on_error!r}, allowed are {' and '.join(get_args(OnError))}")


def _refuse_taken(out: Path, options: PackOptions) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file, expected a folder to make: choose another name")
    if plan := read_plan(out):
        if difference := other_option(plan["options"], options):
            raise UserError(f"{out}: was packed with {difference}: choose another name, or remove it first")
    elif out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out}: exists and is not empty: choose another name, or remove it first")
