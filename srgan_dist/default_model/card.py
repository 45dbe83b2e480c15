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
"""
_AGAIN = "`make model` makes it again; its configurations are `psnr.yaml` and `gan.yaml` in `srgan_dist/default_model`."
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
    sections = {
        "Architecture": "\n".join(_architecture(name, runs[name], sizes[name]) for name in _VARIANTS),
        "Training": "\n".join(_training(name, runs[name]) for name in _VARIANTS) + f"\n\n{_AGAIN}",
        "Figures": "\n\n".join(_tables(figures)),
        "Photographs": "\n\n".join(_attribution(photographs)),
    }
    return "\n".join([_HEAD, *(f"## {heading}\n\n{text}\n" for heading, text in sections.items())])


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
    """A title and a table for each test set."""
    for position, of_set in enumerate(figures["psnr"]):
        rows = {"bicubic": of_set["bicubic"]}
        rows |= {name: figures[name][position]["model"] for name in _VARIANTS}
        measures = [key for key in COLUMNS if key in of_set["model"]]
        count = len(of_set["images"])
        yield f"{of_set['name']}, {count} image{'s' if count > 1 else ''}:"
        lines = [["", *(COLUMNS[key].heading for key in measures)], ["---", *("---:" for _ in measures)]]
        lines += [[name, *(_figure(key, values[key]) for key in measures)] for name, values in rows.items()]
        yield "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _figure(key: str, value: float | None) -> str:
    return "" if value is None else f"{value:.{COLUMNS[key].digits}f}"


def _attribution(photographs: Sequence[Photograph]) -> Iterable[str]:
    """Who made which photograph, under which licence, and what was changed."""
    megapixels = sum(photograph.pixels for photograph in photographs) / 1e6
    yield (
        f"{len(photographs)} photographs, {megapixels:.0f} megapixels, each reduced in size by Lanczos' filter and\n"
        "compressed anew. Those marked * were held back from training. The licences are at creativecommons.org:\n"
        "licenses/by/VERSION, licenses/by-sa/VERSION and publicdomain/zero/1.0."
    )
    by_licence = attrgetter("licence")
    for licence, group in groupby(sorted(photographs, key=by_licence), key=by_licence):
        yield f"**{licence}**"
        yield "\n".join(map(_credit, group))


def _credit(photograph: Photograph) -> str:
    held_back = " *" if photograph.use == "validation" else ""
    package = photograph.package.rpartition("/")[2].split("_")[0]
    link = f" ([source]({photograph.url}))" if photograph.url else ""
    return f"* {photograph.file}{held_back}, {photograph.author}, from {package}{link}"
