"""What files and images of Pillow hold: each kind is read as a person sees it, or refused by name."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from srgan_dist.errors import UserError
from srgan_dist.imaging.alpha import fill_transparent
from srgan_dist.imaging.picture import Picture, from_pillow, read_picture, to_pillow, upright
from srgan_dist.imaging.read import has_sixteen_bits
from srgan_dist.imaging.write import write_picture
from tests.conftest import photo

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
COLOUR = photo(20, 30)
GREY = COLOUR[..., 1]
ALPHA = np.linspace(0, 255, 600).reshape(20, 30).astype(np.uint8)


def png(pixels: NDArray[Any], *, bits: int, colour_type: int, transparent: list[int] | None = None) -> bytes:
    """A PNG of any depth, as Pillow does not write them: [H, bytes of a row] unfiltered, of 30 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    key = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) if transparent else b""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30, len(pixels), bits, colour_type, 0, 0, 0))
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + header + key + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def deep(array: NDArray[Any]) -> NDArray[np.uint16]:
    levels: NDArray[np.uint16] = array.astype(np.uint16) * 257 - array % 7
    return levels


def test_modes_of_pillow_keep_what_they_show() -> None:
    grey, colour = Image.fromarray(GREY), Image.fromarray(COLOUR)
    palette = colour.quantize(16)
    see_through = palette.copy()
    see_through.info["transparency"] = 3
    shown = np.array(palette.convert("RGB"))
    images: dict[str, tuple[Image.Image, NDArray[Any], NDArray[Any] | None]] = {
        "1": (grey.convert("1"), np.array(grey.convert("1").convert("L")), None),
        "L": (grey, GREY, None),
        "LA": (Image.merge("LA", [grey, Image.fromarray(ALPHA)]), GREY, ALPHA),
        "P": (palette, shown, None),
        "P with transparency": (see_through, shown, np.where(np.array(palette) == 3, 0, 255)),
        "RGB": (colour, COLOUR, None),
        "RGBA": (Image.fromarray(np.dstack([COLOUR, ALPHA])), COLOUR, ALPHA),
        "I;16": (Image.fromarray(deep(GREY)), deep(GREY), None),
        "CMYK": (colour.convert("CMYK"), COLOUR, None),
    }
    for name, (image, pixels, alpha) in images.items():
        found = from_pillow(image)
        np.testing.assert_array_equal(found.pixels, pixels.reshape(20, 30, -1), err_msg=name)
        assert (found.alpha is None) == (alpha is None), name
        if alpha is not None and found.alpha is not None:
            np.testing.assert_array_equal(found.alpha, alpha, err_msg=name)
        assert found.pixels.flags.writeable
        again = from_pillow(to_pillow(found))
        np.testing.assert_array_equal(again.pixels, found.pixels, err_msg=name)


