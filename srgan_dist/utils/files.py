"""Files that are whole or absent, on the disk and not only in its cache."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from srgan_dist.utils.names import beside

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
    temporary = beside(path, before=".", after=".tmp")
    try:
        yield temporary
        sync_file(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def link_or_copy(source: Path, path: Path) -> None:
    """Give a file a second name, or, on a file system without hard links, copy it; whole or not at all.

    Args:
        source: The file.
        path: The other name, which is replaced. It must not be a name of the file already.
    """
    with whole_file(path) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def clear_leftovers(folder: Path) -> None:
    """Remove what processes that were killed while writing a whole file left in a folder; nobody may be writing there.

    Args:
        folder: The folder; it need not exist.
    """
    for path in folder.glob(".*"):
        if _LEFTOVER.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def write_whole(path: Path, text: str, *, private: bool = False) -> None:
    """Write a text file, whole or not at all; see `whole_file`.

    Args:
        path: The file.
        text: Its content.
        private: Let nobody but its owner read it; otherwise the umask decides.
    """
    with whole_file(path) as temporary:
        temporary.unlink(missing_ok=True)  # left by a process that was killed, with other permissions
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if private else 0o666
        )
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)


def check_is_file(path: str | Path) -> None:
    """Refuse what cannot be read to its end: a pipe may wait for ever, and a device such as /dev/zero never ends.

    Raises:
        OSError: There is nothing, or something else than a file; ``strerror`` says what.
    """
    mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(number, f"is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a file", str(path))


def read_file(path: str | Path, *, max_bytes: int, may_be_pipe: bool = False) -> bytes:
    """Read a file that is not meant to be large.

    Args:
        path: The file.
        max_bytes: Most bytes that it may have.
        may_be_pipe: It may be a pipe, of which it is known that somebody writes to it.

    Raises:
        OSError: As `check_is_file`, or it cannot be read, or it is larger.
    """
    if not (may_be_pipe and Path(path).is_fifo()):
        check_is_file(path)
    with open(path, "rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"has more than {max_bytes} bytes", str(path))
    return data


def why_unwritable(folder: Path) -> str | None:
    """Why no file can be made in a folder, or in the nearest one above it that exists; None where one can.

    Permissions do not tell: root has them in /proc as well.
    """
    nearest = folder
    try:
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        return f"{nearest}: {error.strerror}"
    return None


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
