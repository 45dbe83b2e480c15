"""Contact sheets: crops side by side, with a label above each column."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_MARGIN = 6
_LABEL = 18
_WHITE = 255


def contact_sheet(labels: Sequence[str], rows: Sequence[Sequence[NDArray[np.uint8]]]) -> Image.Image:
    """Lay out crops of the same size in a grid.

    Args:
        labels: Text above each column.
        rows: For each row, one crop [S, S, 3] uint8 for each column, all with the same S.

    Returns:
        The picture, on a white background.
    """
    side = rows[0][0].shape[0]
    cell = side + _MARGIN
    size = (_MARGIN + cell * len(labels), _MARGIN + 2 * _LABEL + cell * len(rows) - _LABEL)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_LABEL - 4)
    for column, label in enumerate(labels):
        draw.text(
            (_MARGIN + cell * column + side // 2, _LABEL // 2 + 3),
            label,
            fill="black",
            font=font,
            anchor="mm",
        )
        for row, crops in enumerate(rows):
            sheet.paste(Image.fromarray(crops[column]), (_MARGIN + cell * column, _MARGIN + _LABEL + cell * row))
    return sheet


def find_crops(sheet: NDArray[np.uint8], *, columns: int) -> tuple[int, list[list[tuple[int, int]]]] | None:
    """Find the crops in a picture that `contact_sheet` laid out.

    Args:
        sheet: uint8 [H, W, 3].
        columns: How many it has.

    Returns:
        Their side in pixels, and of each row the top and left of each crop; None where the picture is no such sheet.
    """
    grid = sheet[_MARGIN + _LABEL :, _MARGIN:]  # each crop has a margin to its right and below
    cell, rest = divmod(grid.shape[1], columns)
    if rest or cell <= _MARGIN or not len(grid) or len(grid) % cell:
        return None
    margins = np.arange(max(grid.shape)) % cell >= cell - _MARGIN
    if not ((grid[margins[: len(grid)]] == _WHITE).all() and (grid[:, margins[: grid.shape[1]]] == _WHITE).all()):
        return None
    tops = range(_MARGIN + _LABEL, len(sheet), cell)
    lefts = range(_MARGIN, sheet.shape[1], cell)
    return cell - _MARGIN, [[(top, left) for left in lefts] for top in tops]


def busiest_crop(image: NDArray[np.uint8], *, side: int, multiple: int) -> tuple[int, int]:
    """Find the most detailed part of an image.

    Args:
        image: uint8 [H, W, 3].
        side: Side of the crop, in pixels, at most H and W.
        multiple: Top and left are multiples of this.

    Returns:
        Top and left of the square with the largest sum of absolute differences between neighbours.
    """
    grey = image.astype(np.int32).sum(axis=2)
    detail = np.zeros(grey.shape, dtype=np.int64)
    detail[1:, :] += np.abs(np.diff(grey, axis=0))
    detail[:, 1:] += np.abs(np.diff(grey, axis=1))
    sums = np.pad(detail.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    boxes = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    boxes = boxes[::multiple, ::multiple]
    top, left = np.unravel_index(int(boxes.argmax()), boxes.shape)
    return int(top) * multiple, int(left) * multiple
