"""The child side of a benchmark: a process that trains step by step, as its parent orders."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any, TypeVar

import torch

from srgan_dist.bench.common.timeline import Timeline, observe
from srgan_dist.checkpointing.manager import Checkpoints
from srgan_dist.config.root import Config
from srgan_dist.data.loading.loader import BatchStream
from srgan_dist.data.loading.pairs import Batch
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.distributed.signals import StopSignals
from srgan_dist.errors import Failure, UserError
from srgan_dist.tracking.console import console
from srgan_dist.tracking.run_logger import RunLogger
from srgan_dist.training.build import build_trainer

CYCLE, PARTS, PEAK, END = "cycle", "parts", "peak", "end"
AnyRuntime = TypeVar("AnyRuntime", bound=Runtime)


class Ended(BaseException):
    """The parent has no more orders. No error, of which the trainer would save everything."""


class Orders:
    """Receives the parent's orders and sends the answers.

    Args:
        connection: The connection to the parent; None on all ranks but the first, which they follow.
        runtime: This process's runtime.
        timeline: Measures the parts of a step.
        steps: Number of steps in a cycle.
    """

    def __init__(self, connection: Connection | None, runtime: Runtime, timeline: Timeline, *, steps: int) -> None:
        self.connection, self.runtime, self.timeline, self.steps = connection, runtime, timeline, steps
        self._order = ""
        self._left = 0
        self._started = 0.0

    def wait(self) -> None:
        """Answer the current order if it is done, and wait for the next one; to be called between steps.

        Raises:
            Ended: There are no more orders; raised on all ranks.
        """
        if self.runtime.any_rank(self.connection is not None and self._is_last(self.connection)):
            raise Ended

    def _is_last(self, connection: Connection) -> bool:
        if self._left:
            self._left -= 1
            if not self._left:
                synchronize(self.runtime)
                seconds = time.perf_counter() - self._started
                connection.send(self.timeline.stop() if self._order == PARTS else seconds)
        while not self._left:
            try:
                self._order = connection.recv()
            except EOFError:  # the parent has ended
                return True
            if self._order == END:
                return True
            if self._order == PEAK:
                connection.send(self.runtime.peak_memory_gib())
                continue
            self._left = self.steps
            if self._order == PARTS:
                self.timeline.start()
            synchronize(self.runtime)
            self._started = time.perf_counter()
        return False


class Gate(Iterator[Batch]):
    """Passes on global batches one by one, each when the parent orders the next step.

    Args:
        batches: The trainer's stream.
        orders: The parent's orders.
    """

    def __init__(self, batches: BatchStream, orders: Orders) -> None:
        self._batches, self._orders = batches, orders
        self.wait_seconds = 0.0

    def __next__(self) -> Batch:
        self._orders.wait()
        with self._orders.timeline.within("data"):
            batch = next(self._batches)
        self.wait_seconds = self._batches.wait_seconds
        return batch


def read_spec(file: str) -> tuple[dict[str, Any], Config]:
    """Read the parent's specification. Returns it and the configuration in it."""
    spec = json.loads(Path(file).read_text(encoding="utf-8"))
    logging.getLogger("srgan_dist").setLevel(logging.ERROR)  # otherwise every process warns about untrained weights
    return spec, Config(**spec["config"])


def runtime_options(config: Config) -> dict[str, Any]:
    """The runtime options that affect a step."""
    return {
        "precision": config.train.precision,
        "channels_last": config.train.channels_last,
        "compile": config.train.compile,
        "threads": config.train.threads,
        "shares_memory_errors": config.data.micro_batch == "auto",
    }


def connected(
    work: Callable[[AnyRuntime, Connection | None], None], address: str, kind: type[AnyRuntime], **options: Any
) -> None:
    """Create a runtime and work for the parent; mistakes and failures are sent to it as a message.

    Args:
        work: Called with the runtime and, on the first rank, the connection to the parent.
        address: The parent's socket.
        kind: Class of the runtime.
        options: Arguments of the runtime.
    """
    try:
        runtime = kind(**options)
    except UserError as error:
        with Client(address, family="AF_UNIX") as refusal:
            refusal.send(str(error))
        return
    connection = Client(address, family="AF_UNIX") if runtime.is_main else None
    try:
        work(runtime, connection)
    except Ended:
        pass
    except (UserError, Failure) as error:
        if connection:
            connection.send(str(error))
    runtime.close()


def synchronize(runtime: Runtime) -> None:
    """Wait until the device has finished its work."""
    if runtime.device.type == "cuda":
        torch.cuda.synchronize(runtime.device)


def serve_trainer(config: Config, runtime: Runtime, orders: Orders) -> None:
    """Train as ordered, until there are no more orders.

    Args:
        config: The configuration.
        runtime: This process's runtime.
        orders: The parent's orders.

    Raises:
        Ended: Always, after the last order.
    """
    console.quiet = True  # its progress bar would interfere with the benchmark's
    run_logger = RunLogger(folder=config.run.dir, accelerator=runtime.accelerator, num_steps=config.train.steps)
    trainer = build_trainer(
        config,
        runtime=runtime,
        run_logger=run_logger,
        checkpoints=Checkpoints(config.run.dir / "checkpoints", keep=1, runtime=runtime),
        signals=StopSignals(),
        position=None,
    )
    run_logger.start(step=0, tracker_id=None)
    observe(trainer, runtime, orders.timeline)
    trainer.data.stream, stream = Gate(trainer.data.stream, orders), trainer.data.stream  # type: ignore[assignment]
    try:
        trainer.run()
    finally:
        stream.close()
        run_logger.close()
