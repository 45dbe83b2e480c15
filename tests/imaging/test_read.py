from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from srgan_dist.data.shard_format.encodings import decode
from srgan_dist.errors import UserError
from srgan_dist.imaging.read import MAX_PIXELS, read_rgb, read_size

Maker = Callable[..., NDArray[np.uint8]]


def png_16_bit_rgb(height: int, width: int, pixels: bytes | None = None) -> bytes:
    """Pillow cannot write this kind, so write its three chunks by hand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    if pixels is None:
        pixels = b"".join(b"\0" + b"\x12\x34" * 3 * width for _ in range(height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_rgb_comes_back_exactly(tmp_path: Path, make_image: Maker, suffix: str) -> None:
    image = make_image(20, 30)
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(image).save(path, lossless=True)
    found = read_rgb(path)
    np.testing.assert_array_equal(found, image)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert found.flags.writeable
    assert read_size(path) == (20, 30)


def test_grey_palette_and_opaque_alpha_become_rgb(tmp_path: Path, make_image: Maker) -> None:
    rgb = Image.fromarray(make_image(20, 30))
    grey = np.array(rgb.convert("L"))
    rgb.convert("L").save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "grey.png"), grey[..., None].repeat(3, axis=2))
    palette = rgb.quantize(16)
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "palette.png"), np.array(palette.convert("RGB")))
    rgb.convert("RGBA").save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "opaque.png"), np.array(rgb))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, make_image: Maker, orientation: int) -> None:
    image = make_image(20, 30)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image).save(tmp_path / "turned.png", exif=exif)
    # The EXIF standard's list: which side of the scene the first row and the first column are.
    upright = {
        1: image,
        2: image[:, ::-1],
        3: image[::-1, ::-1],
        4: image[::-1],
        5: image.swapaxes(0, 1),
        6: image[::-1].swapaxes(0, 1),
        7: image[::-1, ::-1].swapaxes(0, 1),
        8: image[:, ::-1].swapaxes(0, 1),
    }[orientation]
    np.testing.assert_array_equal(read_rgb(tmp_path / "turned.png"), upright)
    assert read_size(tmp_path / "turned.png") == upright.shape[:2]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_the_size_is_that_of_the_turned_pixels_in_every_format(tmp_path: Path, make_image: Maker, suffix: str) -> None:
    """Pillow gives a TIFF's size after the orientation, and every other format's before it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"turned.{suffix}"
    Image.fromarray(make_image(20, 30)).save(path, exif=exif)
    assert read_size(path) == read_rgb(path).shape[:2] == (30, 20)


def test_a_phones_jpeg_with_preview_is_one_photograph(tmp_path: Path, make_image: Maker) -> None:
    image = Image.fromarray(make_image(32, 48))
    image.save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=[image.resize((24, 16))])
    assert read_rgb(tmp_path / "phone.jpg").shape == (32, 48, 3)


def bad_files(image: NDArray[np.uint8]) -> dict[str, bytes]:
    rgb = Image.fromarray(image)
    see_through = rgb.convert("RGBA")
    see_through.putpixel((3, 2), (1, 2, 3, 200))
    palette = rgb.quantize(8)

    def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, format=kind, **options)
        return buffer.getvalue()

    png, jpeg = encoded(rgb, "PNG"), encoded(rgb, "JPEG")
    return {
        "alpha.png": encoded(see_through, "PNG"),
        "palette-alpha.png": encoded(palette, "PNG", transparency=0),
        "16-bit-grey.png": encoded(Image.fromarray(image[..., 0].astype(np.uint16) * 257), "PNG"),
        "16-bit-rgb.png": png_16_bit_rgb(8, 6),
        "float.tif": encoded(Image.fromarray(image[..., 0].astype(np.float32)), "TIFF"),
        "cmyk.jpg": encoded(rgb.convert("CMYK"), "JPEG"),
        "lab.tif": encoded(Image.new("LAB", (8, 8)), "TIFF"),
        "animated.webp": encoded(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(180)], duration=100),
        "pages.tif": encoded(rgb, "TIFF", save_all=True, append_images=[rgb]),
        "empty.png": b"",
        "truncated.png": png[: len(png) // 2],
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "header-only.png": png[:20],
        "text.png": b"not an image at all",
    }


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("alpha.png", "transparent pixels (alpha down to 200)"),
        ("palette-alpha.png", "transparent pixels (alpha down to 0)"),
        ("16-bit-grey.png", "more than 8 bits a channel (mode I"),
        ("16-bit-rgb.png", "more than 8 bits a channel (mode RGB)"),
        ("float.tif", "more than 8 bits a channel (mode F)"),
        ("cmyk.jpg", "colour mode CMYK"),
        ("lab.tif", "colour mode LAB"),
        ("animated.webp", "(2 frames)"),
        ("pages.tif", "(2 frames)"),
        ("empty.png", "is empty (0 bytes)"),
        ("truncated.png", "cannot be read as an image"),
        ("truncated.jpg", "cannot be read as an image"),
        ("header-only.png", "cannot be read as an image"),
        ("text.png", "cannot be read as an image"),
        ("absent.png", "cannot be read as an image"),
    ],
)
def test_unsuitable_files_are_refused_by_name(tmp_path: Path, make_image: Maker, name: str, words: str) -> None:
    for file, data in bad_files(make_image(40, 40)).items():
        (tmp_path / file).write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_rgb(tmp_path / name)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / name}: ")
    assert words in message
    assert "\n" not in message


