"""Writes pictures: which formats there are, what each can hold, and how it is written."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image

from srgan_dist.errors import UserError
from srgan_dist.imaging.picture import Picture, to_pillow
from srgan_dist.imaging.png16 import write_png16
from srgan_dist.utils.files import whole_file
from srgan_dist.utils.system_errors import explain

log = logging.getLogger("srgan_dist")

QUALITY = 95
_FOUR_GIB = 2**32 - 2**20  # offsets of 32 bits, and room for the header
_MAX_SEGMENT = 65533  # bytes of EXIF in a JPEG


class Format(NamedTuple):
    """What a file format holds.

    Attributes:
        name: Pillow's name of it.
        alpha: Transparency.
        deep: 16 bits a channel: of no picture, of grey without alpha, or of all.
        lossy: It has a quality.
        max_side: Pixels.
        max_bytes: Of the pixels, where they are not compressed.
        profile: A colour profile.
        dpi: A resolution that Pillow writes.
        exif: EXIF.
    """

    name: str
    alpha: bool = True
    deep: str = "none"
    lossy: bool = False
    max_side: int = 2**31 - 1
    max_bytes: int | None = None
    profile: bool = True
    dpi: bool = True
    exif: bool = True


_JPEG = Format("JPEG", alpha=False, lossy=True, max_side=65500)  # of libjpeg; the format has 35 more
_TIFF = Format("TIFF", deep="grey", max_bytes=_FOUR_GIB)
FORMATS: dict[str, Format] = {
    ".png": Format("PNG", deep="all"),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": Format("WEBP", lossy=True, max_side=16383, dpi=False),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".bmp": Format("BMP", alpha=False, max_bytes=_FOUR_GIB, profile=False, exif=False),
}
"""By the suffix of a file's name, in lower case."""


def format_of(path: Path) -> Format:
    """The format that a file's name says.

    Raises:
        UserError: It is none that is written.
    """
    if known := FORMATS.get(path.suffix.lower()):
        return known
    says = f"as {path.suffix}" if path.suffix else "without a suffix"
    raise UserError(f"{path}: cannot be written {says}, allowed are names in {' '.join(FORMATS)}")


def check_quality(quality: int | None, path: Path, *, name: str = "quality") -> None:
    """Refuse a quality that is none, or that the format of a file has no use for.

    Raises:
        UserError: It is not from 1 to 100, or the format is lossless.
    """
    if quality is None:
        return
    if not 1 <= quality <= 100:
        raise UserError(f"{name} is {quality}, allowed are whole numbers from 1 to 100")
    if not (kind := format_of(path)).lossy:
        lossy = " ".join(suffix for suffix, other in FORMATS.items() if other.lossy)
        raise UserError(f"{name} is {quality}, but {kind.name} is lossless: leave it out, or write one of {lossy}")


def check_holds(path: Path, height: int, width: int, *, bits: int, channels: int = 1, alpha: bool = False) -> None:
    """Refuse a file whose format cannot hold a picture.

    Args:
        path: The file.
        height: Of the picture, in pixels.
        width: In pixels.
        bits: A channel, 8 or 16.
        channels: 1 for grey or 3; with 1 where it is not known yet.
        alpha: Some of its pixels are transparent; False where it is not known yet.

    Raises:
        UserError: It says which formats can.
    """
    kind = format_of(path)
    fitting = [
        suffix for suffix, other in FORMATS.items() if not _lacks(other, height, width, bits, channels, alpha=alpha)
    ]
    if lack := _lacks(kind, height, width, bits, channels, alpha=alpha):
        raise UserError(f"{path}: {lack}: write {' '.join(fitting)}")


