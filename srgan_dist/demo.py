"""The whole pipeline in a few minutes: photographs, shards, both phases of training, a table and a picture."""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from PIL import Image

from srgan_dist.cli.commands import run_command
from srgan_dist.config.load import load_config
from srgan_dist.data.packing.pack import pack
from srgan_dist.errors import UserError
from srgan_dist.imaging.read import read_rgb
from srgan_dist.imaging.resize import downscale, modcrop
from srgan_dist.inference.generator import SRGenerator
from srgan_dist.inference.upscale_files import upscale_file
from srgan_dist.tracking.console import console, result_table, setup_logging
from srgan_dist.training.once import train_once
from srgan_dist.utils.names import expand_home

log = logging.getLogger("srgan_dist")

# All are in scikit-image's wheel, released as CC0 by their authors or in the public domain.
TRAINING = {
    "brick.png": "CC0 (CC0Textures)",
    "camera.png": "CC0 (Lav Varshney)",
    "coffee.png": "CC0 (Rachel Michetti)",
    "grass.png": "CC0 (CC0Textures)",
    "gravel.png": "CC0 (CC0Textures)",
    "hubble_deep_field.jpg": "public domain (NASA)",
    "retina.jpg": "CC0 (Wikimedia Commons)",
    "rocket.jpg": "public domain (SpaceX)",
}
HELD_OUT = {
    "astronaut.png": "public domain (NASA)",
    "chelsea.png": "CC0 (Stefan van der Walt)",
}


def main() -> int:
    """Run the demo. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="srgan_dist.demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--fresh", action="store_true", help="start over instead of resuming")
    parser.add_argument("--config", type=Path, action="append", metavar="FILE", help="default: configs/demo.yaml")
    options, overrides = parser.parse_known_args()
    setup_logging(is_main=True)
    overrides += ["--run.resume=never"] if options.fresh else []
    return run_command(lambda: demo(options.config or [Path("configs/demo.yaml")], overrides))


def demo(config_files: Sequence[Path], overrides: list[str]) -> None:
    """Copy the photographs, pack them, train, upscale the held-out ones, print the result.

    Args:
        config_files: The configuration; its training shards are created if missing.
        overrides: Arguments such as ``--train.steps=100``.
    """
    config = load_config(config_files, overrides, prog="demo")
    run, shards = config.run.dir, expand_home(config.data.train[0])
    held_out = expand_home(config.data.validation[0])
    copy_photos(TRAINING, held_out.parent / "training")
    copy_photos(HELD_OUT, held_out)
    if not (shards / "manifest.json").exists():
        manifest = pack(held_out.parent / "training", shards, scale=config.data.scale, tile=config.data.patch_size * 5)
        log.info("%s: packed %d photographs as %d tiles", shards, manifest.num_images, manifest.num_samples)
    result = train_once(config)
    generator = SRGenerator.from_pretrained(run / "weights" / "generator.safetensors")
    for name in HELD_OUT:
        small, large = (
            run / "upscaled" / f"{Path(name).stem}_lr.png",
            run / "upscaled" / f"{Path(name).stem}_sr.png",
        )
        small.parent.mkdir(exist_ok=True)
        Image.fromarray(downscale(modcrop(read_rgb(held_out / name), config.data.scale), config.data.scale)).save(small)
        upscale_file(generator, small, large, tile=256)
    console.print(result_table(result))
    console.print(f"look at {run / 'samples' / 'final.png'} and {run / 'upscaled'}")


def copy_photos(names: dict[str, str], folder: Path) -> None:
    """Copy photographs from scikit-image's package.

    Raises:
        UserError: Scikit-image is not installed.
    """
    try:
        source = files("skimage") / "data"
    except ModuleNotFoundError:
        raise UserError("the demo's photographs come with scikit-image: pip install 'srgan-dist[demo]'") from None
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (folder / name).exists():
            with (source / name).open("rb") as original, (folder / f".{name}").open("wb") as copy:
                shutil.copyfileobj(original, copy)
            (folder / f".{name}").rename(folder / name)  # so that an interrupted copy is not used


if __name__ == "__main__":
    sys.exit(main())
