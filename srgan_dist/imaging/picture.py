"""A picture as it is upscaled: upright pixels, transparency apart, and the profile, resolution and EXIF of its file."""

from __future__ import annotations

import io
import logging
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, features

from srgan_dist.errors import UserError
from srgan_dist.imaging.png16 import decode_png16
from srgan_dist.imaging.read import frames_problem, has_sixteen_bits, open_image, orientation, pixel_array, raw_modes

log = logging.getLogger("srgan_dist")

Samples: TypeAlias = NDArray[np.unsignedinteger[Any]]

MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "I;16", "I;16L", "I;16B")
# What describes the photograph. The rest of EXIF describes the pixels of the source: size, orientation, a preview.
_EXIF_KEPT = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
)
_EXIF_SIZE = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)
_DAMAGED_EXIF = (ValueError, TypeError, KeyError, IndexError, SyntaxError, ArithmeticError, OSError, AttributeError)
_PROFILE_CHANNELS = {b"GRAY": 1, b"RGB ": 3}


@dataclass(frozen=True)
class Picture:
    """Pixels and what belongs to them.

    Attributes:
        pixels: uint8 or uint16 [H, W, C], upright, straight (not multiplied by alpha); C is 1 for grey, 3 for RGB.
        alpha: [H, W] of the same type, 0 for transparent; None without transparency.
        icc_profile: The colour profile of the pixels, or None for sRGB.
        dpi: Pixels an inch, horizontally and vertically.
        exif: What EXIF says of the photograph, without orientation and size.
    """

    pixels: Samples
    alpha: Samples | None = None
    icc_profile: bytes | None = None
    dpi: tuple[float, float] | None = None
    exif: bytes | None = None


def read_picture(path: str | Path) -> Picture:
    """Read an image file with all that belongs to it.

    Args:
        path: Image file, of a mode in `MODES`, or a PNG of 16 bits a channel.

    Returns:
        The picture: palettes become RGB, and CMYK sRGB; 16 bits stay 16.

    Raises:
        UserError: The file is empty, truncated, unreadable or animated, or of another mode.
    """
    path = Path(path)
    with open_image(path, unsuitable=why_no_picture) as image:
        samples = decode_png16(path.read_bytes()) if _loses_bits(image) else None
        return _picture(image, str(path), samples)


def read_shape(path: str | Path) -> tuple[int, int, int]:
    """Read an image's height, width (which orientation may swap) and bits a channel from its header.

    Raises:
        UserError: As `read_picture`, as far as the header tells.
    """
    with open_image(Path(path), unsuitable=why_no_picture) as image:
        return image.height, image.width, 16 if has_sixteen_bits(image) else 8


