"""Looking closely at one image inside a shard: what it is, and whether all of it can be read."""

from __future__ import annotations

import io
import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srgan_dist.data.shard_format.encodings import decode, read_size
from srgan_dist.imaging.read import orientation

IMAGE_SUFFIXES = ("npy", "png", "webp", "jpg", "jpeg")
_SUFFIX_OF_FORMAT = {"PNG": "png", "WEBP": "webp", "JPEG": "jpg", "MPO": "jpg"}
_ENCODING_OF_SUFFIX = {"npy": "raw", "png": "png", "webp": "webp", "jpg": "jpeg"}


class Header(NamedTuple):
    """What an image's first bytes say.

    Attributes:
        height: pixels.
        width: pixels.
        encoding: raw, png, webp or jpeg, by its content.
        lossless: whether its pixels are those that were stored.
        notes: what readers of shards pass over in silence, without harm to the pixels.
    """

    height: int
    width: int
    encoding: str
    lossless: bool
    notes: tuple[str, ...] = ()


def read_header(data: bytes, suffix: str) -> Header:
    """Find out what an image is, without decoding it.

    Args:
        data: the member's data.
        suffix: of the member's name, one of `IMAGE_SUFFIXES`.

    Returns:
        Its size and kind.

    Raises:
        ValueError: it is no image, or none of one picture of 8 bits a channel.
    """
    if not data:
        raise ValueError("is empty (0 bytes), expected an image")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large photographs are no attack
        height, width = read_size(data, suffix)
        if suffix == "npy":
            return Header(height, width, "raw", lossless=True)
        with Image.open(io.BytesIO(data)) as image:
            kind, turned = image.format or "", _orientation(image)
    found = _SUFFIX_OF_FORMAT.get(kind)
    if found is None:
        raise ValueError(f"is a file of kind {kind}, allowed are PNG, WebP, JPEG and .npy")
    notes = []
    if found != suffix.replace("jpeg", "jpg"):
        notes.append(f"is named .{suffix} but holds {kind}")
    if turned != 1:
        notes.append(f"carries EXIF orientation {turned}, which readers of shards do not apply")
    lossless = found == "png" or (found == "webp" and data[12:16] == b"VP8L")
    return Header(height, width, _ENCODING_OF_SUFFIX[found], lossless, tuple(notes))


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # Pillow would decode the whole image, looking for a chunk behind the pixels
    try:
        return orientation(image)
    except Exception:  # noqa: BLE001 - what is no EXIF at all says nothing, and no reader of shards asks
        return 1


def read_pixels(data: bytes, suffix: str) -> NDArray[np.uint8]:
    """Decode an image to its last byte, checking what decoders leave unchecked.

    Args:
        data: the member's data, with a header that `read_header` accepts.
        suffix: of the member's name.

    Returns:
        uint8 [H, W, 3], RGB, writable.

    Raises:
        ValueError: it does not decode, a checksum inside it is wrong, or some of its pixels are transparent.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            if suffix == "npy":
                return np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
            lowest = _lowest_alpha(data)
            pixels = np.require(decode(data), requirements="W")
        except Exception as error:  # decoders raise whatever they like: OSError, SyntaxError, struct.error ...
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"cannot be decoded ({reason})") from error
    if lowest != 255:
        raise ValueError(f"has transparent pixels (alpha down to {lowest}), which readers drop in silence")
    return pixels


def _lowest_alpha(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as image:
        image.verify()  # Pillow decodes a PNG without looking at the checksums of its chunks
    with Image.open(io.BytesIO(data)) as image:
        if image.mode not in ("LA", "PA", "RGBA") and "transparency" not in image.info:
            return 255
        return int(np.asarray(image.convert("RGBA"))[..., 3].min())
