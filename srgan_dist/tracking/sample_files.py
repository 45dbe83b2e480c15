"""A run's sample pictures: a contact sheet a step, and each image's crops in a folder of its own."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image

from srgan_dist.utils.files import whole_file

log = logging.getLogger("srgan_dist")

REFERENCES = ("lr", "bicubic", "hr")


class SampleFiles:
    """The files of ``samples/``: ``step-000500.png``, ``IMAGE/step-000500.webp``, and once ``IMAGE/hr.webp``.

    Args:
        folder: The folder ``samples`` of the run; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, step: int, sheet: Image.Image, crops: Mapping[str, Image.Image]) -> None:
        """Write the pictures of a step.

        Args:
            step: The training step.
            sheet: The contact sheet.
            crops: The generated crop of each image, by a name that can be a folder's.
        """
        self.folder.mkdir(exist_ok=True)
        with whole_file(self._sheet(step)) as temporary:
            sheet.save(temporary, format="PNG")
        for image, crop in crops.items():
            _write_crop(self._crop(image, step), crop)

    def write_references(self, pictures: Mapping[str, Mapping[str, Image.Image]]) -> None:
        """Write what generated crops are compared with, by the image's name and by one of `REFERENCES`."""
        for image, crops in pictures.items():
            for kind, crop in crops.items():
                _write_crop(self.folder / image / f"{kind}.webp", crop)

    def drop_after(self, step: int) -> None:
        """Remove the pictures of later steps, which will be taken again."""
        for pattern in ("step-*.png", "*/step-*.webp"):
            for path in self.folder.glob(pattern):
                if max(_steps([path]), default=0) > step:
                    path.unlink(missing_ok=True)

    def steps(self) -> list[int]:
        """The steps of which there are pictures, ascending."""
        sheets, crops = self.folder.glob("step-*.png"), self.folder.glob("*/step-*.webp")
        return sorted({step for paths in (sheets, crops) for step in _steps(paths)})

    def sheet(self, step: int) -> Path | None:
        """The contact sheet of a step, if there is one."""
        path = self._sheet(step)
        return path if path.is_file() else None

    def crops(self, step: int) -> dict[str, Path]:
        """The generated crops of a step, by the image's name."""
        return {path.parent.name: path for path in sorted(self.folder.glob(f"*/step-{step:06d}.webp"))}

    def references(self) -> dict[str, dict[str, Path]]:
        """What the crops are compared with, by the image's name and kind."""
        found: dict[str, dict[str, Path]] = {}
        for kind in REFERENCES:
            for path in sorted(self.folder.glob(f"*/{kind}.webp")):
                found.setdefault(path.parent.name, {})[kind] = path
        return found

    def _sheet(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}.png"

    def _crop(self, image: str, step: int) -> Path:
        return self.folder / image / f"step-{step:06d}.webp"


def read_sample(path: Path) -> Image.Image | None:
    """Read a picture that this module has written; None, and a line in the log, where it is damaged or gone."""
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # as Pillow says so
        log.warning("%s: cannot be read, and is left out of the tracker (%s)", path, error)
        return None


def _steps(paths: Iterable[Path]) -> set[int]:
    return {int(found[1]) for path in paths if (found := re.fullmatch(r"step-(\d{1,18})", path.stem))}


def _write_crop(path: Path, crop: Image.Image) -> None:
    """Write a crop without loss, unless it is there already."""
    encoded = io.BytesIO()
    crop.save(encoded, format="WEBP", lossless=True)
    if path.is_file() and path.read_bytes() == encoded.getvalue():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        temporary.write_bytes(encoded.getvalue())
