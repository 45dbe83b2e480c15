"""A bounded cache of remote files on local disk, shared by all processes of a node.

A file is written as `NAME.part`, locked by whoever downloads it, and renamed once its length and digest are right.
The kernel drops the lock of a process that dies; the next one starts over in the same file.

Beside a file stands a record: its digest, and its inode, size and times when that was compared. A file that was changed
since is compared again. The record's own time is when the file was last used.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from srgan_dist.data.remote.streams import TransferError, read_pieces
from srgan_dist.errors import Failure, UserError
from srgan_dist.utils.files import file_sha256, sync_folder
from srgan_dist.utils.locks import locked
from srgan_dist.utils.names import beside
from srgan_dist.utils.secrets import shown

log = logging.getLogger("srgan_dist")

PART = ".part"
_LOCK = ".lock"  # held while space is counted, freed and reserved
_MAX_PAUSE = 30.0  # seconds between two tries
_ROOM_TIMEOUT = 300.0  # seconds to wait for other downloads to end where they fill the cache


class RemoteFile(NamedTuple):
    """A file to fetch.

    Attributes:
        url: Its address, see `streams.read_pieces`.
        path: Its place once fetched, in a folder of the cache.
        bytes: Its length, or None where it is not known before the fetch.
        sha256: Its digest in hexadecimal, or None where it is not known.
        max_bytes: The most that it may have, where its length is not known; None for what the cache may hold.
    """

    url: str
    path: Path
    bytes: int | None
    sha256: str | None
    max_bytes: int | None = None


class Cache:
    """Remote files on local disk, with a limit on the shards' total size; the least recently used are evicted.

    Args:
        folder: Created if it is missing; has one folder for each remote folder.
        max_bytes: Limit for all shards together, including those that are being downloaded.
        tries: Attempts for each file, >= 1.
        pause: Seconds before the second attempt; doubled for each further one, and multiplied by a random factor from
            0.5 to 1.5.
        timeout: Seconds that a server may stay silent.
    """

    def __init__(
        self, folder: Path, *, max_bytes: int, tries: int = 6, pause: float = 0.5, timeout: float = 30.0
    ) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._tries, self._pause, self._timeout = tries, pause, timeout

    def fetch(self, file: RemoteFile, *, wait: bool = True, tries: int | None = None) -> bool:
        """Download a file into the cache, unless it is there or another process is downloading it.

        Args:
            file: The file to fetch.
            wait: Whether to wait for another process that downloads it.
            tries: Attempts, instead of those of the cache.

        Returns:
            Whether it is in the cache now; always True with `wait`.

        Raises:
            UserError: It does not exist or is not allowed, or is larger than the cache.
            Failure: All attempts failed, or the disk is full.
        """
        try:
            if self.touch(file):
                return True
            file.path.parent.mkdir(parents=True, exist_ok=True)
            if not os.access(file.path.parent, os.W_OK) and _is_sound(file):  # another user's cache
                return True
            with locked(_part(file.path), wait=wait) as part:
                if part is None:
                    return False
                # By now the process that we waited for may have fetched it.
                if self.touch(file) or _is_sound(file):
                    _part(file.path).unlink()
                else:
                    self._download(file, part, tries or self._tries)
                return True
        except OSError as error:
            raise _disk_failure(file.path, error) from error

    def touch(self, file: RemoteFile) -> bool:
        """Mark a file as just used.

        Args:
            file: The file.

        Returns:
            Whether it is in the cache, unchanged since its digest was compared.
        """
        record = _record(file.path)
        try:
            known = record.read_text(encoding="utf-8", errors="replace")
            sha256 = file.sha256 or known.partition(" ")[0]
            there = known == _describe(file.path, sha256) and file.bytes in (None, file.path.stat().st_size)
            with suppress(OSError):  # another user's file, or a read-only disk; it can still be read
                _mark(record)
        except FileNotFoundError:
            return False
        return there

    def open(self, file: RemoteFile) -> int:
        """Open a file, after fetching it where necessary; an open file can be read even after it is evicted.

        Args:
            file: The file to read.

        Returns:
            A read-only descriptor, to be closed by the caller.

        Raises:
            UserError, Failure: It cannot be fetched; see `fetch`.
        """
        while True:
            self.fetch(file)
            with suppress(FileNotFoundError):  # it was evicted in the meantime
                return os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)

    def _download(self, file: RemoteFile, part: int, tries: int) -> None:
        started = time.monotonic()
        try:
            for number in range(1, tries + 1):
                try:
                    os.ftruncate(part, 0)
                    self._make_room(file, part)
                    sha256 = self._receive(file, part)
                    break
                except TransferError as error:
                    if number == tries:
                        tried = f"{tries} tries in {time.monotonic() - started:.0f} s" if tries > 1 else "1 try"
                        raise Failure(f"{shown(file.url)}: {error}, {tried}") from error
                    pause = min(self._pause * 2 ** (number - 1), _MAX_PAUSE)
                    # Not the global generator: seeding it is up to the user.
                    time.sleep(pause * random.SystemRandom().uniform(0.5, 1.5))
        except BaseException:
            with suppress(FileNotFoundError):
                _part(file.path).unlink()
            raise
        with locked(self.folder / _LOCK, wait=True):  # processes that count see it under one name only
            _part(file.path).rename(file.path)
            _record(file.path).write_text(_describe(file.path, sha256), encoding="utf-8")
        sync_folder(file.path.parent)

    def _receive(self, file: RemoteFile, part: int) -> str:
        length, digest = 0, hashlib.sha256()
        os.lseek(part, 0, os.SEEK_SET)
        for piece in read_pieces(file.url, timeout=self._timeout):
            length += len(piece)
            if file.bytes is not None and length > file.bytes:
                raise TransferError(f"sends more than the {file.bytes} bytes that the manifest says")
            if file.max_bytes is not None and length > file.max_bytes:
                what = f"sends more than {file.max_bytes} bytes, which no {file.path.name} of such data has"
                raise UserError(f"{shown(file.url)}: {what}: correct the URL in data.train")
            if length > self.max_bytes:
                raise UserError(f"{shown(file.url)}: is larger than the cache ({self.max_bytes} bytes): enlarge it")
            digest.update(piece)
            _write_all(part, piece)
        if file.bytes is not None and length != file.bytes:
            raise TransferError(f"sent {length} of {file.bytes} bytes")
        if file.sha256 is not None and digest.hexdigest() != file.sha256:
            raise TransferError(
                f"has sha256 {digest.hexdigest()[:12]}..., the manifest says {file.sha256[:12]}...: it was changed "
                "or damaged at its source"
            )
        os.fsync(part)
        return digest.hexdigest()

    def _make_room(self, file: RemoteFile, part: int) -> None:
        needed = file.bytes or 0
        if needed > self.max_bytes:
            raise UserError(
                f"{shown(file.url)}: has {needed} bytes, more than the cache in {self.folder} may hold "
                f"({self.max_bytes}): enlarge it"
            )
        deadline = time.monotonic() + _ROOM_TIMEOUT
        while time.monotonic() < deadline:
            with locked(self.folder / _LOCK, wait=True):
                if self._evict(self.max_bytes - needed):
                    os.ftruncate(part, needed)  # reserves the space
                    return
            time.sleep(0.2)
        raise Failure(f"{self.folder}: other downloads fill the cache of {self.max_bytes} bytes: enlarge it")

    def _evict(self, limit: int) -> bool:
        found = []
        for folder in self.folder.iterdir():
            # Other processes make and remove folders and files all the time.
            with suppress(FileNotFoundError, NotADirectoryError):
                for path in folder.iterdir():
                    # Indices stay: they are small, and another process may be about to map one.
                    if path.suffix in (PART, ".tar"):
                        with suppress(FileNotFoundError):
                            found.append((_last_used(path), path.stat().st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= limit:
                break
            if _remove(path):
                total -= size
        return total <= limit


def _part(path: Path) -> Path:
    return beside(path, after=PART)


def _remove(path: Path) -> bool:
    if path.suffix == PART:  # a download that is not locked was left by a process that died
        with locked(path, wait=False) as part:
            if part is None:
                return False
            path.unlink()
            return True
    path.unlink(missing_ok=True)
    _record(path).unlink(missing_ok=True)
    return True


def _record(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _describe(path: Path, sha256: str) -> str:
    status = path.stat()
    # The time of the last change of the inode cannot be set, unlike that of the content.
    return f"{sha256} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n"


def _last_used(path: Path) -> int:
    with suppress(FileNotFoundError):
        return _record(path).stat().st_mtime_ns
    return path.stat().st_mtime_ns


def _is_sound(file: RemoteFile) -> bool:
    """Compare a file that is there with its digest, and record that it was; False where that is not known."""
    if file.sha256 is None or not file.path.is_file():
        return False
    before = _describe(file.path, file.sha256)
    if file.bytes not in (None, file.path.stat().st_size) or file_sha256(file.path) != file.sha256:
        log.warning("%s: was changed or damaged in the cache, and is fetched again", file.path)
        return False
    with suppress(OSError):  # likewise
        _record(file.path).write_text(before, encoding="utf-8")
    return True


def _mark(path: Path) -> None:
    now = time.time_ns()  # the kernel's own time stamps have steps of several milliseconds
    os.utime(path, ns=(now, now))


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _disk_failure(path: Path, error: OSError) -> Failure:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = "free some space or make the cache smaller" if full else "check the cache's folder"
    return Failure(f"{path}: cannot be written ({error.strerror}): {what}")
