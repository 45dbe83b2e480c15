"""PSNR and SSIM of a generator on test sets, compared with bicubic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from rich.table import Table

from srgan_dist.errors import UserError
from srgan_dist.evaluation.test_sets import read_pairs
from srgan_dist.evaluation.validator import TILE, check_sizes, quality
from srgan_dist.imaging.resize import upscale_bicubic_tensor
from srgan_dist.imaging.tiling import upscale_tiled
from srgan_dist.inference.generator import NotFinite, SRGenerator
from srgan_dist.utils import strict_json
from srgan_dist.utils.names import expand_home, printable


def evaluate(
    generator: SRGenerator | str | Path,
    folders: str | Path | Sequence[str | Path],
    *,
    on_image: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Measure a generator by the protocol of the super-resolution tables (see `srgan_dist.evaluation.metrics`).

    Args:
        generator: The network, or its weights file.
        folders: Test sets, or one of them: folders of HR images, or of HR and LR images; see `read_pairs`.
        on_image: Called with the name of each image after it was measured.

    Returns:
        For each folder ``name``, ``images`` (for each ``name``, ``model`` and ``bicubic``), the means ``model``
        and ``bicubic``, and ``identical``; every quality is ``psnr_y`` in dB and ``ssim_y``. The PSNR of identical
        images, such as blank pages, is infinite: it is None, and an image with one is in neither mean of PSNR;
        ``identical`` counts them.

    Raises:
        UserError: There is no such weights file, a folder has no images, an image is unreadable or too small, HR and
            LR do not match, or the network's output is not finite.
    """
    if not isinstance(generator, SRGenerator):
        generator = SRGenerator.from_pretrained(generator)
    places = [expand_home(folder) for folder in ([folders] if isinstance(folders, (str, Path)) else folders)]
    found = [read_pairs(folder, scale=generator.scale) for folder in places]  # so that none is refused after hours
    results = []
    for folder, images in zip(places, found, strict=True):
        rows: list[dict[str, Any]] = []
        for image in images:
            problem = check_sizes([image], scale=generator.scale)
            if problem:
                raise UserError(f"{folder}: {problem}")
            with torch.inference_mode():
                bicubic = upscale_tiled(
                    lambda lr: upscale_bicubic_tensor(lr, generator.scale), image.lr, scale=generator.scale, tile=TILE
                )
            try:
                sr = generator.upscale_tensor(image.lr, tile=TILE).cpu()
            except NotFinite as error:
                raise NotFinite(f"{folder}: {image.name}: {error}") from None
            rows.append(
                {
                    "name": image.name,
                    "bicubic": _quality(bicubic, image.hr, generator.scale),
                    "model": _quality(sr, image.hr, generator.scale),
                }
            )
            if on_image:
                on_image(image.name)
        results.append({"name": folder.name or folder.resolve().name, "images": rows, **_means(rows)})
    return results


def _quality(sr: torch.Tensor, hr: torch.Tensor, scale: int) -> dict[str, float | None]:
    psnr, ssim, _ = quality(sr, hr, scale=scale, features=None)
    return {"psnr_y": psnr if math.isfinite(psnr) else None, "ssim_y": ssim}


def _means(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The means of both methods over the same images."""
    methods = ("bicubic", "model")
    differing = [row for row in rows if all(row[method]["psnr_y"] is not None for method in methods)]
    means = {
        method: {
            "psnr_y": fmean(row[method]["psnr_y"] for row in differing) if differing else None,
            "ssim_y": fmean(row[method]["ssim_y"] for row in rows),
        }
        for method in methods
    }
    return {**means, "identical": len(rows) - len(differing)}


def to_table(result: dict[str, Any]) -> Table:
    """Render the result of one test set as a table."""
    count, identical = len(result["images"]), result["identical"]
    left_out = f"{identical} image{'s' if identical > 1 else ''} identical, left out of the mean PSNR"
    title = f"{printable(result['name'])} ({count} image{'s' if count > 1 else ''}), Y channel"
    table = Table(title=title, caption=left_out if identical else None)
    table.add_column("image")
    for column in ("bicubic PSNR", "SSIM", "model PSNR", "SSIM", "gain"):
        table.add_column(column, justify="right")
    for row in result["images"]:
        table.add_row(printable(row["name"]), *_cells(row))
    table.add_section()
    table.add_row("mean", *_cells(result), style="bold")
    return table


def _cells(row: dict[str, Any]) -> list[str]:
    bicubic, model = row["bicubic"], row["model"]
    cells = [
        text
        for method in (bicubic, model)
        for text in (
            "identical" if method["psnr_y"] is None else f"{method['psnr_y']:.3f}",
            f"{method['ssim_y']:.4f}",
        )
    ]
    both = bicubic["psnr_y"] is not None and model["psnr_y"] is not None
    return [*cells, f"{model['psnr_y'] - bicubic['psnr_y']:+.3f}" if both else ""]


def write_json(path: Path, weights: Path, results: list[dict[str, Any]]) -> None:
    """Write the results as JSON.

    Raises:
        UserError: The file cannot be written.
    """
    try:
        path.write_text(strict_json.dumps({"weights": str(weights), "sets": results}, indent=2), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
