"""The model card: what the default model is, what it was made of, and how well it does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from srgan_dist.default_model.photographs import Photograph
from srgan_dist.evaluation.evaluate import COLUMNS
from srgan_dist.inference.default import Variant
from srgan_dist.records.run import RunRecord

_HEAD = """\
---
license: apache-2.0
pipeline_tag: image-to-image
tags: [super-resolution, srgan]
---

# srgan-dist's default model

It enlarges photographs four times. Two networks with the same architecture:

* **gan** (`gan.safetensors`): crisp, with plausible texture. What `srgan-dist upscale` uses.
* **psnr** (`psnr.safetensors`): nearest to the original on average, and smoother; invents nothing. The other one began
  with its weights, so that `--alpha` blends the two.

The weights are licensed as srgan-dist, Apache-2.0. They contain none of the photographs, which have the licences below.

## Use

For photographs and what resembles them, reduced by bicubic interpolation or a camera's or browser's resizing, and not
badly compressed. The network knows no noise, blur or JPEG artefacts, and enlarges those too. Details that **gan** adds
are likely, not true: no use for evidence, measurements, medicine, or to read what cannot be read. There are few faces
and little text among the photographs, and both are its weak sides.

## Architecture
"""
_VARIANTS: Mapping[Variant, str] = {"psnr": "PSNR variant", "gan": "GAN variant"}


def card(
    *,
    photographs: Sequence[Photograph],
    runs: Mapping[Variant, RunRecord],
    figures: Mapping[Variant, Sequence[Mapping[str, Any]]],
    sizes: Mapping[Variant, int],
) -> str:
    """Write the card.

    Args:
        photographs: Those that were used.
        runs: The finished runs.
        figures: What `srgan_dist.evaluation.evaluate.evaluate` returned for each variant, of the same test sets.
        sizes: Bytes of each file.

    Returns:
        Markdown with YAML at its head.
    """
    parts = [
        _HEAD,
        *(_architecture(name, runs[name], sizes[name]) for name in _VARIANTS),
        "\n## Training\n",
        *(_training(name, runs[name]) for name in _VARIANTS),
        "\n`make model` makes it again; the configurations are `srgan_dist/default_model/psnr.yaml` and `gan.yaml`.\n",
        "\n## Figures\n",
        *_tables(figures),
        "\n## Photographs\n",
        *_attribution(photographs),
    ]
    return "\n".join(part.rstrip("\n") if part is not _HEAD else part.rstrip() + "\n" for part in parts) + "\n"


def _architecture(variant: Variant, run: RunRecord, size: int) -> str:
    keys = {key.partition(".")[2]: value for key, value in run.config.items() if key.startswith("generator.")}
    name = keys.pop("name", "?")
    described = ", ".join(f"{value} {key}" for key, value in keys.items() if isinstance(value, int))
    parameters = (run.result or {}).get("parameters", 0)
    large = f"{parameters / 1e3:.0f} k parameters, {size / 1e6:.2f} MB in fp16"
    return f"* {_VARIANTS[variant]}: {name} ({described}), {large}"


def _training(variant: Variant, run: RunRecord) -> str:
    config = run.config
    devices = run.info.get("devices") or ["?"]
    machine = f"{len(devices)} x {devices[0]}" if len(devices) > 1 else devices[0]
    minutes = f"{run.hours * 60:.0f} minutes" if run.hours is not None else "an unknown time"
    losses = "; ".join(
        f"{key.removeprefix('loss.').removesuffix('.weight')} {value:g}"
        for key, value in config.items()
        if key.startswith("loss.") and key.endswith(".weight") and isinstance(value, (int, float))
    )
    return (
        f"* {_VARIANTS[variant]}: {run.step} steps of {config.get('data.batch_size')} patches of "
        f"{config.get('data.patch_size')} x {config.get('data.patch_size')} pixels, {minutes} on {machine}"
        + (f"; weights of the loss: {losses}" if variant == "gan" else "; on pixels alone")
    )


def _tables(figures: Mapping[Variant, Sequence[Mapping[str, Any]]]) -> Iterable[str]:
    """A table for each test set."""
    for position, of_set in enumerate(figures["psnr"]):
        rows = {"bicubic": of_set["bicubic"]}
        rows |= {name: figures[name][position]["model"] for name in _VARIANTS}
        measures = [key for key in of_set["model"] if key in COLUMNS]
        yield f"{of_set['name']}, {len(of_set['images'])} images:\n"
        yield "| | " + " | ".join(COLUMNS[key].heading for key in measures) + " |"
        yield "|---|" + "---:|" * len(measures)
        for name, values in rows.items():
            cells = [f"{values[key]:.{COLUMNS[key].digits}f}" if values[key] is not None else "" for key in measures]
            yield f"| {name} | " + " | ".join(cells) + " |"
        yield ""


def _attribution(photographs: Sequence[Photograph]) -> Iterable[str]:
    """Who made which photograph, under which licence, and what was changed."""
    megapixels = sum(photograph.pixels for photograph in photographs) / 1e6
    yield (
        f"{len(photographs)} photographs, {megapixels:.0f} megapixels, each reduced in size by Lanczos' filter and "
        "compressed anew; those marked * were held back from training. The licences are at "
        "creativecommons.org: licenses/by/VERSION, licenses/by-sa/VERSION and publicdomain/zero/1.0.\n"
    )
    by_licence = sorted(photographs, key=attrgetter("licence"))
    for licence, group in groupby(by_licence, key=attrgetter("licence")):
        yield f"**{licence}**\n"
        for photograph in group:
            held_back = " *" if photograph.use == "validation" else ""
            source = photograph.package.rpartition("/")[2].split("_")[0]
            link = f" ([source]({photograph.url}))" if photograph.url else ""
            yield f"* {photograph.file}{held_back}, {photograph.author}, from {source}{link}"
        yield ""
