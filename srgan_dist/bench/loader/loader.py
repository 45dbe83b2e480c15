"""``srgan-dist bench loader``: patches per second, by encoding and workers, of our loader and of others' methods."""

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

_SHARD_BYTES = 8 * 2**20  # small, so that few images give several shards, too
_OURS = "srgan-dist, "
RAW, STREAM = f"{_OURS}raw", "webdataset, same raw tars"
PNG, CV2, LMDB = "PNG folder, Pillow", "PNG folder, cv2 float32 like BasicSR", "LMDB of PNG, Pillow"


@dataclass(frozen=True)
class LoaderBenchOptions:
    """The options of `bench loader`.

    Attributes:
        images: The folder with the user's images; None generates some.
        patches: Size, scale and number of the patches.
        workers: Numbers of workers to measure, ascending.
        seconds: Duration of each measurement.
        training: Whether to measure how long a training step waits for its data.
    """

    images: Path | None
    patches: PatchShape
    workers: tuple[int, ...]
    seconds: float
    training: bool = True


class ReadMethod(NamedTuple):
    """A method of reading batches: its name, the type of its batches, and a function of the number of workers."""

    name: str
    batches: str
    read: Callable[[int], Generator[Any, None, None]]


class Row(NamedTuple):
    """The rate of one method with one number of workers."""

    name: str
    batches: str
    workers: int
    rate: Rate

    @property
    def is_peer(self) -> bool:
        return not self.name.startswith(_OURS)


@dataclass(frozen=True)
class Report:
    """The results of `bench loader`.

    Attributes:
        rows: The rates of every method with every number of workers.
        starts: The cost of opening many samples.
        wait: How long a training step waits for its data, or None.
        left_out: What was not measured, and why.
        images: Description of the images.
        options: The options.
    """

    rows: list[Row]
    starts: list[StartUp]
    wait: DataWait | None
    left_out: dict[str, str]
    images: str
    options: LoaderBenchOptions


def worker_counts(most: int | None) -> tuple[int, ...]:
    """The numbers of workers to measure: 0, 1, 2, 4, ... and the greatest.

    Args:
        most: The greatest number; None for the number of cores of this machine.
    """
    most = num_cores() if most is None else most
    doubled = [2**power for power in range(most.bit_length()) if 2**power < most]
    return tuple(dict.fromkeys([0, *doubled, most]))


def bench_loader(options: LoaderBenchOptions, *, on_progress: Callable[[str], None]) -> Report:
    """Measure the loader and its peers on the same images, one after another, with files in the page cache.

    Args:
        options: What to measure.
        on_progress: Called with a description of the current work.

    Raises:
        UserError: A number is out of range, or the images are missing, unreadable or too small.
    """
    _refuse_bad_numbers(options)
    patches = options.patches
    with tempfile.TemporaryDirectory(prefix="srgan-dist-bench-") as name, _one_thread():
        work = Path(name)
        images = _images(work / "images", options, on_progress)
        methods, left_out = read_methods(work, patches, on_progress=on_progress)
        rows = [row for method in methods for row in _measure(method, options, on_progress)]
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


def _images(folder: Path, options: LoaderBenchOptions, on_progress: Callable[[str], None]) -> str:
    folder.mkdir()
    on_progress("images")
    if options.images is None:
        make_images(folder)
        return "generated images (clouds, edges, noise; no photographs)"
    chosen = choose_images(options.images, folder, patch_size=options.patches.size)
    if not chosen:
        raise UserError(f"{options.images}: no image has {options.patches.size} pixels a side: lower --patch-size")
    return str(options.images)


def read_methods(
    work: Path, patches: PatchShape, *, on_progress: Callable[[str], None]
) -> tuple[list[ReadMethod], dict[str, str]]:
    """Write the same tiles in every format.

    Args:
        work: Folder with ``images/``; all files are written to it.
        patches: Size, scale and number of the patches.
        on_progress: Called with a description of the current work.

    Returns:
        The methods; and the names of those left out, with the reason.

    Raises:
        UserError: An image is unreadable, or the scale is out of range.
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
    methods: list[ReadMethod] = []
    for encoding in ENCODINGS:
        if encoding != "raw":
            on_progress(f"packing {encoding}")
            _pack_tiles(work, encoding, patches.scale)
        methods += _our_methods(f"{_OURS}{encoding}", work / encoding, patches)
    methods.append(ReadMethod(STREAM, "uint8", lambda workers: webdataset_stream(tars, patches, workers=workers)))
    left_out: dict[str, str] = {}
    methods.append(_png_method(PNG, PngPairs(files, Pillow, keys, patches)))
    if find_spec("cv2"):
        methods.append(_png_method(CV2, PngPairs(files, OpenCV, keys, patches)))
    else:
        left_out[CV2] = "cv2 is not installed (pip install opencv-python-headless)"
    if find_spec("lmdb"):
        on_progress("writing an LMDB")
        write_lmdb(files, work / "lmdb", keys)
        methods.append(_png_method(LMDB, PngPairs(Lmdb(work / "lmdb"), Pillow, keys, patches)))
    else:
        left_out[LMDB] = "lmdb is not installed (pip install lmdb)"
    return methods, left_out


def _png_method(name: str, pairs: PngPairs) -> ReadMethod:
    return ReadMethod(name, "float", lambda workers: png_loader(pairs, workers=workers))


def _our_methods(name: str, folder: Path, patches: PatchShape) -> list[ReadMethod]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return [
        ReadMethod(name, "uint8", lambda workers: ours(folder, patches, workers=workers, device=None)),
        ReadMethod(name, f"float on {device}", lambda workers: ours(folder, patches, workers=workers, device=device)),
    ]


def _pack_tiles(work: Path, encoding: Encoding, scale: int) -> None:
    # From the tiles, not from the images: JPEG shards hold whole images, but all encodings must hold the same tiles.
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


def _measure(method: ReadMethod, options: LoaderBenchOptions, on_progress: Callable[[str], None]) -> Iterator[Row]:
    for workers in options.workers:
        on_progress(f"{method.name}, {method.batches}, {workers} workers")
        with closing(method.read(workers)) as batches:
            rate = measure(batches, seconds=options.seconds, warm_batches=4 + 2 * PREFETCH * workers)
        yield Row(method.name, method.batches, workers, rate)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _refuse_bad_numbers(options: LoaderBenchOptions) -> None:
    patches = options.patches
    if patches.scale < 1:  # pack checks the upper limit
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
