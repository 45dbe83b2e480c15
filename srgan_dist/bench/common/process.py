"""The parent side of a benchmark: starts a process, gives it orders over a socket, and ends it."""

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

_WARM_UP = 2  # cycles: the first one runs with cold caches, compilers and allocators
_END_SECONDS = 20.0


class Process:
    """A process, or several ranks, that carry out orders.

    Args:
        work: A function of a module; it is called in the process with the name of a JSON file that holds ``spec`` and
            ``address``, the socket to connect to.
        folder: An empty folder.
        spec: The specification of the work.
        ranks: Number of ranks.
        num_patches: Number of patches that it processes at a time.
        scale: Factor on the seconds of a cycle.

    Raises:
        Failure: The process ended before it connected.
    """

    def __init__(
        self,
        work: Callable[[str], None],
        folder: Path,
        spec: Mapping[str, Any],
        *,
        ranks: int,
        num_patches: int,
        scale: float = 1.0,
    ) -> None:
        self.num_patches, self._scale, self._errors = num_patches, scale, folder / "stderr"
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
        """End the process and all its ranks."""
        with suppress(BrokenPipeError):
            self._connection.send(END)
        self._connection.close()
        self._end()

    def _end(self) -> None:
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.terminate()  # of several ranks this is the launcher, which ends them
            self._process.wait()

    def ask(self, order: str) -> Any:
        """Give an order and wait for the answer.

        Raises:
            Failure: The process reported a failure, or ended.
        """
        with suppress(BrokenPipeError):  # it has ended; its message is received below
            self._connection.send(order)
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._gone() from None
        if isinstance(answer, str):
            raise Failure(answer)
        return answer * self._scale if order == CYCLE else answer

    def warm_up(self) -> None:
        """Run cycles until caches, compilers and allocators are warm."""
        for _ in range(_WARM_UP):
            self.ask(CYCLE)
