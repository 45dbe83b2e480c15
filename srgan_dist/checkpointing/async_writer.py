"""Work of all ranks in the background of training, on whose outcome they agree at step boundaries."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Event, Thread, get_native_id

from safetensors import SafetensorError

from srgan_dist.distributed.runtime import Runtime
from srgan_dist.errors import Failure

log = logging.getLogger("srgan_dist")

# Of a file that cannot be written; torch.save reports a full disk by a RuntimeError.
NOT_WRITTEN = (OSError, RuntimeError, SafetensorError)


class AsyncWriter:
    """Parts of one job, each done by a thread of every rank; no rank begins a part before all have done the last.

    The threads speak to no other rank. All votes are taken in the main thread, by calls that every rank makes at the
    same step boundary, so that none can meet a collective of training.

    Args:
        runtime: The ranks.

    Attributes:
        seconds: How long the last job took, till all ranks knew that it was done.
        given_up: Set when nobody will ask for the job's outcome any more; long parts look at it now and then.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.seconds = 0.0
        self.given_up = Event()
        self._waiting: list[Callable[[], None]] = []
        self._running: Future[None] | None = None

    def start(
        self,
        begin: Callable[[], None],
        parts: Sequence[Callable[[], None]],
        *,
        failure: Failure,
        clean: Callable[[], None],
    ) -> None:
        """Begin a job, after the end of the last one.

        Args:
            begin: What is done here and now, by all ranks before the first part.
            parts: What is done in the background, one after the other.
            failure: Raised on every rank at once where one of them could not do its part: here, or by `poll` or `wait`.
            clean: Called before that.
        """
        self.wait()
        self._waiting, self._failure, self._clean = list(parts), failure, clean
        self._begun = time.monotonic()
        error: Exception | None = None
        try:
            begin()
        except NOT_WRITTEN as problem:
            error = problem
        self._go_on(error)

    def poll(self) -> None:
        """Start the next part, if every rank has finished this one."""
        while self._running and self.runtime.all_agree(self._running.done()):
            self._go_on(self._running.exception())

    def wait(self) -> None:
        """Wait for the end of the job, if there is one."""
        while self._running:
            self._go_on(self._running.exception())

    def give_up(self) -> None:
        """Leave the job alone, without a word to the other ranks."""
        self._waiting, self._running = [], None
        self.given_up.set()

    def _go_on(self, error: BaseException | None) -> None:
        if error and not isinstance(error, NOT_WRITTEN):
            raise error
        if error:
            log.error("%s", error)
        if self.runtime.all_agree(error is None):
            self._running = _in_a_thread(self._waiting.pop(0)) if self._waiting else None
            if not self._running:
                self.seconds = time.monotonic() - self._begun
        else:
            self._waiting, self._running = [], None
            self._clean()
            raise self._failure


def _in_a_thread(part: Callable[[], None]) -> Future[None]:
    # An executor would refuse parts once the main thread has ended, and a run in another thread would fail at its save.
    outcome: Future[None] = Future()

    def run() -> None:
        _yield_to_training()
        try:
            part()
        except BaseException as error:  # noqa: BLE001 - as an executor does: it is raised where the outcome is asked for
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    Thread(target=run, name="srgan-dist save").start()
    return outcome


def _yield_to_training() -> None:
    """Take only the processor time that training leaves: Linux has a priority for each thread."""
    with contextlib.suppress(OSError):  # a courtesy, not a need
        os.setpriority(os.PRIO_PROCESS, get_native_id(), 10)
