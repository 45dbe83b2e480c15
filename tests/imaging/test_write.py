"""Output formats: an explicit list, what each holds, and how it is written."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from srgan_dist.errors import UserError
from srgan_dist.imaging.picture import Picture
from srgan_dist.imaging.write import FORMATS, check_holds, check_quality, format_of, write_picture
from tests.conftest import photo

COLOUR = photo(40, 52)


@pytest.mark.parametrize("name", ["a.psd", "a.ico", "a.gif", "a.pdf", "a.xyz", "a"])
def test_a_suffix_that_is_not_on_the_list_is_refused_with_the_list(name: str) -> None:
    with pytest.raises(UserError, match=rf"^{name}: cannot be written .*allowed are names in {' '.join(FORMATS)}$"):
        format_of(Path(name))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("upper", [False, True])
def test_every_format_of_the_list_is_written(tmp_path: Path, suffix: str, upper: bool) -> None:
    path = tmp_path / "new" / f"a{suffix.upper() if upper else suffix}"
    write_picture(Picture(COLOUR, np.full((40, 52), 255, dtype=np.uint8)), path)
    with Image.open(path) as image:
        assert (image.format, image.size) == (FORMATS[suffix].name, (52, 40))
        assert image.mode == ("RGBA" if FORMATS[suffix].alpha and suffix != ".webp" else "RGB")
        if not FORMATS[suffix].lossy:
            np.testing.assert_array_equal(np.array(image.convert("RGB")), COLOUR)
    assert [path.name for path in path.parent.iterdir()] == [path.name]


def test_jpeg_is_fine_by_default_and_as_coarse_as_asked_for(tmp_path: Path) -> None:
    sizes = {}
    for quality in (None, 95, 30):
        path = tmp_path / f"{quality}.jpg"
        write_picture(Picture(COLOUR), path, quality=quality)
        sizes[quality] = path.stat().st_size
        with Image.open(path) as image:
            assert {layer[1:3] for layer in image.layer} == {(1, 1)}  # type: ignore[attr-defined]  # 4:4:4
    assert sizes[None] == sizes[95] > 2 * sizes[30]


@pytest.mark.parametrize(
    ("name", "shape", "options", "told"),
    [
        ("a.webp", (20, 16384), {}, r"16384x20 pixels, WEBP holds at most 16383 a side: write .png .jpg .jpeg .tif"),
        ("a.jpg", (65501, 20), {}, r"20x65501 pixels, JPEG holds at most 65500 a side: write .png .tif .tiff .bmp"),
        ("a.jpg", (20, 20), {"bits": 16}, r"16 bits a channel, JPEG holds 8: write .png .tif .tiff$"),
        ("a.webp", (20, 20), {"bits": 16}, r"16 bits a channel, WEBP holds 8: write .png"),
        ("a.tif", (20, 20), {"bits": 16, "channels": 3}, r"16 bits .*, TIFF holds 8 of colour or .*: write .png$"),
        ("a.jpg", (20, 20), {"alpha": True}, r"transparent pixels, JPEG holds none: write .png .webp .tif .tiff"),
        ("a.bmp", (20, 20), {"alpha": True}, r"transparent pixels, BMP holds none"),
        ("a.tif", (40000, 40000), {"channels": 3}, r"4800000000 bytes of pixels, TIFF holds at most .*: write .png"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(
    name: str, shape: tuple[int, int], options: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=f"^{name}: would .*{told}"):
        check_holds(Path(name), *shape, **{"bits": 8, **options})


def test_the_limits_are_those_of_the_encoders(tmp_path: Path) -> None:
    for suffix, side in ((".webp", 16383), (".jpg", 65500)):
        assert FORMATS[suffix].max_side == side
        check_holds(tmp_path / f"a{suffix}", side, 1, bits=8)
        Image.new("L", (side, 1)).save(tmp_path / f"a{suffix}")
        with pytest.raises((ValueError, OSError)):
            Image.new("L", (side + 1, 1)).save(tmp_path / f"b{suffix}")


@pytest.mark.parametrize(("pixels", "told"), [(COLOUR, "transparent"), (COLOUR.astype(np.uint16), "16 bits")])
def test_a_picture_that_does_not_fit_leaves_no_file(tmp_path: Path, pixels: NDArray[Any], told: str) -> None:
    picture = Picture(pixels, np.zeros((40, 52), dtype=pixels.dtype))
    with pytest.raises(UserError, match=told):
        write_picture(picture, tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())


def test_a_quality_is_for_lossy_formats() -> None:
    for quality in (0, 101, -5):
        with pytest.raises(UserError, match=f"--quality is {quality}, allowed are whole numbers from 1 to 100"):
            check_quality(quality, Path("a.jpg"), name="--quality")
    with pytest.raises(UserError, match=r"but PNG is lossless: leave it out, or write one of \.jpg \.jpeg \.webp"):
        check_quality(90, Path("a.png"))
    check_quality(90, Path("a.webp"))
    check_quality(None, Path("a.png"))


def test_what_a_format_leaves_out_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    write_picture(Picture(COLOUR, icc_profile=b"profile", exif=exif.tobytes()), tmp_path / "a.bmp")
    assert "a.bmp: BMP cannot hold the colour profile and the EXIF: left out" in caplog.text


def test_a_full_disk_is_the_machines_lack_and_another_failure_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write_picture(Picture(COLOUR), tmp_path / "a.png")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"a\.png: cannot be written"):
        write_picture(Picture(COLOUR), tmp_path / "file" / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
