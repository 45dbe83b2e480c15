"""A process that trains step by step, as it is told: one way, alone with its memory."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from multiprocessing.connection import Client, Connection
from pathlib import Path

import torch

from srgan_dist import tracking
from srgan_dist.bench.step_peers import BasicSRStep, Networks, NotebookStep
from srgan_dist.bench.timeline import Timeline, observe
from srgan_dist.build import build_trainer
from srgan_dist.build_networks import build_discriminator, build_features, build_generator
from srgan_dist.checkpoint import Checkpoints
from srgan_dist.config import Config
from srgan_dist.data.loader import Windows
from srgan_dist.data.pairs import Batch
from srgan_dist.errors import Failure, UserError
from srgan_dist.runtime import Runtime
from srgan_dist.signals import StopSignals

CYCLE, PARTS, PEAK, END = "cycle", "parts", "peak", "end"
OURS, BASICSR, NOTEBOOK = "ours", "basicsr", "notebook"


class Ended(Exception):
    """Enough is measured."""


class Orders:
    """What the parent asks for, and the answers.

    Args:
        connection: to the parent; None on other ranks than the first, which follow it.
        runtime: of this process.
        timeline: the stopwatches.
        steps: steps of a cycle.
    """

    def __init__(self, connection: Connection | None, runtime: Runtime, timeline: Timeline, *, steps: int) -> None:
        self.connection, self.runtime, self.timeline, self.steps = connection, runtime, timeline, steps
        self._order = ""
        self._left = 0
        self._started = 0.0

    def wait(self) -> None:
        """Called between steps: answer what was asked for, if it is done, and wait for the next order.

        Raises:
            Ended: there is none; on all ranks.
        """
        if self.runtime.anyone(self.connection is not None and self._is_last(self.connection)):
            raise Ended

    def _is_last(self, connection: Connection) -> bool:
        if self._left:
            self._left -= 1
            if not self._left:
                _synchronize(self.runtime)
                seconds = time.perf_counter() - self._started
                connection.send(self.timeline.stop() if self._order == PARTS else seconds)
        while not self._left:
            try:
                self._order = connection.recv()
            except EOFError:  # the parent is gone
                return True
            if self._order == END:
                return True
            if self._order == PEAK:
                connection.send(self.runtime.peak_memory_gib())
                continue
            self._left = self.steps
            if self._order == PARTS:
                self.timeline.start()
            _synchronize(self.runtime)
            self._started = time.perf_counter()
        return False


class Gate(Iterator[Batch]):
    """Hands on windows one by one, each when the parent wants the next step.

    Args:
        windows: the trainer's.
        orders: the parent's.
    """

    def __init__(self, windows: Windows, orders: Orders) -> None:
        self._windows, self._orders = windows, orders
        self.wait_seconds = 0.0

    def __next__(self) -> Batch:
        self._orders.wait()
        with self._orders.timeline.within("data"):
            window = next(self._windows)
        self.wait_seconds = self._windows.wait_seconds
        return window


def main(file: str) -> None:
    """Do what a file says: serve one way of training.

    Args:
        file: JSON of ``address``, ``way``, ``crops`` (of a peer), ``steps`` (of a cycle) and ``config``.
    """
    spec = json.loads(Path(file).read_text(encoding="utf-8"))
    config = Config(**spec["config"])
    logging.getLogger("srgan_dist").setLevel(logging.ERROR)  # each process would warn of untrained weights
    ours = spec["way"] == OURS
    try:
        runtime = Runtime(
            precision=config.train.precision if ours else "fp32",
            channels_last=config.train.channels_last and ours,
            compile=config.train.compile and ours,
            threads=config.train.threads,
        )
        connection = Client(spec["address"], family="AF_UNIX") if runtime.is_main else None
    except UserError as error:
        with Client(spec["address"], family="AF_UNIX") as refusal:
            refusal.send(str(error))
        return
    timeline = Timeline(lambda: _synchronize(runtime))
    orders = Orders(connection, runtime, timeline, steps=spec["steps"] if ours else 1)
    try:
        if ours:
            serve_trainer(config, runtime, orders)
        else:
            _serve_peer(spec["way"], config, runtime, orders, crops=spec["crops"], g_per_d=spec["steps"])
    except Ended:
        pass
    except (UserError, Failure) as error:
        if connection:
            connection.send(str(error))
    runtime.close()


def serve_trainer(config: Config, runtime: Runtime, orders: Orders) -> None:
    tracking.console.quiet = True  # its progress bar would stand in the middle of the measurement's
    journal = tracking.Journal(
        folder=config.run.dir,
        accelerator=runtime.accelerator,
        tracker="none",
        project="bench",
        group=None,
        tags=(),
        config={},
        num_steps=config.train.steps,
    )
    trainer = build_trainer(
        config,
        runtime=runtime,
        journal=journal,
        checkpoints=Checkpoints(config.run.dir / "checkpoints", keep=1, runtime=runtime),
        signals=StopSignals(),
        position=None,
    )
    journal.start(step=0, tracker_id=None)
    observe(trainer, runtime, orders.timeline)
    trainer.windows, windows = Gate(trainer.windows, orders), trainer.windows  # type: ignore[assignment]
    try:
        trainer.run()
    finally:
        windows.close()
        journal.close(failed=False)


def _serve_peer(way: str, config: Config, runtime: Runtime, orders: Orders, *, crops: int, g_per_d: int) -> None:
    torch.manual_seed(config.run.seed)
    networks = peer_networks(config)
    for network in (networks.generator, networks.discriminator, networks.features, networks.average):
        if network:
            runtime.place(network)
    step = peer_step(way, networks, g_per_d=g_per_d)
    patch, scale = config.data.patch_size, config.data.scale
    lr, hr = (torch.rand(crops, 3, side, side, device=runtime.device) for side in (patch // scale, patch))
    while True:
        orders.wait()
        step.cycle(lr, hr)


def peer_networks(config: Config) -> Networks:
    """The networks of a configuration, for another's step."""
    perceptual = config.loss.perceptual
    return Networks(
        generator=build_generator(config.generator, scale=config.data.scale),
        discriminator=build_discriminator(config.discriminator),
        features=build_features(perceptual) if perceptual.weight else None,
        average=build_generator(config.generator, scale=config.data.scale),
        loss=config.loss,
    )


def peer_step(way: str, networks: Networks, *, g_per_d: int) -> BasicSRStep | NotebookStep:
    """Another's step."""
    return BasicSRStep(networks) if way == BASICSR else NotebookStep(networks, g_per_d=g_per_d)


def _synchronize(runtime: Runtime) -> None:
    if runtime.device.type == "cuda":
        torch.cuda.synchronize(runtime.device)
