"""``srgan-dist bench loader``: how fast patches come, by encoding and workers, beside other trainers' ways."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch

from srgan_dist.bench.common.images import TILE, choose_images, make_images, png_tiles
from srgan_dist.bench.common.measure import Rate, measure, num_cores
from srgan_dist.bench.loader.peers import (
    PREFETCH,
    Files,
    Lmdb,
    OpenCV,
    PatchShape,
    Pillow,
    PngPairs,
    ours,
    png_loader,
    webdataset_stream,
    write_lmdb,
)
from srgan_dist.bench.loader.startup import SIZES, StartUp, start_up
from srgan_dist.bench.loader.wait import TRAINED_SCALES, DataWait, data_wait
from srgan_dist.data.packing.pack import pack
from srgan_dist.data.shard_format.encodings import ENCODINGS, Encoding
from srgan_dist.data.shard_format.manifest import read_manifest
from srgan_dist.errors import UserError

_SHARD_BYTES = 8 * 2**20  # several shards, also of few images
_OURS = "srgan-dist, "
RAW, STREAM = f"{_OURS}raw", "webdataset, same raw tars"
PNG, CV2, LMDB = "PNG folder, Pillow", "PNG folder, cv2 float32 like BasicSR", "LMDB of PNG, Pillow"


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
        images: the user's images, None makes some.
        patches: what is cut.
        workers: numbers of workers, ascending.
        seconds: to measure each way with each number of workers.
        training: whether to measure the waiting of a training step.
    """

    images: Path | None
    patches: PatchShape
    workers: tuple[int, ...]
    seconds: float
    training: bool = True


class Way(NamedTuple):
    """One way from files to batches: its name, what its batches are, and how to read them with some workers."""

    name: str
    batches: str
    read: Callable[[int], Generator[Any, None, None]]


class Row(NamedTuple):
    """One way with one number of workers."""

    name: str
    batches: str
    workers: int
    rate: Rate

    @property
    def is_peer(self) -> bool:
        return not self.name.startswith(_OURS)


@dataclass(frozen=True)
class Report:
    """What came out.

    Attributes:
        rows: every way with every number of workers.
        starts: what opening many samples costs.
        wait: of a training step, or None.
        left_out: ways that were not measured, and why.
        images: what they were measured on, in words.
        options: what was asked for.
    """

    rows: list[Row]
    starts: list[StartUp]
    wait: DataWait | None
    left_out: dict[str, str]
    images: str
    options: Options


def worker_counts(most: int | None) -> tuple[int, ...]:
    """Numbers of workers to measure: 0, 1, 2, and on by doubling, up to the greatest.

    Args:
        most: the greatest; None takes the cores of this machine.
    """
    most = num_cores() if most is None else most
    doubled = [2**power for power in range(most.bit_length()) if 2**power < most]
    return tuple(dict.fromkeys([0, *doubled, most]))


def bench_loader(options: Options, *, on_progress: Callable[[str], None]) -> Report:
    """Measure the loader and its peers on the same images, one after another, with warm files.

    Args:
        options: what.
        on_progress: called with what is being done.

    Raises:
        UserError: a number is out of range, or the images are missing, unreadable or too small.
    """
    _refuse_bad_numbers(options)
    patches = options.patches
    with tempfile.TemporaryDirectory(prefix="srgan-dist-bench-") as name, _one_thread():
        work = Path(name)
        images = _images(work / "images", options, on_progress)
        ways, left_out = ways_to_read(work, patches, on_progress=on_progress)
        rows = [row for way in ways for row in _measure(way, options, on_progress)]
        on_progress("opening many samples")
        starts = start_up(work, SIZES)
        wait = None
        if patches.scale not in TRAINED_SCALES:
            left_out["training"] = f"its network has scales {', '.join(map(str, TRAINED_SCALES))}"
        elif options.training:
            on_progress("training for a moment")
            wait = data_wait(work / "raw", work / "run", patches)
        manifest = read_manifest(work / "raw")
    images = f"{images}: {manifest.num_images} images, {manifest.num_samples} tiles of at most {TILE}x{TILE}"
    return Report(rows, starts, wait, left_out, images, options)


def _images(folder: Path, options: Options, on_progress: Callable[[str], None]) -> str:
    folder.mkdir()
    on_progress("images")
    if options.images is None:
        make_images(folder)
        return "made images (clouds, edges, noise; no photographs)"
    chosen = choose_images(options.images, folder, patch_size=options.patches.size)
    if not chosen:
        raise UserError(f"{options.images}: no image has {options.patches.size} pixels a side: lower --patch-size")
    return str(options.images)


