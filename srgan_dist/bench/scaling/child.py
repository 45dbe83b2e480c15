"""The measured processes of `bench scaling`: ranks that train, and ranks that only run all-reduces."""

from __future__ import annotations

import json
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from srgan_dist.bench.common.child import (
    Ended,
    Orders,
    connected,
    read_spec,
    runtime_options,
    serve_trainer,
    synchronize,
)
from srgan_dist.bench.common.timeline import Timeline
from srgan_dist.bench.scaling.interconnect import Arrival
from srgan_dist.distributed.runtime import Runtime

REDUCE = "reduce"
_REDUCE_SECONDS = 0.3  # for each size


class Facts(NamedTuple):
    """What a step communicates, observed in a single rank.

    Attributes:
        arrivals: For each network, the generator first, its gradients in the order in which they become available.
        votes: Number of collectives of a few bytes in a step, on any device.
        norms: Number of collectives that BatchNorm adds on several GPUs, forward and backward.
    """

    arrivals: list[list[Arrival]]
    votes: float
    norms: float


class ObservedRuntime(Runtime):
    """A runtime that records what a step communicates, even if there is only one rank."""

    def __init__(self, **options: Any) -> None:
        self.num_votes = self.num_norms = self.num_steps = 0
        self._networks: list[list[tuple[int, Any]]] = []
        self._last: list[tuple[list[tuple[int, Any]], Any]] = []
        super().__init__(**options)

    def prepare(self, network: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Prepare as usual, and observe the network."""
        stamps: list[tuple[int, Any]] = []
        self._networks.append(stamps)
        self._last.append(([], self._now()))
        for parameter in network.parameters():

            def arrives(gradient: Tensor) -> None:
                stamps.append((gradient.numel() * gradient.element_size(), self._now()))

            parameter.register_post_accumulate_grad_hook(arrives)  # type: ignore[no-untyped-call]
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.register_forward_pre_hook(self._normalises)
        return super().prepare(network, optimizer)

    def _normalises(self, module: nn.Module, _: Any) -> None:
        if module.training or not module.track_running_stats:
            self.num_norms += 2 if torch.is_grad_enabled() else 1

    def backward(self, loss: Tensor) -> None:
        """Run as usual, and record when each gradient became available in the last pass of an update."""
        for stamps in self._networks:
            stamps.clear()
        super().backward(loss)
        for index, stamps in enumerate(self._networks):
            if stamps:
                self._last[index] = (list(stamps), self._now())

    def max_over_ranks(self, value: int) -> int:
        """Run as usual, and count the collective."""
        self.num_votes += 1
        return super().max_over_ranks(value)

    def mean_over_ranks(self, value: Tensor) -> Tensor:
        """Run as usual, and count the collective."""
        self.num_votes += 2 if value.requires_grad else 1
        return super().mean_over_ranks(value)

    def facts(self) -> Facts:
        """What was observed, for one step."""
        synchronize(self)
        arrivals = [[Arrival(size, self._seconds(then, end)) for size, then in stamps] for stamps, end in self._last]
        orders = self.num_steps + 1  # every order, and the end, includes a vote of the benchmark itself
        return Facts(arrivals, (self.num_votes - orders) / self.num_steps, self.num_norms / self.num_steps)

    def _now(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _seconds(self, then: Any, end: Any) -> float:
        return float(then.elapsed_time(end) / 1000 if self.device.type == "cuda" else end - then)


class _CountedOrders(Orders):
    runtime: ObservedRuntime

    def wait(self) -> None:
        super().wait()
        self.runtime.num_steps += 1


def main(file: str) -> None:
    """Train as one rank, or as one of several, as a file specifies.

    Args:
        file: JSON of ``address``, ``steps`` (in a cycle), ``config``, and ``facts``, a file to write at the end.
    """
    spec, config = read_spec(file)

    def train(runtime: ObservedRuntime, connection: Connection | None) -> None:
        orders = _CountedOrders(connection, runtime, Timeline(lambda: synchronize(runtime)), steps=spec["steps"])
        try:
            serve_trainer(config, runtime, orders)
        except Ended:
            if runtime.is_main:
                Path(spec["facts"]).write_text(json.dumps(runtime.facts()), encoding="utf-8")

    connected(train, spec["address"], ObservedRuntime, **runtime_options(config))


def reduce(file: str) -> None:
    """Time all-reduces between ranks that do nothing else, as a file specifies.

    Args:
        file: JSON of ``address`` and ``sizes`` in bytes. The answer to each order is the seconds for each size.
    """
    spec = json.loads(Path(file).read_text(encoding="utf-8"))

    def measure(runtime: Runtime, connection: Connection | None) -> None:
        while runtime.any_rank(connection is not None and _wants_more(connection)):
            seconds = [_all_reduce_seconds(runtime, size) for size in spec["sizes"]]
            if connection:
                connection.send(seconds)

    connected(measure, spec["address"], Runtime, threads=1)


def _wants_more(connection: Connection) -> bool:
    try:
        return bool(connection.recv() == REDUCE)
    except EOFError:
        return False


def _all_reduce_seconds(runtime: Runtime, size: int) -> float:
    data = torch.zeros(size // 4, device=runtime.device)
    runtime.reduce_sum(data)
    total, rounds = 0.0, 0
    while runtime.all_agree(total < _REDUCE_SECONDS):  # the vote makes all ranks begin at the same time
        synchronize(runtime)
        started = time.perf_counter()
        runtime.reduce_sum(data)
        synchronize(runtime)
        total, rounds = total + time.perf_counter() - started, rounds + 1
    return total / rounds
