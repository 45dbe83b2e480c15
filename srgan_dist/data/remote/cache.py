"""A bounded cache of remote files on local disk, shared by all processes of a node.

A file is written as `NAME.part`, locked by whoever downloads it, and renamed once its length and digest are right.
The kernel drops the lock of a process that dies; the next one starts over in the same file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from srgan_dist.data.remote.streams import TransferError, read_pieces
from srgan_dist.errors import Failure, UserError
from srgan_dist.utils.files import locked, sync_folder
from srgan_dist.utils.secrets import shown

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
    """

    url: str
    path: Path
    bytes: int | None
    sha256: str | None


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
            with locked(_part(file.path), wait=wait) as part:
                if part is None:
                    return False
                if self.touch(file):  # the process that we waited for has fetched it
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
            Whether it is in the cache, with the right length.
        """
        try:
            there = file.bytes in (None, file.path.stat().st_size)
            with suppress(PermissionError):  # another user's file; it can still be read
                _mark(file.path)
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
                    self._receive(file, part)
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
        _mark(_part(file.path))
        with locked(self.folder / _LOCK, wait=True):  # processes that count see it under one name only
            _part(file.path).rename(file.path)
        sync_folder(file.path.parent)

    def _receive(self, file: RemoteFile, part: int) -> None:
        length, digest = 0, hashlib.sha256()
        os.lseek(part, 0, os.SEEK_SET)
        for piece in read_pieces(file.url, timeout=self._timeout):
            length += len(piece)
            if file.bytes is not None and length > file.bytes:
                raise TransferError(f"sends more than the {file.bytes} bytes that the manifest says")
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
                            status = path.stat()
                            found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= limit:
                break
            if _remove(path):
                total -= size
        return total <= limit


def _part(path: Path) -> Path:
    return path.with_name(path.name + PART)


def _remove(path: Path) -> bool:
    if path.suffix == PART:  # a download that is not locked was left by a process that died
        with locked(path, wait=False) as part:
            if part is None:
                return False
            path.unlink()
            return True
    path.unlink(missing_ok=True)
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
