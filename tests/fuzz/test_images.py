"""Damaged images: `pack` and `upscale` refuse them in one line, or take what can be read."""

from __future__ import annotations

import functools
import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from torch import nn

from srgan_dist.data.packing.pack import pack
from srgan_dist.data.shard_format.encodings import ENCODINGS
from srgan_dist.errors import UserError
from srgan_dist.evaluation.test_sets import read_pairs
from srgan_dist.imaging.listing import SUFFIXES
from srgan_dist.imaging.read import FILE_FORMATS
from srgan_dist.inference.generator import SRGenerator
from srgan_dist.inference.upscale_files import upscale_file
from tests.conftest import photo
from tests.fuzz.harness import fuzz, mutate

_MODES = {
    "PNG": ("RGB", "L", "P", "RGBA", "1"),
    "TIFF": ("RGB", "L", "P", "RGBA", "1", "CMYK"),
    "BMP": ("RGB", "L", "P"),
    "QOI": ("RGB", "RGBA"),
}
_TIFF_COMPRESSIONS = (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "group4", "jpeg")


@functools.cache
def generator() -> SRGenerator:
    return SRGenerator(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Upsample(scale_factor=4)), scale=4, metadata={})


@functools.cache
def picture() -> Image.Image:
    return Image.fromarray(photo(36, 52))


def damaged_image(rng: random.Random, folder: Path) -> Path:
    """Write an image of a random kind, and damage its file."""
    kind = rng.choice(FILE_FORMATS)
    image = picture().convert(rng.choice(_MODES.get(kind, ("RGB", "L"))))
    if kind == "WEBP":
        image = image.convert("RGBA" if rng.random() < 0.3 else "RGB")
    exif = Image.Exif()
    exif[0x0112] = rng.randint(1, 8)
    options: dict[str, object] = {} if kind == "BMP" or rng.random() < 0.5 else {"exif": exif}
    if kind == "PNG" and image.mode == "P" and rng.random() < 0.5:
        options["transparency"] = rng.randbytes(256)
    if kind == "TIFF":
        compression = rng.choice(_TIFF_COMPRESSIONS)
        options["compression"] = compression if compression != "group4" or image.mode == "1" else None
        if compression == "jpeg" and image.mode in ("1", "P", "RGBA"):
            options["compression"] = "tiff_lzw"
    elif kind in ("JPEG", "WEBP"):
        options |= {"progressive": rng.random() < 0.5} if kind == "JPEG" else {"lossless": rng.random() < 0.5}
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    path = folder / f"damaged{SUFFIXES[kind][0]}"
    path.write_bytes(mutate(buffer.getvalue(), rng))
    return path


def packed(rng: random.Random, folder: Path) -> None:
    """A damaged image beside a sound one, which `--on-error skip` packs."""
    hr = folder / "hr"
    hr.mkdir()
    picture().save(hr / "sound.png")
    damaged_image(rng, hr)
    encoding = rng.choice(ENCODINGS)
    manifest = pack(hr, folder / "out", encoding=encoding, on_error="skip")
    assert manifest.num_images + manifest.num_skipped == 2
    assert manifest.num_images >= 1
    pack(hr, folder / "strict", encoding=encoding)


def upscaled(rng: random.Random, folder: Path) -> None:
    source = damaged_image(rng, folder)
    upscale_file(generator(), source, folder / f"sr.{rng.choice(('png', 'jpg', 'webp'))}", tile=48)


def evaluated(rng: random.Random, folder: Path) -> None:
    damaged_image(rng, folder)
    list(read_pairs(folder, scale=4))


@pytest.mark.slow
@pytest.mark.parametrize("case", [packed, upscaled, evaluated])
def test_damaged_images_end_in_one_line(case: Callable[[random.Random, Path], None]) -> None:
    assert fuzz(case, cases=300) == []


def test_the_undamaged_images_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the fuzz would test little."""
    monkeypatch.setattr("tests.fuzz.test_images.mutate", lambda content, _: content)
    reasons = []
    for seed in range(60):
        (folder := tmp_path / str(seed)).mkdir()
        try:
            upscaled(random.Random(seed), folder)
        except UserError as error:
            reasons.append(str(error))
    assert len(reasons) < 15
    assert all("would have transparent pixels" in reason for reason in reasons), reasons
