"""Cutting an image into tiles: their places, their detail, and JPEGs that are kept as they are."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from srgan_dist.data.packing.pairing import Source
from srgan_dist.data.packing.tiles import TileOptions, cut_image, detail, overlapping, split_side
from srgan_dist.data.shard_format.encodings import decode
from srgan_dist.errors import UserError
from srgan_dist.imaging.resize import downscale, modcrop

Maker = Callable[..., NDArray[np.uint8]]

WHOLE = TileOptions(scale=4, tile=None, stride=None, min_detail=0, encoding="jpeg")


@pytest.mark.parametrize(
    ("length", "tile", "scale", "edges"),
    [
        (480, 480, 4, [0, 480]),
        (484, 480, 4, [0, 240, 484]),
        (2040, 480, 4, [0, 408, 816, 1224, 1632, 2040]),
        (4, 480, 4, [0, 4]),
        (21, 6, 3, [0, 3, 9, 15, 21]),
    ],
)
def test_sides_are_split_at_the_expected_edges(length: int, tile: int, scale: int, edges: list[int]) -> None:
    assert split_side(length, tile=tile, scale=scale) == edges


def test_overlapping_tiles_of_known_sides() -> None:
    assert overlapping(480, tile=480, stride=240, scale=4) == [(0, 480)]
    assert overlapping(100, tile=480, stride=240, scale=4) == [(0, 100)]
    assert overlapping(960, tile=480, stride=240, scale=4) == [(0, 480), (240, 720), (480, 960)]
    assert overlapping(484, tile=480, stride=240, scale=4) == [(0, 480), (4, 484)]


@given(
    units=st.integers(1, 700), tile_units=st.integers(1, 200), stride_units=st.integers(1, 200), scale=st.integers(1, 4)
)
def test_overlapping_tiles_cover_the_side(units: int, tile_units: int, stride_units: int, scale: int) -> None:
    length, tile, stride = units * scale, tile_units * scale, min(stride_units, tile_units) * scale
    spans = overlapping(length, tile=tile, stride=stride, scale=scale)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(end - begin == min(tile, length) for begin, end in spans)
    assert all(0 < later[0] - earlier[0] <= stride for earlier, later in pairwise(spans))
    assert all(begin % scale == 0 for begin, _ in spans)


def test_detail_is_the_mean_difference_of_neighbours() -> None:
    assert detail(np.full((20, 30, 3), 77, dtype=np.uint8)) == 0
    ramp = np.arange(0, 100, 2, dtype=np.uint8)[None, :, None].repeat(20, 0).repeat(3, 2)
    assert detail(ramp) == pytest.approx((2 + 0) / 2)
    green = np.zeros((2, 2, 3), dtype=np.uint8)
    green[:, 1, 1] = 100
    assert detail(green) == pytest.approx(58.7 / 2)
    assert detail(green[:1, :1]) == 0


def test_a_jpeg_is_kept_byte_by_byte(tmp_path: Path, make_image: Maker) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(make_image(61, 83)).save(path, quality=88, subsampling=2)
    cut = cut_image(Source("a", path, None), WHOLE)
    assert not cut.reencoded
    assert [sample.key for sample in cut.samples] == ["a"]
    assert cut.samples[0].hr == path.read_bytes()
    expected = downscale(modcrop(np.array(Image.open(path)), 4), 4)
    assert cut.samples[0].lr.startswith(b"\x89PNG")
    np.testing.assert_array_equal(decode(cut.samples[0].lr), expected)


@pytest.mark.parametrize("kind", ["turned", "grey", "phone", "png"])
def test_only_upright_jpegs_are_kept_as_they_are(tmp_path: Path, make_image: Maker, kind: str) -> None:
    image = Image.fromarray(make_image(40, 60))
    path = tmp_path / ("a.png" if kind == "png" else "a.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6 if kind == "turned" else 1
    match kind:
        case "phone":
            image.save(path, format="MPO", save_all=True, append_images=[image.resize((20, 16))])
        case "grey":
            image.convert("L").save(path)
        case _:
            image.save(path, exif=exif)
    cut = cut_image(Source("a", path, None), WHOLE)
    assert cut.reencoded == (kind in ("turned", "png"))
    assert (cut.samples[0].hr == path.read_bytes()) == (not cut.reencoded)
    hr = decode(cut.samples[0].hr)
    assert hr.shape == ((60, 40, 3) if kind == "turned" else (40, 60, 3))
    # Whatever was lost was lost before the pair was made.
    np.testing.assert_array_equal(decode(cut.samples[0].lr), downscale(hr, 4))


def test_a_file_whose_size_changed_during_a_pack_is_named(tmp_path: Path, make_image: Maker) -> None:
    Image.fromarray(make_image(40, 60)).save(tmp_path / "a.png")
    Image.fromarray(make_image(10, 16)).save(tmp_path / "lr.png")
    tile_options = TileOptions(scale=4, tile=40, stride=None, min_detail=0, encoding="raw")
    with pytest.raises(UserError, match=r"lr\.png: is 10x16"):
        cut_image(Source("a", tmp_path / "a.png", tmp_path / "lr.png"), tile_options)
