"""A folder that one process at a time holds."""

from __future__ import annotations

import errno
import multiprocessing
import os
import platform
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pytest

from srgan_dist.utils.locks import LOCK_NAME, FolderLock, is_held


def test_a_second_one_is_told_who_holds_it_until_it_is_released(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path / "a/b"), FolderLock(tmp_path / "a/b")
    assert first.acquire() is None
    assert str(second.acquire()).startswith(f"process {os.getpid()} on ")
    first.release()
    assert list(tmp_path.iterdir()) == []  # nothing was put there
    assert second.acquire() is None
    (tmp_path / "a/b/kept").touch()
    second.release()
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["kept"]


def test_a_failed_attempt_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            FolderLock(tmp_path).acquire()
    lock = FolderLock(tmp_path)
    assert lock.acquire() is None
    lock.release()


def hold(folder: Path, child_of: Connection) -> None:
    assert FolderLock(folder).acquire() is None
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(300,))
    child.start()  # such as a loader worker, which lives on
    child_of.send(child.pid)
    time.sleep(300)


def test_it_ends_with_its_process_and_not_with_its_children(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    here, there = context.Pipe()
    process = context.Process(target=hold, args=(tmp_path, there))
    process.start()
    child = psutil.Process(here.recv())
    lock = FolderLock(tmp_path)
    assert str(lock.acquire()).startswith(f"process {process.pid} on ")
    process.kill()
    process.join()
    assert child.is_running()
    assert (tmp_path / LOCK_NAME).exists()
    assert lock.acquire(patience=60) is None
    lock.release()
    child.kill()


def test_a_renamed_folder_is_let_go(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "run")
    assert lock.acquire() is None
    lock.rename(tmp_path / "run.1")
    assert list((tmp_path / "run.1").iterdir()) == []
    assert lock.acquire() is None
    lock.release()


def test_whether_it_is_held_is_asked_without_holding_it(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "none")
    lock = FolderLock(tmp_path)
    assert lock.acquire() is None
    assert is_held(tmp_path)
    assert is_held(tmp_path)
    lock.release()
    (tmp_path / LOCK_NAME).write_text('{"host": "elsewhere", "process": 1}')  # left by a process that was killed
    assert not is_held(tmp_path)


@pytest.mark.parametrize(
    ("content", "held"),
    [
        ('{"host": "HERE", "process": 2147483647}', False),
        ('{"host": "HERE", "process": PID}', True),
        ('{"host": "elsewhere", "process": 2147483647}', True),
        ("[" * 4000, True),
    ],
)
def test_without_locks_the_file_says_whether_it_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, held: bool
) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    content = content.replace("HERE", platform.node()).replace("PID", str(os.getpid()))
    (tmp_path / LOCK_NAME).write_text(content)
    assert is_held(tmp_path) is held