def from_pillow(image: Image.Image) -> Picture:
    """Take an image of Pillow, as `read_picture` takes a file.

    Raises:
        UserError: The image is animated, of another mode than `MODES`, or of more bits than Pillow is going to read.
    """
    name = str(getattr(image, "filename", "") or f"image of mode {image.mode}")
    problem = why_no_picture(image)
    if not problem and _loses_bits(image):
        problem = (
            "has more than 8 bits a channel, of which Pillow reads 8: upscale it by `srgan-dist upscale`, "
            "or call its load() first if 8 are enough"
        )
    if problem:
        raise UserError(f"{name}: {problem}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata, as `open_image` does
        return _picture(image, name)


def to_pillow(picture: Picture) -> Image.Image:
    """Make an image of Pillow, of mode L, LA, RGB, RGBA or I;16; profile, dpi and EXIF are in its `info`.

    Raises:
        ValueError: The picture has 16 bits and colour or alpha, for which Pillow has no mode.
    """
    if picture.pixels.dtype == np.uint16 and (picture.alpha is not None or picture.pixels.shape[2] != 1):
        raise ValueError("Pillow has no mode for 16 bits a channel but grey")
    image = Image.fromarray(picture.pixels[..., 0] if picture.pixels.shape[2] == 1 else picture.pixels)
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    image.info.update({key: value for key in ("icc_profile", "dpi", "exif") if (value := getattr(picture, key))})
    return image


def why_no_picture(image: Image.Image) -> str | None:
    """Explain from an image's header why it cannot be upscaled.

    Args:
        image: An image of Pillow; a file's pixels need not have been read.

    Returns:
        What it is, what is allowed and what to do; None if it can be.
    """
    if problem := frames_problem(image):
        return problem
    if not image.width or not image.height:
        return f"has no pixels ({image.width}x{image.height})"
    if image.mode in ("I", "F") or any(re.search(r";1[0-5]", mode) for mode in raw_modes(image)):
        return f"has a depth other than 8 or 16 bits a channel (mode {image.mode}): convert it first"
    if image.mode not in MODES:
        return f"has colour mode {image.mode}, allowed are {', '.join(MODES)}: convert it to RGB first"
    if _loses_bits(image) and image.format not in ("PNG", None):
        return f"has more than 8 bits a channel and colour, read from PNG and not from {image.format}: save it as PNG"
    return None


def _loses_bits(image: Image.Image) -> bool:
    """Whether Pillow is going to read a file's 16 bits a channel as 8."""
    return has_sixteen_bits(image) and not image.mode.startswith("I;16")


def _picture(image: Image.Image, name: str, samples: Samples | None = None) -> Picture:
    raw = raw_modes(image)
    image.load()  # also reads the chunks of a PNG behind its pixels, and turns a TIFF upright
    info = image.info
    key = None if image.mode in ("P", "PA") else info.get("transparency")  # a colour
    profile = info.get("icc_profile") or None
    if image.mode == "CMYK":
        image = _rgb_of_cmyk(image, profile, name)
        profile = None
    samples = _samples(image) if samples is None else samples
    channels = samples.shape[2]
    pixels, alpha = (samples, None) if channels in (1, 3) else (samples[..., :-1], samples[..., -1])
    if key is not None and alpha is None and not isinstance(key, bytes):
        opaque = (pixels != np.array(_spread(key, raw))).any(axis=2)
        alpha = (opaque * np.iinfo(pixels.dtype).max).astype(pixels.dtype)
    turn, exif = _exif(image, name)
    return Picture(
        pixels=upright(pixels, turn),
        alpha=None if alpha is None else upright(alpha, turn),
        icc_profile=_fitting(profile, pixels.shape[2], name),
        dpi=_dpi(info),
        exif=exif,
    )


def _samples(image: Image.Image) -> Samples:
    """uint8 or uint16 [H, W, 1 to 4], writable; alpha last."""
    mode = {"1": "L", "La": "LA", "RGBa": "RGBA", "PA": "RGBA", "P": "RGBA" if "transparency" in image.info else "RGB"}
    if image.mode in mode:
        image = image.convert(mode[image.mode])
    samples: Samples = pixel_array(image)
    return samples.reshape(image.height, image.width, -1)


def _spread(key: Any, raw: list[str]) -> Any:
    """Spread the transparent one of 4 or 16 greys over 8 bits, as Pillow does with the pixels, but not with it."""
    levels = {"L;2": 4, "L;4": 16}.get(raw[0]) if raw else None
    return key * 255 // (levels - 1) if levels and key < levels else key


def upright(array: Samples, turn: int) -> Samples:
    """Turn an array by an EXIF orientation.

    Args:
        array: [H, W, ...].
        turn: From 1 (upright) to 8; others are taken for 1.

    Returns:
        [H, W, ...] or [W, H, ...], C-contiguous.

    Source:
        JEITA CP-3451, tag 274.
    """
    swapped = array.swapaxes(0, 1) if turn in (5, 6, 7, 8) else array
    rows = slice(None, None, -1 if turn in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if turn in (2, 3, 6, 7) else 1)
    turned: Samples = np.ascontiguousarray(swapped[rows, columns])
    return turned


def _rgb_of_cmyk(image: Image.Image, profile: bytes | None, name: str) -> Image.Image:
    way = "by its colour profile" if profile and features.check("littlecms2") else "without a colour profile"
    log.warning("%s: CMYK, converted to RGB %s", name, way)
    if way != "by its colour profile":
        return image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile or b""))
        srgb = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        raise UserError(f"{name}: its CMYK profile cannot be used ({error}): convert it to RGB first") from None
    assert converted is not None  # None is for inPlace
    return converted


def _fitting(profile: object, channels: int, name: str) -> bytes | None:
    """The profile, if it is one of pixels with so many channels: a grey file may well hold one of RGB."""
    if not isinstance(profile, bytes):
        return None
    if _PROFILE_CHANNELS.get(profile[16:20]) == channels:
        return profile
    log.warning("%s: its colour profile is not one of %s; left out", name, "grey" if channels == 1 else "RGB")
    return None


def _dpi(info: Mapping[Any, Any]) -> tuple[float, float] | None:
    try:
        horizontal, vertical = map(float, info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None  # none, or one that says nothing
    # Of a TIFF without a resolution Pillow says 1.
    fits = all(math.isfinite(value) and 1 < value < 1e5 for value in (horizontal, vertical))
    return (horizontal, vertical) if fits else None


def _exif(image: Image.Image, name: str) -> tuple[int, bytes | None]:
    """The orientation, and what is kept; a sound image with damaged EXIF is still an image."""
    turn, kept = 1, Image.Exif()
    try:
        turn = orientation(image)
        found = Image.Image.getexif(image)
        kept.update({tag: found[tag] for tag in _EXIF_KEPT if tag in found})
        for part in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            if tags := {tag: value for tag, value in found.get_ifd(part).items() if tag not in _EXIF_SIZE}:
                kept[part] = tags
        return turn, kept.tobytes() if len(kept) else None
    except _DAMAGED_EXIF as error:
        log.warning("%s: damaged EXIF, left out (%s)", name, " ".join(str(error).split())[:80])
        return turn, None
