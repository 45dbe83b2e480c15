"""Files that are whole or absent, on the disk and not only in its cache."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

# Of `whole_file`, and the random ones of safetensors, by which srgan-dist 0.1 wrote weights.
_LEFTOVER = re.compile(r"\..+\.tmp|\.tmp\w{6}")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file so that its name appears, or changes, only when its content is on the disk.

    Args:
        path: The file.

    Yields:
        Where to write it meanwhile: a name beside it. It is gone after an exception.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        sync_file(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def clear_leftovers(folder: Path) -> None:
    """Remove what processes that were killed while writing a whole file left in a folder; nobody may be writing there.

    Args:
        folder: The folder; it need not exist.
    """
    for path in folder.glob(".*"):
        if _LEFTOVER.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file, whole or not at all; see `whole_file`."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sync(file: IO[Any]) -> None:
    """Wait until what was written to an open file is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: str | Path) -> str:
    """The SHA-256 of a file's content in hexadecimal, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