def ways_to_read(
    work: Path, patches: PatchShape, *, on_progress: Callable[[str], None]
) -> tuple[list[Way], dict[str, str]]:
    """Write the same tiles in every form.

    Args:
        work: folder with ``images/``; everything is written into it.
        patches: what is cut.
        on_progress: called with what is being done.

    Returns:
        The ways; and the names of those left out, with the reason.

    Raises:
        UserError: an image is unreadable, or the scale is out of range.
    """
    on_progress("packing raw")
    manifest = pack(
        work / "images",
        work / "raw",
        scale=patches.scale,
        tile=TILE,
        min_side=patches.size,
        shard_bytes=_SHARD_BYTES,
        workers=num_cores(),
    )
    tars = [work / "raw" / shard.name for shard in manifest.shards]
    on_progress("writing PNG files")
    keys = png_tiles(tars, work / "tiles")
    files = Files(work / "tiles")
    ways: list[Way] = []
    for encoding in ENCODINGS:
        if encoding != "raw":
            on_progress(f"packing {encoding}")
            _pack_tiles(work, encoding, patches.scale)
        ways += _our_ways(f"{_OURS}{encoding}", work / encoding, patches)
    ways.append(Way(STREAM, "uint8", lambda workers: webdataset_stream(tars, patches, workers=workers)))
    left_out: dict[str, str] = {}
    ways.append(_png_way(PNG, PngPairs(files, Pillow, keys, patches)))
    if find_spec("cv2"):
        ways.append(_png_way(CV2, PngPairs(files, OpenCV, keys, patches)))
    else:
        left_out[CV2] = "cv2 is not installed (pip install opencv-python-headless)"
    if find_spec("lmdb"):
        on_progress("writing an LMDB")
        write_lmdb(files, work / "lmdb", keys)
        ways.append(_png_way(LMDB, PngPairs(Lmdb(work / "lmdb"), Pillow, keys, patches)))
    else:
        left_out[LMDB] = "lmdb is not installed (pip install lmdb)"
    return ways, left_out


def _png_way(name: str, pairs: PngPairs) -> Way:
    return Way(name, "float", lambda workers: png_loader(pairs, workers=workers))


def _our_ways(name: str, folder: Path, patches: PatchShape) -> list[Way]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return [
        Way(name, "uint8", lambda workers: ours(folder, patches, workers=workers, device=None)),
        Way(name, f"float on {device}", lambda workers: ours(folder, patches, workers=workers, device=device)),
    ]


def _pack_tiles(work: Path, encoding: Encoding, scale: int) -> None:
    # From the tiles, not from the images: JPEG keeps images whole, and all encodings are to hold the same.
    pack(
        work / "tiles" / "hr",
        work / encoding,
        lr_dir=work / "tiles" / "lr",
        scale=scale,
        tile=None if encoding == "jpeg" else TILE,
        encoding=encoding,
        shard_bytes=_SHARD_BYTES,
        workers=num_cores(),
    )


def _measure(way: Way, options: Options, on_progress: Callable[[str], None]) -> Iterator[Row]:
    for workers in options.workers:
        on_progress(f"{way.name}, {way.batches}, {workers} workers")
        with closing(way.read(workers)) as batches:
            rate = measure(batches, seconds=options.seconds, warm_batches=4 + 2 * PREFETCH * workers)
        yield Row(way.name, way.batches, workers, rate)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _refuse_bad_numbers(options: Options) -> None:
    patches = options.patches
    if patches.scale < 1:  # pack tells the upper limit
        raise UserError(f"--scale is {patches.scale}, allowed are 1 or more")
    if not patches.scale <= patches.size <= TILE or patches.size % patches.scale:
        raise UserError(
            f"--patch-size is {patches.size}, allowed are multiples of --scale {patches.scale} up to {TILE}, "
            "the side of a tile"
        )
    if patches.batch < 1:
        raise UserError(f"--batch-size is {patches.batch}, allowed are 1 or more")
    if options.workers[-1] < 0:
        raise UserError(f"--workers is {options.workers[-1]}, allowed are 0 or more")
    if not 0 < options.seconds < float("inf"):
        raise UserError(f"--seconds is {options.seconds}, allowed are numbers above 0")
