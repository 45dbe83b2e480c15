"""Folders of runs as training leaves them, without training: for tests, and to see how a page of many runs does.

    python -m tests.reports.runs FOLDER [PHOTOGRAPHS]

writes fifty runs with crops of photographs, compares them, and prints how long that took and how large the page is.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srgan_dist.config.root import Config

Pixels = NDArray[np.uint8]

SIDE = 192


def write_run(
    folder: Path,
    *,
    config: Mapping[str, Mapping[str, Any]] | None = None,
    metrics: Sequence[Mapping[str, Any]] = (),
    result: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run's records: its configuration, and whichever of the others are given."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(Config(**{"run": {"dir": folder}} | dict(config or {})).to_yaml())
    if metrics:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    if result:
        (folder / "result.json").write_text(json.dumps(result))
    return folder


def write_crops(folder: Path, name: str, hr: Pixels, steps: Mapping[int, Pixels], *, scale: int = 4) -> None:
    """Write the crops of one validation image into a run's folder, those of LR and bicubic made from HR."""
    place = folder / "samples" / name
    place.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(hr)
    small = picture.resize((picture.width // scale, picture.height // scale), Image.Resampling.BICUBIC)
    pictures = {"hr": picture, "lr": small, "bicubic": small.resize(picture.size, Image.Resampling.BICUBIC)}
    pictures |= {f"step-{step:06d}": Image.fromarray(pixels) for step, pixels in steps.items()}
    for stem, image in pictures.items():
        image.save(place / f"{stem}.webp", lossless=True, method=0)


def blurred(hr: Pixels, amount: float) -> Pixels:
    """HR between itself (0) and what is left of it at a quarter of its size (1): a network that learns."""
    picture = Image.fromarray(hr)
    small = picture.resize((picture.width // 4, picture.height // 4), Image.Resampling.BICUBIC).resize(picture.size)
    return np.asarray(Image.blend(picture, small, amount))


def rows(num_rows: int, *, every: int = 50, seed: int = 0) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl with all that a GAN logs, and a validation on every tenth."""
    random = np.random.default_rng(seed)
    found = []
    for at in range(1, num_rows + 1):
        done, noise = at / num_rows, random.normal(size=12)
        step = at * every
        row: dict[str, Any] = {
            "step": step,
            "time": "2026-11-27T00:22:46.123Z",
            "hours": step * 0.5 / 3600,
            "images": step * 16,
            "epoch": step / 100,
            "learning_rate": 1e-4,
            "learning_rate/d": 1e-4,
            "g/pixel": 0.05 * math.exp(-3 * done) + 0.001 * noise[0],
            "g/perceptual": 0.5 - 0.1 * done + 0.01 * noise[1],
            "g/adversarial": 0.7 + 0.1 * noise[2],
            "g/total": 1.2 - 0.4 * done + 0.1 * noise[3],
            "g/psnr": 26 + 3 * done + noise[4],
            "g/psnr_gain": done + 0.1 * noise[5],
            "g/saturated": abs(0.01 * noise[6]),
            "d/loss": 0.6 + 0.1 * noise[7],
            "d/real_score": 0.6,
            "d/fake_score": 0.4,
            "d/real_accuracy": min(1.0, 0.75 + 0.05 * noise[8]),
            "d/fake_accuracy": min(1.0, 0.75 + 0.05 * noise[9]),
            "d/updates": step // 2,
            "grad_norm/g": math.exp(noise[10]),
            "grad_norm/d": math.exp(noise[11]),
            "grad_norm/ratio": math.exp(noise[11] - noise[10]),
            "perf/images_per_second": 32 + noise[0],
            "perf/data_wait": 0.01,
            "perf/memory_gib": 3.5,
            "data/digest": "0123456789abcdef",
        }
        if at % 10 == 0:
            row |= {
                "val/psnr_y": 28 + 2 * done + 0.05 * noise[1],
                "val/ssim_y": 0.8 + 0.05 * done,
                "val/perceptual": 0.4 - 0.2 * done,
            }
        found.append(row)
    return found


def write_study(folder: Path, crops: Sequence[Pixels], *, num_runs: int, num_rows: int, num_steps: int) -> None:
    """Write runs of several ratios and seeds, with crops at so many steps."""
    for number in range(num_runs):
        ratio, seed = (1, 2, 4, 8, "auto")[number // 3 % 5], number % 3
        rate = 1e-4 * 2 ** (number // 15)
        lines = rows(num_rows, seed=number)
        last = lines[-1]
        quality = {"psnr_y": last["val/psnr_y"], "ssim_y": last["val/ssim_y"], "perceptual": last["val/perceptual"]}
        bicubic = {"psnr_y": 27.5, "ssim_y": 0.78, "perceptual": 0.45}
        run = write_run(
            folder / f"n{ratio}-rate{rate:g}-seed{seed}",
            config={
                "run": {"dir": folder / str(number), "seed": seed},
                "train": {"g_per_d": ratio, "steps": last["step"]},
                "optimizer": {"generator": {"learning_rate": rate}},
                "tracker": {"name": "none"},
            },
            metrics=lines,
            result={
                "bicubic": bicubic,
                "final": quality,
                "steps": last["step"],
                "images": last["images"],
                "seconds": last["hours"] * 3600,
                "parameters": 1_500_000,
            },
        )
        for at, hr in enumerate(crops):
            amounts = {
                last["step"] * step // num_steps: 0.9 - 0.7 * step / num_steps - 0.002 * number
                for step in range(1, num_steps + 1)
            }
            write_crops(run, f"photo{at}", hr, {step: blurred(hr, amount) for step, amount in amounts.items()})


def photographs(folder: Path, count: int) -> list[Pixels]:
    """Crops of the first so many photographs of a folder that are large enough."""
    found: list[Pixels] = []
    for path in sorted(folder.rglob("*.png")):
        with Image.open(path) as image:
            if min(image.size) >= SIDE:
                found.append(np.asarray(image.convert("RGB").crop((0, 0, SIDE, SIDE))))
        if len(found) == count:
            break
    return found


def measure(folder: Path, photos: Path) -> None:
    """Write fifty runs, unless they are there, compare them in a process of their own, and print the figures."""
    import subprocess

    if not folder.exists():
        write_study(folder, photographs(photos, 4), num_runs=50, num_rows=2000, num_steps=10)
    page = folder / "report.html"
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "srgan_dist", "compare", folder, "-o", page], check=True)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
    sys.stdout.write(f"{seconds:.1f} s, {page.stat().st_size / 1e6:.1f} MB, {peak:.0f} MiB of memory\n")


if __name__ == "__main__":
    measure(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "."))
