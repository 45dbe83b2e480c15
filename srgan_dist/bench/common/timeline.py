"""Measures how much time each part of a training step takes."""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from srgan_dist.distributed.runtime import Runtime
from srgan_dist.training.trainer import Trainer

DATA, GENERATOR, DISCRIMINATOR, PERCEPTUAL = "data", "generator", "discriminator", "perceptual"
OPTIMIZER, COMMUNICATION, OTHER = "optimizer", "communication", "other"
PARTS = (GENERATOR, DISCRIMINATOR, PERCEPTUAL, OPTIMIZER, DATA, COMMUNICATION, OTHER)


class Timeline:
    """Attributes time to parts; at each moment one part is active.

    Args:
        synchronize: Waits for the device.

    Attributes:
        seconds: Seconds by part since `start`.
    """

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self.seconds: dict[str, float] = {}
        self._synchronize, self._running = synchronize, False
        self._part, self._since, self._gradient = OTHER, 0.0, 0.0

    def start(self) -> None:
        """Start measuring; every switch then waits for the device."""
        self.seconds = defaultdict(float)
        self._running, self._part = True, OTHER
        self._since = self._now()

    def stop(self) -> dict[str, float]:
        """Stop measuring. Returns the seconds by part."""
        self.switch(OTHER)
        self._running = False
        return {part: self.seconds[part] for part in PARTS}

    def switch(self, part: str) -> None:
        """Attribute the time from now on to another part."""
        if self._running:
            now = self._now()
            self.seconds[self._part] += now - self._since
            self._part, self._since = part, now

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        """Attribute time to a part, and afterwards to the previous one."""
        before = self._part
        self.switch(part)
        try:
            yield
        finally:
            self.switch(before)

    def timed(self, call: Callable[..., Any], part: str) -> Callable[..., Any]:
        """Wrap a function so that its time is attributed to a part."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.within(part):
                return call(*args, **kwargs)

        return timed

    def network(self, call: Callable[..., Any], part: str) -> Callable[..., Any]:
        """Wrap a network's forward: times it, and its backward from the moment its output's gradient is available."""
        forward = self.timed(call, part)

        def timed(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            for tensor in tree_leaves(output):
                if self._running and isinstance(tensor, Tensor) and tensor.requires_grad:
                    tensor.register_hook(lambda _: self.switch(part))  # type: ignore[no-untyped-call]
            return output

        return timed

    def backward(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a backward pass: the time after the last gradient is attributed to communication."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.within(OTHER):
                result = call(*args, **kwargs)
                if self._running and self._gradient > self._since:
                    self.seconds[self._part] += self._gradient - self._since
                    self._part, self._since = COMMUNICATION, self._gradient
            return result

        return timed

    def gradient(self, _: Tensor) -> None:
        """Note the time at which a gradient is available; a hook of parameters."""
        if self._running:
            self._gradient = self._now()

    def _now(self) -> float:
        self._synchronize()
        return time.perf_counter()


def observe(trainer: Trainer, runtime: Runtime, timeline: Timeline) -> None:
    """Instrument a trainer.

    Args:
        trainer: The trainer, whose parts are replaced by timed ones.
        runtime: The trainer's runtime.
        timeline: Receives the times.
    """
    for name, trainable in trainer.take_step.networks.items():
        network: Any = trainable.network
        # What calling a module runs, compiled or not, also if DDP calls it.
        network._compiled_call_impl = timeline.network(network._compiled_call_impl or network._call_impl, name)
        _replace(trainable, "move", timeline.timed(trainable.move, OPTIMIZER))
        if runtime.world_size > 1:
            for parameter in network.parameters():
                parameter.register_post_accumulate_grad_hook(timeline.gradient)
    gan = trainer.take_step.gan
    if gan and gan.content.features:
        features = timeline.network(gan.content.features, PERCEPTUAL)
        gan.content = dataclasses.replace(gan.content, features=features)
    _replace(trainer, "next_batch", timeline.timed(trainer.next_batch, DATA))
    _replace(trainer.take_step.ema, "update", timeline.timed(trainer.take_step.ema.update, OPTIMIZER))
    _replace(runtime, "backward", timeline.backward(runtime.backward))


def _replace(owner: object, name: str, function: Callable[..., Any]) -> None:
    setattr(owner, name, function)
