"""Quality of a generator on test sets, compared with bicubic."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from rich.table import Table

from srgan_dist.distributed.collectives import Collectives
from srgan_dist.errors import UserError
from srgan_dist.evaluation.build import build_measures, describe_auto
from srgan_dist.evaluation.image_measures import ImageMeasure, measure_image
from srgan_dist.evaluation.metrics import psnr_rgb
from srgan_dist.evaluation.summary import bicubic_check, summarise
from srgan_dist.evaluation.test_sets import ImagePair, ImageSet, find_pairs
from srgan_dist.evaluation.validator import TILE, check_sizes
from srgan_dist.imaging.resize import upscale_bicubic_tensor
from srgan_dist.imaging.tiling import upscale_tiled
from srgan_dist.inference.generator import NotFinite, SRGenerator
from srgan_dist.utils import strict_json
from srgan_dist.utils.measures import MEASURES, Measure
from srgan_dist.utils.names import expand_home, printable

log = logging.getLogger("srgan_dist")

METHODS = ("bicubic", "model")
GAIN = "gain"
COLUMNS: Mapping[str, Measure] = {**MEASURES, "psnr_rgb": Measure("max", "PSNR-RGB", "dB", 2, "PSNR RGB")}
"""What is measured here: of validations everything, and PSNR on RGB."""
_PSNR = ("psnr_y", "psnr_rgb")


def evaluate(
    generator: SRGenerator | str | Path,
    folders: str | Path | Sequence[str | Path],
    *,
    measures: Literal["auto"] | Sequence[str] = "auto",
    on_image: Callable[[str], None] | None = None,
    ranks: Collectives | None = None,
) -> list[dict[str, Any]]:
    """Measure a generator by the protocol of the super-resolution tables (see `srgan_dist.evaluation.metrics`).

    Args:
        generator: The network, or its weights file.
        folders: Test sets, or one of them: folders of HR images, or of HR and LR images; see `read_pairs`.
        measures: What is measured besides PSNR and SSIM, as `validate.measures` in a configuration: some of ``grid``,
            ``lpips``, ``dists``, ``lpips_hed`` and ``dists_hed``; auto: those whose weights are on this machine.
        on_image: Called with the name of each image after it was measured.
        ranks: The ranks of a job, of which each measures some of the images, and all get the same; each of them calls
            this. None: this process measures them all.

    Returns:
        For each folder ``name``, ``images`` (for each ``name``, ``model`` and ``bicubic``), the means ``model``,
        ``bicubic`` and ``gain`` (the model's value less bicubic's), ``intervals`` (of all three, by the bootstrap over
        images, the 95 % interval of each mean, or None), and ``identical``; every quality has ``psnr_y`` and
        ``psnr_rgb`` in dB, ``ssim_y``, and the measures. What an image has no value of is None, and such an image is in
        neither mean of it: the PSNR of identical images, such as blank pages, which is infinite (``identical`` counts
        them), or the grid of one that is too small.

    Raises:
        UserError: There is no such weights file, a folder has no images, an image is unreadable or too small, HR and
            LR do not match, the network's output is not finite, or a measure's weights cannot be had.
    """
    if not isinstance(generator, SRGenerator):
        generator = SRGenerator.from_pretrained(generator)
    places = [expand_home(folder) for folder in ([folders] if isinstance(folders, (str, Path)) else folders)]
    sets = [find_pairs(folder, scale=generator.scale) for folder in places]  # so that none is refused after hours
    built = build_measures(measures, key="measures", scale=generator.scale, device=generator.device, ranks=ranks)
    results = []
    for folder, test_set in zip(places, sets, strict=True):
        rows = _measured(generator, folder, test_set, built, on_image, ranks)
        name, summary = (
            folder.name or folder.resolve().name,
            summarise([row | {GAIN: _gain(row)} for row in rows], (*METHODS, GAIN)),
        )
        results.append({"name": name, "images": rows, **summary})
        differs = bicubic_check(name, count=len(rows), scale=generator.scale, psnr_y=summary["bicubic"]["psnr_y"])
        if differs and (ranks is None or ranks.is_main):
            log.warning("%s", differs)
    if measures == "auto":
        log.info("%s", describe_auto(built.keys(), key="measures"))
    return results


def _measured(
    generator: SRGenerator,
    folder: Path,
    test_set: ImageSet,
    measures: Mapping[str, ImageMeasure],
    on_image: Callable[[str], None] | None,
    ranks: Collectives | None,
) -> list[dict[str, Any]]:
    """Measure every image of a test set, in their order: with several ranks, each every nth one.

    Raises:
        UserError: On every rank, where one of them has met it.
    """
    rank, world_size = (ranks.rank, ranks.world_size) if ranks else (0, 1)
    rows: list[dict[str, Any]] = []
    error: UserError | None = None
    try:
        for image in test_set.read(start=rank, step=world_size):
            rows.append(_row(generator, folder, image, measures))
            if on_image:
                on_image(image.name)
    except UserError as mistake:
        error = mistake
    # Also of a rank that failed: the others wait for its rows, and rank 0 is the one that tells people.
    of_ranks = ranks.all_gather_object((rows, error)) if ranks else [(rows, error)]
    for _, error in of_ranks:
        if error:
            raise error
    return [of_ranks[number % world_size][0][number // world_size] for number in range(len(test_set))]


def _row(
    generator: SRGenerator, folder: Path, image: ImagePair, measures: Mapping[str, ImageMeasure]
) -> dict[str, Any]:
    """The quality of one image: ``name``, and of each method everything that is measured."""
    scale = generator.scale
    problem = check_sizes([image], scale=scale)
    if problem:
        raise UserError(f"{folder}: {problem}")
    with torch.inference_mode():
        bicubic = upscale_tiled(lambda lr: upscale_bicubic_tensor(lr, scale), image.lr, scale=scale, tile=TILE)
    try:
        sr = generator.upscale_tensor(image.lr, tile=TILE)
    except NotFinite as error:
        raise NotFinite(f"{folder}: {image.name}: {error}") from None
    hr = image.hr.to(sr.device)
    row: dict[str, Any] = {"name": image.name}
    for method, made in zip(METHODS, (bicubic.to(sr.device), sr), strict=True):
        values = measure_image(made, hr, scale=scale, measures=measures)
        values["psnr_rgb"] = psnr_rgb(made, hr, border=scale)
        row[method] = values | {name: None for name in _PSNR if values[name] == math.inf}
    return row


def _gain(row: Mapping[str, Any]) -> dict[str, float | None]:
    bicubic, model = (row[method] for method in METHODS)
    return {
        name: None if value is None or bicubic[name] is None else value - bicubic[name] for name, value in model.items()
    }


def to_table(result: dict[str, Any]) -> Table:
    """Render the result of one test set as a table."""
    count, identical = len(result["images"]), result["identical"]
    left_out = f"{identical} image{'s' if identical > 1 else ''} identical, left out of the mean PSNR"
    title = f"{printable(result['name'])} ({count} image{'s' if count > 1 else ''})"
    table = Table(title=title, caption=left_out if identical else None)
    names = [name for name in COLUMNS if name in result["model"]]
    table.add_column("image", overflow="fold")
    table.add_column("", no_wrap=True)
    for name in names:
        table.add_column(COLUMNS[name].column.replace(" ", "\n"), justify="right", no_wrap=True)
    for row in result["images"]:
        cells = ("\n".join(cell(row[method][name], name) for method in METHODS) for name in names)
        table.add_row(printable(row["name"]), "\n".join(METHODS), *cells)
    table.add_section()
    table.add_row("mean", "\n".join((*METHODS, GAIN)), *(_three(result, name) for name in names), style="bold")
    for label, end in (("95 %", 0), ("to", 1)) if count > 1 else ():
        ends = {method: _end(of_method, end) for method, of_method in result["intervals"].items()}
        table.add_row(label, "\n".join((*METHODS, GAIN)), *(_three(ends, name) for name in names))
    return table


def _end(intervals: Mapping[str, Sequence[float] | None], end: int) -> dict[str, float | None]:
    """The low or the high end of each interval."""
    return {name: None if interval is None else interval[end] for name, interval in intervals.items()}


def _three(values: Mapping[str, Mapping[str, float | None]], name: str) -> str:
    """Both methods' values and the gain, below each other."""
    gain = values[GAIN][name]
    shown = "" if gain is None else f"{'+' if gain >= 0 else ''}{COLUMNS[name].exact(gain)}"
    return "\n".join([*(cell(values[method][name], name) for method in METHODS), shown])


def cell(value: float | None, name: str) -> str:
    """A value as it stands in a table."""
    if value is None:
        return "identical" if name in _PSNR else ""
    return COLUMNS[name].exact(value)


def write_json(path: Path, weights: Path, results: list[dict[str, Any]]) -> None:
    """Write the results as JSON.

    Raises:
        UserError: The file cannot be written.
    """
    try:
        path.write_text(strict_json.dumps({"weights": str(weights), "sets": results}, indent=2), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
