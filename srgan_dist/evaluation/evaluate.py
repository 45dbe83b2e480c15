"""PSNR and SSIM of a generator on test sets, compared with bicubic."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from rich.table import Table

from srgan_dist.errors import UserError
from srgan_dist.evaluation.test_sets import read_pairs
from srgan_dist.evaluation.validator import TILE, check_sizes, quality
from srgan_dist.imaging.pixels import to_uint8
from srgan_dist.imaging.resize import upscale_bicubic_tensor
from srgan_dist.inference.generator import SRGenerator
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
        For each folder ``name``, ``images`` (for each ``name``, ``model`` and ``bicubic``) and the means ``model``
        and ``bicubic``; every quality is ``psnr_y`` in dB and ``ssim_y``.

    Raises:
        UserError: There is no such weights file, a folder has no images, an image is unreadable or too small, or HR and
            LR do not match.
    """
    if not isinstance(generator, SRGenerator):
        generator = SRGenerator.from_pretrained(generator)
    results = []
    for folder in map(expand_home, [folders] if isinstance(folders, (str, Path)) else folders):
        rows: list[dict[str, Any]] = []
        for image in read_pairs(folder, scale=generator.scale):
            problem = check_sizes([image], scale=generator.scale)
            if problem:
                raise UserError(f"{folder}: {problem}")
            with torch.inference_mode():
                bicubic = to_uint8(upscale_bicubic_tensor(image.lr.float() / 255, generator.scale))
            sr = generator.upscale_tensor(image.lr, tile=TILE).cpu()
            rows.append(
                {
                    "name": image.name,
                    "bicubic": _quality(bicubic, image.hr, generator.scale),
                    "model": _quality(sr, image.hr, generator.scale),
                }
            )
            if on_image:
                on_image(image.name)
        means = {
            method: {key: fmean(row[method][key] for row in rows) for key in ("psnr_y", "ssim_y")}
            for method in ("bicubic", "model")
        }
        results.append({"name": folder.name or folder.resolve().name, "images": rows, **means})
    return results


def _quality(sr: torch.Tensor, hr: torch.Tensor, scale: int) -> dict[str, float]:
    psnr, ssim, _ = quality(sr, hr, scale=scale, features=None)
    return {"psnr_y": psnr, "ssim_y": ssim}


def to_table(result: dict[str, Any]) -> Table:
    """Render the result of one test set as a table."""
    count = len(result["images"])
    table = Table(title=f"{printable(result['name'])} ({count} image{'s' if count > 1 else ''}), Y channel")
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
    gain = model["psnr_y"] - bicubic["psnr_y"]
    return [
        f"{bicubic['psnr_y']:.3f}",
        f"{bicubic['ssim_y']:.4f}",
        f"{model['psnr_y']:.3f}",
        f"{model['ssim_y']:.4f}",
        f"{gain:+.3f}",
    ]


def write_json(path: Path, weights: Path, results: list[dict[str, Any]]) -> None:
    """Write the results as JSON.

    Raises:
        UserError: The file cannot be written.
    """
    try:
        path.write_text(json.dumps({"weights": str(weights), "sets": results}, indent=2), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
