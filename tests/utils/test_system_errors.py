"""What the machine lacks is named, with what to do about it."""

from __future__ import annotations

import errno

import pytest

from srgan_dist.utils.system_errors import explain


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), "/a/b: No space left on device; free some space"),
        (OSError(errno.ENOSPC, "No space left on device"), "PLACE: No space left on device; free some space"),
        (
            OSError(errno.EMFILE, "Too many open files", "x"),
            "x: Too many open files; allow more open files (ulimit -n)",
        ),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files; allow more open files (ulimit -n)"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "x: Permission denied; change its permissions"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "PLACE/x"), "PLACE/x: is gone, or the folder"),
        (OSError(errno.EIO, "Input/output error", "x"), "x: Input/output error; have the disk checked"),
        (
            RuntimeError("unable to write to file </torch_1_2_3>: No space left on device (28)"),
            "/dev/shm: No space left on device; enlarge it (docker --shm-size",
        ),
        (
            RuntimeError(
                "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
                '  File "x"\nRuntimeError: unable to open shared memory object </torch_1_2_3> in read-write mode: '
                "Too many open files (24)\n"
            ),
            "/dev/shm: Too many open files; allow more open files (ulimit -n)",
        ),
    ],
)
def test_the_real_cause_is_named(error: Exception, expected: str) -> None:
    told = explain(error, "PLACE")
    assert told
    assert told.startswith(expected)
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "x"),  # a mistake of ours: with its traceback
        OSError("one argument"),
        RuntimeError("shapes differ\nin two lines"),
        RuntimeError("No space left on device"),
        ValueError("shared memory: Too many open files"),
    ],
)
def test_other_errors_are_not_explained(error: Exception) -> None:
    assert explain(error, "PLACE") is None
