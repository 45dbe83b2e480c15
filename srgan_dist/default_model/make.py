"""Makes the default model: photographs, shards, the PSNR variant, the GAN variant, their measures and their card.

Every step is skipped where its result is there already, so that the same command resumes after an interruption.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from srgan_dist.checkpointing.weights import load_weights, save_weights
from srgan_dist.cli.commands import run_command
from srgan_dist.config.load import load_config
from srgan_dist.config.root import Config
from srgan_dist.data.packing.pack import pack
from srgan_dist.default_model.card import card
from srgan_dist.default_model.packages import NotToBeHad
from srgan_dist.default_model.photographs import PHOTOGRAPHS, fetch_photographs, present, read_list
from srgan_dist.errors import UserError
from srgan_dist.evaluation.evaluate import evaluate
from srgan_dist.inference.default import VARIANTS, Variant
from srgan_dist.records.read import read_lines, read_object
from srgan_dist.records.run import read_run
from srgan_dist.tracking.console import console, progress_report, setup_logging
from srgan_dist.training.once import train_once
from srgan_dist.utils import strict_json
from srgan_dist.utils.files import file_sha256, write_whole
from srgan_dist.utils.names import expand_home

log = logging.getLogger("srgan_dist")

CONFIGS: dict[Variant, Path] = {name: Path(__file__).with_name(f"{name}.yaml") for name in VARIANTS}
_MIN_SIDE = 128  # HR pixels: a patch
_TILE = 256  # HR pixels: small ones, so that soft parts can be left out
_MIN_DETAIL = 4.0  # levels of 255: sky and blurred backgrounds teach nothing
_TIMED_STEPS = 60  # from which the number that fits into the minutes follows; the first half is not counted
_AT_WORK = 0.95  # of the minutes; the rest is for start-up, validation and checkpoints


def main() -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="srgan_dist.default_model.make",
        description=__doc__,
        epilog="Other arguments, such as --train.threads=1, are configuration keys, for both variants.",
        allow_abbrev=False,
    )
    parser.add_argument("--minutes", type=float, default=60, metavar="M", help="to train each variant (default: 60)")
    parser.add_argument("--folder", type=Path, default=Path("runs/default_model"), help="for everything that it makes")
    parser.add_argument("--benchmarks", type=Path, nargs="+", default=[], metavar="DIR", help="test sets to measure on")
    parser.add_argument("--mirror", metavar="URL", help="of Debian's packages, below which pool/ lies (default: apt's)")
    parser.add_argument("--incomplete", action="store_true", help="leave out photographs that cannot be had")
    parser.add_argument(
        "--photographs", type=Path, default=PHOTOGRAPHS, metavar="CSV", help="another list of photographs"
    )
    options, overrides = parser.parse_known_args()
    setup_logging(is_main=True)
    return run_command(lambda: make(options, overrides))


def make(options: argparse.Namespace, overrides: Sequence[str] = ()) -> None:
    """Make the model.

    Args:
        options: See `main`.
        overrides: Arguments such as ``--train.threads=1``, for both variants.

    Raises:
        UserError: The folder cannot be used, or an option or key is wrong.
        Failure: A photograph could not be had, or training failed.
    """
    if not 0 < options.minutes < 10_000:
        raise UserError(f"--minutes is {options.minutes}, allowed are numbers above 0 and below 10000")
    folder = expand_home(options.folder)
    photographs, shards = folder / "photographs", folder / "shards"
    listed = read_list(options.photographs)
    try:
        fetch_photographs(listed, photographs, mirror=options.mirror)
    except NotToBeHad as error:
        if not options.incomplete:
            raise
        log.warning("%s", error)
    manifest = pack(photographs / "training", shards, scale=4, tile=_TILE, min_side=_MIN_SIDE, min_detail=_MIN_DETAIL)
    log.info("%s: %d photographs as %d tiles", shards, manifest.num_images, manifest.num_samples)
    common = [f"--data.train={shards}", *overrides]
    for variant in ("psnr", "gan"):  # the GAN begins with the other's weights
        start = [f"--run.init_from={trained(folder, 'psnr')}"] if variant == "gan" else []
        train_variant(variant, folder, [*start, *common], minutes=options.minutes)
        weights, metadata = load_weights(trained(folder, variant))
        save_weights(
            shipped(folder, variant),
            {name: value.half() if value.is_floating_point() else value for name, value in weights.items()},
            metadata | {"default_model": variant},
        )
    sets = [expand_home(path) for path in options.benchmarks] or [photographs / "validation"]
    write_whole(
        folder / "MODEL_CARD.md",
        card(
            photographs=present(listed, photographs),
            runs={name: read_run(folder / name) for name in VARIANTS},
            figures=measure(folder, sets),
            sizes={name: shipped(folder, name).stat().st_size for name in VARIANTS},
        ),
    )
    console.print(f"{folder}/: gan.safetensors, psnr.safetensors, MODEL_CARD.md", soft_wrap=True)


def trained(folder: Path, variant: Variant) -> Path:
    """The weights in a variant's run."""
    return folder / variant / "weights" / "generator.safetensors"


