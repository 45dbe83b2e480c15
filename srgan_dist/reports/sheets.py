"""The crops in the contact sheets of earlier versions, whose runs have no crops as files of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from srgan_dist.errors import UserError
from srgan_dist.imaging.contact_sheet import find_crops
from srgan_dist.imaging.read import read_rgb
from srgan_dist.reports.crops import Box, Crop, Crops
from srgan_dist.utils.names import printable

_COLUMNS = (4, 5)  # LR, bicubic, SR, HR; after two phases, final.png has a column of the first before SR


def crops_of_sheets(samples: Path, *, scale: int, last_step: int | None, problems: list[str]) -> list[Crops]:
    """Cut the crops out of a run's contact sheets.

    Args:
        samples: The folder of the sheets; it need not exist.
        scale: HR pixels to an LR pixel.
        last_step: Of final.png; None where the run has not come to its end.
        problems: Sheets that cannot be used are appended, one line each.

    Returns:
        The crops of each image, whose name no sheet says.
    """
    sheets = {int(path.stem[5:]): path for path in samples.glob("step-*.png") if path.stem[5:].isdecimal()}
    if last_step is not None and (final := samples / "final.png").is_file():
        sheets.setdefault(last_step, final)
    images: dict[bytes, Crops] = {}
    steps: dict[bytes, dict[int, Crop]] = {}
    for step, path in sorted(sheets.items()):
        try:
            for content, crops, sr in _rows(path, scale):
                images.setdefault(content, crops)
                steps.setdefault(content, {})[step] = sr
        except (UserError, OSError) as error:
            problems.append(f"samples/{path.name}: left out ({printable(str(error))})")
    return [crops._replace(steps=steps[content]) for content, crops in images.items()]


def _rows(path: Path, scale: int) -> Iterator[tuple[bytes, Crops, Crop]]:
    """Of each row: HR's pixels, which tell the images apart, the crops around SR, and SR."""
    sheet = read_rgb(path)
    layouts = [found for columns in _COLUMNS if (found := find_crops(sheet, columns=columns))]
    if len(layouts) != 1:
        raise UserError("it is not laid out as a contact sheet")
    side, rows = layouts[0]
    for row in rows:
        boxes = [Box(top, left, side, side) for top, left in row]
        top, left = row[-1]
        content = sheet[top : top + side, left : left + side].tobytes()
        lr, bicubic, sr, hr = (Crop(path, boxes[at]) for at in (0, 1, -2, -1))
        # The sheet shows each pixel of LR as a square.
        whole = Crop(path, boxes[0]._replace(scale=scale)) if side % scale == 0 else lr
        yield content, Crops(None, whole, bicubic, hr, {}), sr
