"""Files and folders that one process at a time holds, on a file system that nodes share, too."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from srgan_dist.utils import strict_json
from srgan_dist.utils.files import check_is_file

log = logging.getLogger("srgan_dist")

LOCK_NAME = ".lock"
_INTERVAL = 0.1  # seconds between two attempts


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[int | None]:
    """Hold the file that exists under a name, made where it is missing, for this process alone.

    Args:
        path: The file.
        wait: Wait for another process that holds it.

    Yields:
        Its descriptor, open for reading and writing; None where another process holds it and there is no waiting.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if not _lock(descriptor, wait=wait):
                yield None
                return
            if _is_still(path, descriptor):  # not renamed or removed while we waited
                yield descriptor
                return
        finally:
            # Unlocked by name: a process forked meanwhile still has a copy of the descriptor.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def is_held(folder: Path) -> bool:
    """Whether a process holds a folder by a `FolderLock` now; it is not disturbed, and nothing is written.

    On a file system without locks the file alone says so, unless it is of a process of this host that has ended.
    """
    path = folder / LOCK_NAME
    try:
        check_is_file(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # none, or not ours to read
        return False
    try:
        # Shared, and let go at once: a run that begins now is patient, and another reader is not in the way.
        return not _lock(descriptor, wait=False, shared=True)
    except OSError:
        return not _has_ended(descriptor)
    finally:
        os.close(descriptor)


class FolderLock:
    """Holds a folder for this process, until it is released or the process ends, however it ends.

    The folder's file ``.lock`` is locked, and says who does so. ``flock`` rather than ``lockf``: the latter would let a
    second thread of this process in, and lose the lock with any other descriptor of the file; forked children, such as
    loader workers, close theirs at once instead.

    Args:
        folder: Made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor: int | None = None
        self._made: list[Path] = []

    def acquire(self, *, patience: float = 0.0) -> str | None:
        """Hold the folder.

        Args:
            patience: Seconds to wait for another process that holds it.

        Returns:
            None where it is held now, or who holds it: host, process and since when.

        Raises:
            OSError: The folder cannot be made or written.
        """
        deadline = time.monotonic() + patience
        while True:
            self._make_folder()
            path = self.folder / LOCK_NAME
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except FileNotFoundError:  # renamed meanwhile, by the process that held it
                continue
            try:
                is_free = self._lock(path, descriptor)
                if is_free and _is_still(path, descriptor):  # not renamed or removed by the process that held it
                    self._keep(descriptor)
                    return None
                if not is_free and time.monotonic() > deadline:
                    self._made = []
                    return _holder(descriptor)
            finally:
                if descriptor != self._descriptor:
                    os.close(descriptor)
            time.sleep(_INTERVAL)

    def release(self) -> None:
        """Let the folder go, wherever it was renamed to; folders that were made for it and are empty are removed."""
        if self._descriptor is None:
            return
        path = self.folder / LOCK_NAME
        if _is_still(path, self._descriptor):
            path.unlink()
            with contextlib.suppress(OSError):  # not empty: it was used
                for folder in reversed(self._made):
                    folder.rmdir()
        self._close()

    def rename(self, target: Path) -> None:
        """Give the folder another name, and let it go."""
        self.folder.rename(target)
        (target / LOCK_NAME).unlink()
        self._close()

    def _make_folder(self) -> None:
        missing = [path for path in (self.folder, *self.folder.absolute().parents) if not path.exists()]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._made = [*reversed(missing)] or self._made

    def _lock(self, path: Path, descriptor: int) -> bool:
        try:
            return _lock(descriptor, wait=False)
        except OSError as error:  # a file system without locks
            log.warning("%s cannot be locked (%s): see to it that nothing else writes there", path, error.strerror)
            return True

    def _keep(self, descriptor: int) -> None:
        facts = {
            "host": platform.node(),
            "process": os.getpid(),
            "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(facts).encode(), 0)
        self._descriptor = descriptor
        os.register_at_fork(after_in_child=self._close)

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _holder(descriptor: int) -> str:
    """Who wrote into the file that it holds it."""
    try:
        return "process {process} on {host}, since {since}".format(**_facts(descriptor))
    except KeyError:  # not written yet
        return "another process"


def _has_ended(descriptor: int) -> bool:
    """Whether the process that wrote that it holds the file was one of this host, and is no more."""
    facts = _facts(descriptor)
    process = facts.get("process")
    if facts.get("host") != platform.node() or type(process) is not int or not 0 < process < 2**31:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # somebody else's
        return False
    return False


def _facts(descriptor: int) -> dict[str, Any]:
    """What the holder wrote into the file; empty where that is not to be read."""
    try:
        facts = strict_json.loads(os.pread(descriptor, 4096, 0).decode())
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _lock(descriptor: int, *, wait: bool, shared: bool = False) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
