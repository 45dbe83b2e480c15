"""The commands on shards, as `cli.py` has them: options, and the call of what does the work."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from srgan_dist.errors import Failure
from srgan_dist.utils.names import printable


def add_pack(pack: argparse.ArgumentParser) -> None:
    """The options of ``pack``."""
    pack.add_argument("hr_dir", type=Path, metavar="HR_DIR", help="folder of HR images")
    pack.add_argument("out", type=Path, metavar="OUT", help="folder for the shards; an interrupted pack resumes there")
    pack.add_argument("--lr", type=Path, metavar="LR_DIR", help="folder of LR images; default: made from HR")
    pack.add_argument("--scale", type=int, default=4, help="HR pixels per LR pixel (default: 4)")
    pack.add_argument(
        "--encoding",
        default="raw",
        metavar="NAME",
        help="raw (fastest), png, webp (lossless), or jpeg (whole images, the source's own bytes) (default: raw)",
    )
    pack.add_argument("--tile", type=int, metavar="N", help="largest side of a tile, in HR pixels (default: 480)")
    pack.add_argument(
        "--stride", type=int, metavar="N", help="HR pixels from tile to tile, below --tile to overlap (default: split)"
    )
    pack.add_argument(
        "--min-side", type=int, default=0, metavar="N", help="leave out images with a side below N pixels (default: 0)"
    )
    pack.add_argument(
        "--min-detail",
        type=float,
        default=0.0,
        metavar="X",
        help="leave out tiles whose neighbouring pixels differ by less than X of 255 levels on average (default: 0)",
    )
    pack.add_argument(
        "--validation-fraction",
        type=float,
        default=0.0,
        metavar="X",
        help="put this share of the images aside in OUT/validation, chosen by a hash of their names (default: 0)",
    )
    pack.add_argument("--shard-size", default="256MiB", metavar="SIZE", help="size of a shard (default: 256MiB)")
    pack.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    pack.add_argument(
        "--on-error", default="stop", metavar="stop|skip", help="what to do with unusable files (default: stop)"
    )


def pack(options: argparse.Namespace) -> None:
    """``srgan-dist pack``."""
    from srgan_dist.data.packing.pack import pack, summary
    from srgan_dist.data.packing.workers import num_cores
    from srgan_dist.tracking.console import console, progress_report, setup_logging
    from srgan_dist.utils.units import parse_bytes

    setup_logging(is_main=True)
    with progress_report("pack", "images") as report:
        manifest = pack(
            options.hr_dir,
            options.out,
            lr_dir=options.lr,
            scale=options.scale,
            encoding=options.encoding,
            tile=options.tile,
            stride=options.stride,
            min_side=options.min_side,
            min_detail=options.min_detail,
            validation_fraction=options.validation_fraction,
            shard_bytes=parse_bytes(options.shard_size, name="--shard-size"),
            on_error=options.on_error,
            workers=num_cores() if options.workers is None else options.workers,
            on_progress=report,
        )
    console.print(f"{printable(str(options.out))}: {summary(manifest)}", soft_wrap=True)


def add_check(check: argparse.ArgumentParser) -> None:
    """The options of ``check``."""
    check.epilog = (
        "Exit code 1 means faults. Notes are none: a picture under two keys is one, unless it is put aside for "
        "validation as well."
    )
    check.add_argument("shards", metavar="SHARDS", nargs="+", help="packed folders, or tars (globs) without a manifest")
    check.add_argument("--sample", type=int, metavar="N", help="look at the pixels of N samples a shard (default: all)")
    check.add_argument("--scale", type=int, help="HR pixels per LR pixel (default: by manifest, or the first pairs)")
    check.add_argument("--any-kernel", action="store_true", help="LR need not be the bicubic downscale of HR")
    check.add_argument("--contact-sheet", type=Path, metavar="FILE", help="draw random pairs")
    check.add_argument("--write-index", action="store_true", help="make sound tars of others a packed folder")


def check(options: argparse.Namespace) -> None:
    """``srgan-dist check``."""
    from importlib import metadata

    from srgan_dist.data.checking.check import check_shards
    from srgan_dist.tracking.console import console, output, progress_report

    # Lines go to stdout; on a terminal by way of the progress bar's console, which keeps the bar below them.
    out = console if console.is_terminal and sys.stdout.isatty() else output

    def report_line(line: object) -> None:
        out.print(printable(str(line)), highlight=False, soft_wrap=True)

    with progress_report("check", "MiB") as report:
        summary = check_shards(
            options.shards,
            on_finding=report_line,
            sample=options.sample,
            scale=options.scale,
            any_kernel=options.any_kernel,
            contact_sheet=options.contact_sheet,
            write_index=options.write_index,
            created_by=f"srgan-dist {metadata.version('srgan-dist')} check --write-index",
            on_progress=report,
        )
    for line in summary.lines():
        report_line(line)
    if summary.num_faults:
        not_written = ", index.npy and manifest.json were not written" if options.write_index else ""
        raise Failure(f"{' '.join(map(str, options.shards))}: not sound (faults: {summary.num_faults}){not_written}")
