"""The commands on images, as `cli.py` has them: options, and the call of what does the work."""

from __future__ import annotations

import argparse
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING

from srgan_dist.errors import UserError

if TYPE_CHECKING:
    from srgan_dist.inference.generator import SRGenerator


def add_upscale(upscale: argparse.ArgumentParser) -> None:
    """The options of ``upscale``."""
    upscale.epilog = (
        "Images keep their mode (grey, alpha), depth (8 or 16 bits), colour profile, dpi and EXIF, and are turned "
        "upright. Written are .png .jpg .jpeg .webp .tif .tiff .bmp. Exit code 1 means that some of a folder failed."
    )
    upscale.add_argument("input", type=Path, metavar="INPUT", help="image or folder")
    upscale.add_argument(
        "output", type=Path, metavar="OUTPUT", nargs="?", help="image, or folder (default: NAME-large beside INPUT)"
    )
    upscale.add_argument(
        "--weights",
        type=Path,
        metavar="W",
        help="gan (default) or psnr, the model in this package, which enlarges four times; "
        "weights/generator.safetensors of a run; or another trainer's",
    )
    upscale.add_argument(
        "--alpha",
        type=float,
        metavar="A",
        help="between --blend-with (0, smooth) and --weights (1, crisp): interpolates their weights (default: 1)",
    )
    upscale.add_argument(
        "--blend-with", type=Path, metavar="W", help="of a network like that of --weights (default: psnr)"
    )
    upscale.add_argument("--tile", type=int, default=256, help="largest side seen at once, in LR pixels (default: 256)")
    upscale.add_argument("--format", metavar="F", help="of files in a folder: png, jpg, webp, tif, bmp (default: png)")
    upscale.add_argument("--quality", type=int, metavar="Q", help="of JPEG and WebP, from 1 to 100 (default: 95)")
    upscale.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        help="what to do with images of a folder that cannot be upscaled (default: skip, and say so at the end)",
    )
    add_allow_class(upscale)


def add_allow_class(parser: argparse.ArgumentParser) -> None:
    """The option by which a file may have a class imported."""
    parser.add_argument(
        "--allow-class",
        metavar="MODULE:CLASS",
        help="the class of your own whose network the weights are of (generator.name=MODULE:CLASS); it is imported",
    )


def upscale(options: argparse.Namespace) -> None:
    """``srgan-dist upscale``."""
    from srgan_dist.imaging.write import FORMATS, check_quality
    from srgan_dist.inference.upscale_files import upscale_file, upscale_folder, upscale_jobs
    from srgan_dist.tracking.console import console, progress_report, setup_logging

    if options.tile < 48:
        raise UserError(f"--tile is {options.tile}; it must be at least 48, since tiles overlap by 16 on each side")
    is_named = options.output is not None
    options.output = options.output or _beside(options.input, FORMATS)
    if not is_named and options.output.is_file():
        raise UserError(f"{options.output} is there already: name an output, this one or another")
    into_folder = options.input.is_dir() or options.output.is_dir()
    if options.format and not into_folder:
        raise UserError(f"--format is for folders; {options.output} says its format by its suffix")
    if options.on_error and not options.input.is_dir():
        raise UserError(f"--on-error is for folders, and {options.input} is none")
    suffix = f".{options.format.lower().removeprefix('.')}" if options.format else ".png"
    if suffix not in FORMATS:
        raise UserError(f"--format is {options.format}, allowed are {' '.join(name[1:] for name in FORMATS)}")
    jobs = upscale_jobs(options.input, options.output, suffix=suffix)
    check_quality(options.quality, jobs[0][1], name="--quality")
    setup_logging(is_main=True)
    generator = _generator(options)
    if options.input.is_dir():
        num_images = upscale_folder(
            generator,
            jobs,
            tile=options.tile,
            quality=options.quality,
            on_error=options.on_error or "skip",
            progress=lambda label: progress_report(label, "tiles"),
        )
        console.print(f"{options.output}: {num_images} of {len(jobs)} images upscaled", soft_wrap=True)
        return
    source, target = jobs[0]
    with progress_report(source.name, "tiles") as report:
        upscale_file(generator, source, target, tile=options.tile, quality=options.quality, on_tile=report)
    if not is_named:
        console.print(str(target), soft_wrap=True)


def _beside(source: Path, formats: Container[str]) -> Path:
    """The output of an image, in its own format where that is written, or of a folder."""
    if source.is_dir():
        source = source.resolve()  # of "." and "..", too
        if not source.name:
            raise UserError(f"{source} has nothing beside it: name a folder for the output")
    suffix = "" if source.is_dir() else source.suffix if source.suffix.lower() in formats else ".png"
    return source.with_name(f"{source.name if source.is_dir() else source.stem}-large{suffix}")


def _generator(options: argparse.Namespace) -> SRGenerator:
    from srgan_dist.inference.default import named_weights
    from srgan_dist.inference.generator import SRGenerator

    if options.blend_with is not None and options.alpha is None:
        raise UserError("--blend-with needs --alpha, how far it is from there to --weights")
    if options.alpha is not None and not 0 <= options.alpha <= 1:
        raise UserError(f"--alpha is {options.alpha}, allowed are numbers from 0 to 1")

    def load(name: Path) -> SRGenerator:
        return SRGenerator.from_pretrained(named_weights(name), allow_class=options.allow_class)

    generator = load(options.weights or Path("gan"))
    if options.alpha is None:
        return generator
    other = options.blend_with or Path("psnr")
    try:
        return generator.blended(load(other), options.alpha)
    except UserError as error:
        raise UserError(f"--alpha between {other} and {options.weights or 'gan'}: {error}") from None