def shipped(folder: Path, variant: Variant) -> Path:
    """A variant's weights in half precision, as the package has them."""
    return folder / f"{variant}.safetensors"


def train_variant(variant: Variant, folder: Path, overrides: Sequence[str], *, minutes: float) -> None:
    """Train a variant for about some minutes, by as many steps as fit, so that its schedules come to their end.

    Args:
        variant: Which.
        folder: Its run is the folder of its name here; one that has ended is left as it is.
        overrides: Keys besides its configuration file's.
        minutes: How long; measured by a few steps in a run of their own.
    """
    run, validation = folder / variant, folder / "photographs" / "validation"
    if (run / "result.json").exists():
        log.info("%s: already trained (to train it again, remove this folder)", run)
        return
    steps_per_second = _steps_per_second(variant, folder / f"timing-{variant}", overrides)
    steps = max(1, round(minutes * 60 * _AT_WORK * steps_per_second))
    log.info("%s: %d steps, at %.2f a second in %g minutes", run, steps, steps_per_second, minutes)
    train_once(_config(variant, run, [f"--data.validation={validation}", *overrides], steps=steps))


def _config(variant: Variant, run: Path, overrides: Sequence[str], *, steps: int) -> Config:
    pretraining = [f"--train.pretrain_steps={steps if variant == 'psnr' else 0}"]
    lengths = [f"--run.dir={run}", f"--train.steps={steps}", *pretraining]
    return load_config(CONFIGS[variant], [*lengths, *overrides], prog="srgan_dist.default_model.make")


def _steps_per_second(variant: Variant, run: Path, overrides: Sequence[str]) -> float:
    """Of a short run without validation, which is kept, so that one that was interrupted resumes to the same end."""
    config = _config(variant, run, [*overrides, "--data.validation=[]", "--log.every=10"], steps=_TIMED_STEPS)
    train_once(config)
    lines = read_lines(run / "metrics.jsonl", [])
    speeds = [line["perf/images_per_second"] for line in lines if line["step"] > _TIMED_STEPS // 2]
    if not speeds:
        raise UserError(f"{run}: the speed of this short run is not known: remove its folder, and it is done again")
    return float(median(speeds)) / config.data.batch_size


def measure(folder: Path, sets: Sequence[Path]) -> dict[Variant, list[dict[str, Any]]]:
    """Measure the weights that are shipped, and write evaluation.json.

    Args:
        folder: Where the weights are.
        sets: Test sets.

    Returns:
        For each variant what `srgan_dist.evaluation.evaluate.evaluate` returns.
    """
    file = folder / "evaluation.json"
    measured = {
        "sets": [str(path) for path in sets],
        "weights": {name: file_sha256(shipped(folder, name)) for name in VARIANTS},
    }
    known = read_object(file, [])
    if known is None or any(known.get(key) != value for key, value in measured.items()):
        known = dict(measured)
        for name in VARIANTS:
            with progress_report(name, "images") as report:
                counted = iter(range(1, sys.maxsize))
                known[name] = evaluate(
                    shipped(folder, name),
                    sets,
                    on_image=lambda _: report(next(counted), None),  # noqa: B023
                )
        write_whole(file, strict_json.dumps(known, indent=2) + "\n")
    return {name: known[name] for name in VARIANTS}


if __name__ == "__main__":
    sys.exit(main())
