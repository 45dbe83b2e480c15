"""Standard output and error that may be closed: `srgan-dist ... 2>&1 | head -1` ends the reading, not the command."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Stream(io.FileIO):
    """Writes to a descriptor; when nobody reads any more, to nowhere.

    Args:
        descriptor: 1 or 2; whoever inherits it writes to nowhere as well from then on.
        must_arrive: Raise other errors, such as a full disk; without it they are ignored, since there is nowhere left
            to report them.
    """

    def __init__(self, descriptor: int, *, must_arrive: bool) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._must_arrive = must_arrive

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if self._must_arrive and not isinstance(error, BrokenPipeError):
                raise OSError(error.errno, error.strerror, "standard output") from None
            return memoryview(data).nbytes


def survive_closed_streams() -> None:
    """Let a command end as it would, with its own exit code, when the readers of its output have left.

    Streams that a caller has replaced are left alone.
    """
    for name, original, descriptor in (("stdout", sys.__stdout__, 1), ("stderr", sys.__stderr__, 2)):
        stream = getattr(sys, name)
        if stream is None:  # closed from the beginning
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
        elif stream is original and isinstance(stream, io.TextIOWrapper) and stream.fileno() == descriptor:
            raw = _Stream(descriptor, must_arrive=name == "stdout")
            lines = stream.line_buffering or name == "stderr"
            wrapper = io.TextIOWrapper(
                io.BufferedWriter(raw), encoding=stream.encoding, errors=stream.errors, line_buffering=lines
            )
            setattr(sys, name, wrapper)