@pytest.mark.parametrize(
    ("bits", "colour_type"), [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2), (16, 4), (16, 6)]
)
def test_a_png_of_any_depth_and_its_transparent_colour(tmp_path: Path, bits: int, colour_type: int) -> None:
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    levels = np.random.default_rng(0).integers(0, 2**bits, (20, 30, channels))
    if bits < 8:
        spread = (levels[..., 0, None] >> np.arange(bits)[::-1]) & 1
        rows = np.packbits(spread.reshape(20, -1).astype(np.uint8), axis=1)
    else:
        rows = levels.reshape(20, -1).astype(">u2" if bits == 16 else np.uint8)
    key = levels[3, 4].tolist() if channels in (1, 3) else None
    path = tmp_path / "a.png"
    path.write_bytes(png(rows, bits=bits, colour_type=colour_type, transparent=key))
    found = read_picture(path)
    assert found.alpha is not None
    assert found.pixels.dtype == found.alpha.dtype == (np.uint16 if bits == 16 else np.uint8)
    top = np.iinfo(found.pixels.dtype).max
    step = top // (2 ** min(bits, 16) - 1)
    colours = levels if key else levels[..., :-1]
    np.testing.assert_array_equal(found.pixels, colours * step)
    alpha = (levels != key).any(axis=2) * top if key else levels[..., -1]
    np.testing.assert_array_equal(found.alpha, alpha)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_profile_dpi_exif_and_orientation(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif.update({0x0112: orientation, 0x010F: "Maker", 0x0100: 30})
    exif.get_ifd(0x8769).update({0x9003: "2026:01:01 00:00:00", 0xA002: 30})
    source, target = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    options: dict[str, Any] = {} if suffix == "webp" else {"dpi": (300, 240)}
    Image.fromarray(COLOUR).save(source, exif=exif, icc_profile=SRGB, quality=100, lossless=True, **options)
    picture = read_picture(source)
    assert picture.icc_profile == SRGB
    turned = upright(COLOUR, orientation)
    assert np.abs(picture.pixels.astype(int) - turned).mean() < (9 if suffix == "jpg" else 1e-9)
    assert picture.dpi == (None if suffix == "webp" else pytest.approx((300, 240), abs=0.02))
    write_picture(picture, target)
    with Image.open(target) as image:
        assert image.size == turned.shape[1::-1]
        found = Image.Image.getexif(image)
        assert (found.get(0x0112, 1), found[0x010F], image.info["icc_profile"]) == (1, "Maker", SRGB)
        if suffix != "tif":  # Pillow writes only the first directory there
            assert dict(found.get_ifd(0x8769)) == {0x9003: "2026:01:01 00:00:00"}
            assert 0x0100 not in found
        if suffix != "webp":
            assert image.info["dpi"] == pytest.approx((300, 240), abs=0.02)
    # The same from Python, once more: what is upright is not turned again.
    with Image.open(source) as image:
        python = to_pillow(from_pillow(image))
    np.testing.assert_array_equal(from_pillow(python).pixels, picture.pixels)
    assert python.info["icc_profile"] == SRGB


def test_a_webp_keeps_the_dpi_in_exif(tmp_path: Path) -> None:
    write_picture(Picture(COLOUR, dpi=(300, 240)), tmp_path / "a.webp")
    with Image.open(tmp_path / "a.webp") as image:
        exif = image.getexif()
    assert (float(exif[0x011A]), float(exif[0x011B]), exif[0x0128]) == (300, 240, 2)


@pytest.mark.parametrize(("channels", "alpha"), [(1, False), (1, True), (3, False), (3, True)])
def test_16_bits_come_back_exactly(tmp_path: Path, channels: int, alpha: bool) -> None:
    tall = photo(150, 30)  # more rows than are filtered at a time
    pixels = deep(tall[..., :channels])
    picture = Picture(pixels, pixels[..., 0].copy() if alpha else None, SRGB if channels == 3 else None, (300, 300))
    write_picture(picture, tmp_path / "a.png")
    found = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(found.pixels, picture.pixels)
    assert found.icc_profile == picture.icc_profile
    assert found.dpi == pytest.approx((300, 300), abs=0.01)
    if picture.alpha is not None and found.alpha is not None:
        np.testing.assert_array_equal(found.alpha, picture.alpha)
    assert (found.alpha is not None) == alpha
    if channels == 3:
        # A second decoder agrees, and no row is larger than unfiltered.
        cv2 = pytest.importorskip("cv2")
        other = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(other[..., [2, 1, 0]], picture.pixels)


def test_cmyk_is_converted_by_its_profile_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(COLOUR).convert("CMYK").save(path, quality=100)
    picture = read_picture(path)
    assert np.abs(picture.pixels.astype(int) - COLOUR).mean() < 6
    assert f"{path}: CMYK, converted to RGB without a colour profile" in caplog.text
    Image.fromarray(COLOUR).convert("CMYK").save(path, icc_profile=SRGB)
    with pytest.raises(UserError, match=r"a\.jpg: its CMYK profile cannot be used"):
        read_picture(path)


def test_a_profile_of_other_channels_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.jpg", icc_profile=SRGB)
    assert read_picture(tmp_path / "a.jpg").icc_profile is None
    assert "its colour profile is not one of grey; left out" in caplog.text


def animated(path: Path) -> None:
    image = Image.fromarray(COLOUR)
    image.save(path, save_all=True, append_images=[image.rotate(180)], duration=100)


KINDS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "animated.png": (animated, "is animated or has pages (2 frames)"),
    "animated.webp": (animated, "is animated or has pages (2 frames)"),
    "float.tif": (lambda path: Image.fromarray(GREY.astype(np.float32)).save(path), "depth other than 8 or 16 bits"),
    "int.tif": (lambda path: Image.fromarray(GREY.astype(np.int32)).save(path), "depth other than 8 or 16 bits"),
    "lab.tif": (lambda path: Image.fromarray(COLOUR).convert("LAB").save(path), "colour mode LAB, allowed are 1, L"),
}