def _lacks(kind: Format, height: int, width: int, bits: int, channels: int, *, alpha: bool) -> str | None:
    if max(height, width) > kind.max_side:
        return f"would be {width}x{height} pixels, {kind.name} holds at most {kind.max_side} a side"
    deep = kind.deep == "all" or (kind.deep == "grey" and channels == 1 and not alpha)
    if bits == 16 and not deep:
        held = " of colour or with transparency" if kind.deep == "grey" else ""
        return f"would have 16 bits a channel, {kind.name} holds 8{held}"
    if alpha and not kind.alpha:
        return f"would have transparent pixels, {kind.name} holds none"
    if kind.max_bytes and (size := height * width * (channels + alpha) * bits // 8) > kind.max_bytes:
        return f"would have {size} bytes of pixels, {kind.name} holds at most {kind.max_bytes}"
    return None


def check_fits(path: Path, picture: Picture, *, scale: int = 1) -> None:
    """Refuse a file whose format cannot hold a picture, enlarged by ``scale``.

    Raises:
        UserError: It says which formats can.
    """
    height, width, channels = picture.pixels.shape
    bits = 8 * picture.pixels.itemsize
    check_holds(path, height * scale, width * scale, bits=bits, channels=channels, alpha=_see_through(picture))


def _see_through(picture: Picture) -> bool:
    return picture.alpha is not None and int(picture.alpha.min()) < np.iinfo(picture.alpha.dtype).max


def write_picture(picture: Picture, path: Path, *, quality: int | None = None) -> None:
    """Write a picture; the file is whole or absent.

    Args:
        picture: Its alpha is left out where the format has none and all pixels are opaque.
        path: The file; its suffix is the format, and its folder is made.
        quality: Of JPEG (4:4:4) and WebP, from 1 to 100.

    Raises:
        UserError: The format cannot hold the picture, or the file cannot be written.
        OSError: The machine lacks something, such as room on the disk.
    """
    check_fits(path, picture)
    kind = format_of(path)
    if not kind.alpha and picture.alpha is not None:
        picture = Picture(picture.pixels, None, picture.icc_profile, picture.dpi, picture.exif)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            if picture.pixels.dtype == np.uint16 and (picture.alpha is not None or picture.pixels.shape[2] > 1):
                parts = [picture.pixels, *([] if picture.alpha is None else [picture.alpha])]
                pixels = np.dstack(parts).astype(np.uint16, copy=False)
                with temporary.open("wb") as file:
                    write_png16(file, pixels, icc_profile=picture.icc_profile, dpi=picture.dpi, exif=picture.exif)
                return
            image = to_pillow(picture)
            options = _options(kind, picture, path, quality)
            del picture  # twice in memory is enough while it is encoded
            image.save(temporary, format=kind.name, **options)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and explain(error):
            raise
        raise UserError(f"{path}: cannot be written ({error})") from None


def _options(kind: Format, picture: Picture, path: Path, quality: int | None) -> dict[str, Any]:
    options: dict[str, Any] = {}
    exif, dpi = picture.exif, picture.dpi
    if kind.lossy:
        options["quality"] = quality or QUALITY
    if kind.name == "JPEG":
        options["subsampling"] = 0  # 4:4:4
    if dpi and kind.dpi:
        options["dpi"] = dpi
    elif dpi:
        exif = _with_resolution(exif, dpi)
    if picture.icc_profile and kind.profile:
        options["icc_profile"] = picture.icc_profile
    if exif and kind.exif and not (kind.name == "JPEG" and len(exif) > _MAX_SEGMENT):
        options["exif"] = exif
    lost = [
        what
        for what, there, written in (
            ("colour profile", picture.icc_profile, "icc_profile" in options),
            ("EXIF", picture.exif, "exif" in options),
        )
        if there and not written
    ]
    if lost:
        log.warning("%s: %s cannot hold the %s: left out", path, kind.name, " and the ".join(lost))
    return options


def _with_resolution(exif: bytes | None, dpi: tuple[float, float]) -> bytes:
    """EXIF that also says the resolution, of formats without a place of their own for it."""
    tags = Image.Exif()
    if exif:
        tags.load(exif)
    tags[ExifTags.Base.XResolution], tags[ExifTags.Base.YResolution] = dpi
    tags[ExifTags.Base.ResolutionUnit] = 2  # inches
    return tags.tobytes()
