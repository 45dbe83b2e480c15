"""A process that is measured: started, told what to do over a socket, and ended."""

from __future__ import annotations

import socket
import subprocess
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from srgan_dist.bench.step_child import CYCLE, END
from srgan_dist.errors import Failure

SOCKET = "socket"
_WARM_UP = 2  # cycles: the first one meets cold caches, compilers and allocators
_END_SECONDS = 20.0


class Process:
    """A process, or several ranks, that work when they are told.

    Args:
        command: starts it; it connects to `SOCKET` in the folder.
        folder: an empty one.
        crops: that it takes at a time.
        scale: of the seconds of a cycle.

    Raises:
        Failure: it ended before it connected.
    """

    def __init__(self, command: list[str], folder: Path, *, crops: int, scale: float) -> None:
        self.crops, self._scale, self._errors = crops, scale, folder / "stderr"
        with self._errors.open("wb") as errors, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / SOCKET))
            listener.listen()
            self._process = subprocess.Popen(command, stderr=errors)
            try:
                self._connection = self._accept(listener)
            except BaseException:
                self._end()
                raise

    def _accept(self, listener: socket.socket) -> Connection:
        listener.settimeout(1.0)
        while True:
            try:
                return Connection(listener.accept()[0].detach())
            except TimeoutError:
                if self._process.poll() is not None:
                    raise self._gone() from None

    def _gone(self) -> Failure:
        lines = self._errors.read_text(encoding="utf-8", errors="replace").split("\n")
        said = [line for line in lines if line.strip()][-1:]
        return Failure(": ".join([f"its process ended with code {self._process.wait()}", *said]))

    def close(self) -> None:
        """End it, and all its ranks."""
        with suppress(BrokenPipeError):
            self._connection.send(END)
        self._connection.close()
        self._end()

    def _end(self) -> None:
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.terminate()  # several ranks have a parent of their own, which ends them
            self._process.wait()

    def ask(self, order: str) -> Any:
        """Give an order and wait for the answer.

        Raises:
            Failure: it cannot be done.
        """
        with suppress(BrokenPipeError):  # it ended, and has left word
            self._connection.send(order)
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._gone() from None
        if isinstance(answer, str):
            raise Failure(answer)
        return answer * self._scale if order == CYCLE else answer

    def warm_up(self) -> None:
        """Run until nothing happens for the first time any more."""
        for _ in range(_WARM_UP):
            self.ask(CYCLE)
