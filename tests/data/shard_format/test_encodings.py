"""Each encoding of a member, and the images that a shard may not hold."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from srgan_dist.data.shard_format.encodings import ENCODINGS, decode, encode, read_size, suffixes
from tests.imaging.test_read import bad_files

Maker = Callable[..., NDArray[np.uint8]]


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_lossless_encodings_are_exact(make_image: Maker, suffix: str) -> None:
    image = make_image(37, 51)
    data = encode(image[:, ::-1], suffix)  # a view with other strides
    np.testing.assert_array_equal(decode(data), image[:, ::-1])
    assert encode(image[:, ::-1], suffix) == data
    assert read_size(data, suffix) == (37, 51)


def test_jpeg_is_close_and_raw_is_npy(make_image: Maker) -> None:
    image = make_image(40, 56)
    assert np.abs(decode(encode(image, "jpg")).astype(int) - image).mean() < 8
    assert read_size(encode(image, "jpg"), "jpg") == (40, 56)
    np.testing.assert_array_equal(np.load(io.BytesIO(encode(image, "npy"))), image)
    assert read_size(encode(image, "npy"), "npy") == (40, 56)


def test_grey_and_palette_members_decode_to_rgb(make_image: Maker) -> None:
    rgb = Image.fromarray(make_image(20, 30))
    for image, kind in [(rgb.convert("L"), "JPEG"), (rgb.convert("L"), "PNG"), (rgb.quantize(16), "PNG")]:
        buffer = io.BytesIO()
        image.save(buffer, format=kind)
        found = decode(buffer.getvalue())
        assert found.shape == (20, 30, 3)
        if kind == "PNG":
            np.testing.assert_array_equal(found, np.array(image.convert("RGB")))


def test_every_encoding_has_suffixes_that_encode_knows(make_image: Maker) -> None:
    assert ENCODINGS == ("raw", "png", "webp", "jpeg")
    for encoding in ENCODINGS:
        for suffix in suffixes(encoding):
            assert read_size(encode(make_image(8, 12), suffix), suffix) == (8, 12)


def test_an_image_that_is_larger_than_the_index_says_is_not_decoded(
    make_image: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(make_image(64, 48), "png")
    assert decode(data, below=(65, 49)).shape == (64, 48, 3)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    with pytest.raises(ValueError, match="is 64x48, expected less than 65x48"):
        decode(data, below=(65, 48))


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_truncated_and_unknown_data_is_refused(make_image: Maker, suffix: str) -> None:
    data = encode(make_image(64, 64), suffix)
    for part in (b"", data[:10], data[: len(data) // 2], b"nonsense" * 40):
        with pytest.raises(ValueError, match=r"(?i)it is no PNG, JPEG or WEBP file|truncated|broken|decode|failed"):
            decode(part)
    for part in (b"", b"nonsense" * 40):
        with pytest.raises(ValueError, match="is not an image"):
            read_size(part, suffix)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("16-bit-grey.png", "more than 8 bits a channel"),
        ("16-bit-rgb.png", "more than 8 bits a channel"),
        ("cmyk.jpg", "colour mode CMYK"),
        ("animated.webp", "2 frames"),
    ],
)
def test_images_that_a_shard_may_not_hold_are_refused(make_image: Maker, name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_size(bad_files(make_image(40, 40))[name], name.rpartition(".")[2])
