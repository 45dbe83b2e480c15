"""A process that is measured: started, told what to do over a socket, and ended."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from srgan_dist.bench.common.child import CYCLE, END
from srgan_dist.errors import Failure

_WARM_UP = 2  # cycles: the first one meets cold caches, compilers and allocators
_END_SECONDS = 20.0


class Process:
    """A process, or several ranks, that work when they are told.

    Args:
        work: a function of a module; it is called in the process with the name of a file of JSON: what the parent
            wants, and ``address``, the socket to connect to.
        folder: an empty one.
        spec: what the parent wants.
        ranks: that do it together.
        crops: that it takes at a time.
        scale: of the seconds of a cycle.

    Raises:
        Failure: it ended before it connected.
    """

    def __init__(
        self,
        work: Callable[[str], None],
        folder: Path,
        spec: Mapping[str, Any],
        *,
        ranks: int,
        crops: int,
        scale: float = 1.0,
    ) -> None:
        self.crops, self._scale, self._errors = crops, scale, folder / "stderr"
        file, address = folder / "spec.json", str(folder / "socket")
        file.write_text(json.dumps({"address": address, **spec}), encoding="utf-8")
        name = work.__name__
        command = [sys.executable, "-c", f"from {work.__module__} import {name}; {name}({str(file)!r})"]
        if ranks > 1:
            several = ["--standalone", f"--nproc-per-node={ranks}", "--no-python"]
            command = [sys.executable, "-m", "torch.distributed.run", *several, *command]
        with self._errors.open("wb") as errors, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
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
