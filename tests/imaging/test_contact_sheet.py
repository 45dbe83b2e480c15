"""Contact sheets: every crop under its label, and the most detailed part of an image."""

from __future__ import annotations

import numpy as np

from srgan_dist.imaging.contact_sheet import busiest_crop, contact_sheet, find_crops


def test_every_crop_is_on_the_sheet_unchanged() -> None:
    crops = [[np.full((32, 32, 3), 40 * row + 20 * column, np.uint8) for column in range(3)] for row in range(2)]
    sheet = np.asarray(contact_sheet(["LR", "SR", "HR"], crops))
    for row in range(2):
        for column in range(3):
            value = 40 * row + 20 * column
            assert (sheet == value).all(axis=2).sum() >= 32 * 32
    assert (sheet[:20] < 128).any()  # the labels


def test_the_crops_of_a_sheet_are_found_again_and_a_photograph_is_none() -> None:
    random = np.random.default_rng(0)
    crops = [[random.integers(0, 255, (32, 32, 3), np.uint8) for _ in range(4)] for _ in range(2)]
    sheet = np.asarray(contact_sheet(["LR", "bicubic", "pgq", "HR"], crops))
    found = find_crops(sheet, columns=4)
    assert found
    side, rows = found
    for row, places in zip(crops, rows, strict=True):
        for crop, (top, left) in zip(row, places, strict=True):
            assert np.array_equal(sheet[top : top + side, left : left + side], crop)
    assert find_crops(sheet, columns=5) is None
    for other in (sheet[:-1], sheet[:, :-1], sheet[:20], sheet[:, :4], np.zeros_like(sheet)):
        assert find_crops(other, columns=4) is None


def test_the_crop_with_most_detail_is_chosen() -> None:
    image = np.full((100, 120, 3), 128, np.uint8)
    image[40:60, 80:100] = np.random.default_rng(0).integers(0, 255, (20, 20, 3))
    top, left = busiest_crop(image, side=24, multiple=4)
    assert top % 4 == left % 4 == 0
    assert 36 <= top <= 40
    assert 76 <= left <= 80


def test_the_whole_image_is_a_crop() -> None:
    assert busiest_crop(np.zeros((32, 32, 3), np.uint8), side=32, multiple=4) == (0, 0)