def test_exif_behind_the_pixels_of_a_png(tmp_path: Path, make_image: Maker) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(make_image(20, 30)).save(path, exif=exif)
    data = path.read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    path.write_bytes(data[:start] + data[end:-12] + data[start:end] + data[-12:])
    assert read_rgb(path).shape == (30, 20, 3)
    assert read_size(path) == (30, 20)


def test_a_size_is_read_without_the_pixels(tmp_path: Path, make_image: Maker) -> None:
    for name in ("a.png", "a.jpg", "a.bmp", "a.tif"):
        path = tmp_path / name
        Image.fromarray(make_image(60, 40)).save(path)
        path.write_bytes(path.read_bytes()[: 1000 if name != "a.tif" else None])
        assert read_size(path) == (60, 40)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


def test_a_file_of_another_format_is_refused_whatever_its_name_and_starts_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    path = tmp_path / "a.png"
    path.write_bytes(EPS)
    with pytest.raises(
        UserError, match=r"a.png: cannot be read as an image \(it is no PNG, JPEG, WEBP, .* or QOI file"
    ):
        read_rgb(path)
    with pytest.raises(ValueError, match="it is no PNG, JPEG or WEBP file"):
        decode(EPS)
    with io.BytesIO() as buffer:
        Image.new("RGB", (9, 9)).save(buffer, format="TGA")
        path.write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="it is no PNG"):
        read_size(path)
    assert not (tmp_path / "started").exists()


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the environment's limit, and Pillow's back after the test."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    return lambda text: monkeypatch.setenv(MAX_PIXELS, text)


def test_an_image_of_too_many_pixels_is_refused_by_its_header(
    tmp_path: Path, make_image: Maker, limit: Callable[[str], None]
) -> None:
    path = tmp_path / "a.png"
    for width in (13_000, 20_000):  # beyond the limit, and beyond what Pillow refuses by itself
        path.write_bytes(png_16_bit_rgb(13_000, width, b"none"))
        for read in (read_size, read_rgb):
            with pytest.raises(UserError) as caught:
                read(path)
            assert str(caught.value) == (
                f"{path}: has {width * 13_000} pixels, allowed are {Image.MAX_IMAGE_PIXELS}: if you trust it and have "
                f"the memory, set {MAX_PIXELS}={width * 13_000}"
            )
    Image.fromarray(make_image(20, 30)).save(path)
    for text, fits in (("600", True), ("599", False), ("299", False)):
        limit(text)
        if fits:
            assert read_rgb(path).shape == (20, 30, 3)
            assert decode(path.read_bytes()).shape == (20, 30, 3)
            continue
        with pytest.raises(UserError, match=f"has 600 pixels, allowed are {text}"):
            read_rgb(path)
        with pytest.raises(ValueError, match=r"has 600 pixels|decompression bomb"):
            decode(path.read_bytes())
    for text in ("many", "0", "-5", "1e9", "9" * 30):
        limit(text)
        with pytest.raises(UserError, match=r"SRGAN_DIST_MAX_PIXELS is .*, allowed is a whole number of 1 or more"):
            read_rgb(path)


def test_a_program_that_lifted_pillows_limit_is_not_limited(
    tmp_path: Path, make_image: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    Image.fromarray(make_image(20, 30)).save(tmp_path / "a.png")
    assert read_size(tmp_path / "a.png") == (20, 30)


def test_damaged_metadata_of_a_sound_image_is_no_warning(tmp_path: Path, make_image: Maker) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description of some length"
    Image.fromarray(make_image(20, 30)).save(tmp_path / "a.jpg", exif=exif)
    data = (tmp_path / "a.jpg").read_bytes()
    assert data.count(b"\x0e\x01\x02\x00") == 1 or data.count(b"\x01\x0e\x00\x02") == 1
    for whole, damaged in (
        (b"\x0e\x01\x02\x00\x1d", b"\x0e\x01\x02\x00\xff"),
        (b"\x01\x0e\x00\x02\0\0\0", b"\x01\x0e\x00\x02\0\0\xff"),
    ):
        data = data.replace(whole, damaged)
    (tmp_path / "a.jpg").write_bytes(data)
    assert read_rgb(tmp_path / "a.jpg").shape == (20, 30, 3)