@pytest.mark.parametrize("name", KINDS)
def test_other_kinds_are_refused_by_name_in_both_ways(tmp_path: Path, name: str) -> None:
    make, told = KINDS[name]
    path = tmp_path / name
    make(path)
    with pytest.raises(UserError) as by_file:
        read_picture(path)
    with Image.open(path) as image, pytest.raises(UserError) as by_image:
        from_pillow(image)
    assert str(by_file.value) == str(by_image.value)
    assert told in str(by_file.value)
    assert str(by_file.value).startswith(f"{path}: ")


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(UserError, match=r"image of mode RGB: has no pixels \(0x4\)"):
        from_pillow(Image.new("RGB", (0, 4)))


def test_16_bits_that_pillow_would_halve_are_not_taken_silently(tmp_path: Path) -> None:
    write_picture(Picture(deep(COLOUR)), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        with pytest.raises(UserError, match="has more than 8 bits a channel, of which Pillow reads 8"):
            from_pillow(image)
        image.load()
        assert from_pillow(image).pixels.dtype == np.uint8
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(tmp_path / "a.tif"), deep(COLOUR))
    with pytest.raises(
        UserError, match=r"a\.tif: has more than 8 bits a channel and colour, read from PNG and not from TIFF"
    ):
        read_picture(tmp_path / "a.tif")
    (tmp_path / "a.ppm").write_bytes(b"P6 30 20 65535\n" + deep(COLOUR).astype(">u2").tobytes())
    assert cv2.imwrite(str(tmp_path / "deep.jp2"), deep(photo(80, 120)))  # its encoder needs as many pixels
    assert cv2.imwrite(str(tmp_path / "flat.jp2"), photo(80, 120))
    for name, refused in (("a.ppm", True), ("deep.jp2", True), ("flat.jp2", False)):
        with Image.open(tmp_path / name) as image:
            assert has_sixteen_bits(image) == refused, name
            if refused:
                with pytest.raises(UserError, match="has more than 8 bits a channel and colour"):
                    from_pillow(image)
            else:
                assert from_pillow(image).pixels.shape == (80, 120, 3)


def test_damaged_exif_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    image = Image.fromarray(COLOUR)
    image.info["exif"] = exif.tobytes()[:-9]
    picture = from_pillow(image)
    assert picture.exif is None or b"Maker\0" not in picture.exif
    assert not caplog.text
    image = Image.fromarray(COLOUR)
    image.info["exif"] = b"Exif\0\0nonsense"
    picture = from_pillow(image)
    np.testing.assert_array_equal(picture.pixels, COLOUR)
    assert picture.exif is None
    assert "image of mode RGB: damaged EXIF, left out" in caplog.text


def test_hidden_colours_are_those_around_them() -> None:
    """Whatever stands under transparent pixels, the fill is the same, smooth, and leaves what is seen."""
    height, width = 1043, 61  # more rows than are filled at a time
    row = np.linspace(60, 180, width).astype(np.uint8)
    ramp = np.broadcast_to(row[None, :, None], (height, width, 3))
    alpha = np.full((height, width), 255, dtype=np.uint8)
    alpha[400:620, 12:40] = 0
    alpha[0, 0] = 1
    filled = []
    for hidden in (0, 255):
        pixels = ramp.copy()
        pixels[alpha == 0] = hidden
        filled.append(fill_transparent(pixels, alpha))
    np.testing.assert_array_equal(filled[0], filled[1])
    np.testing.assert_array_equal(filled[0][alpha > 0], ramp[alpha > 0])
    assert np.abs(filled[0].astype(int) - ramp)[:, 10:42].max() < 40  # no jump to 0 or 255
    edge = np.abs(filled[0].astype(int) - ramp)[395:625, [12, 39]]
    assert edge.max() <= 6
    opaque = np.full_like(alpha, 255)
    assert fill_transparent(filled[0], opaque) is filled[0]
    assert fill_transparent(filled[0], np.zeros_like(alpha)) is filled[0]
