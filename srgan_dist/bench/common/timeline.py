"""Where the time of a training step goes: a stopwatch for each part of the trainer."""

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
    """At each moment one part is at work, and time counts for it.

    Args:
        synchronize: waits for the device.

    Attributes:
        seconds: by part, since `start`.
    """

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self.seconds: dict[str, float] = {}
        self._synchronize, self._running = synchronize, False
        self._part, self._since, self._gradient = OTHER, 0.0, 0.0

    def start(self) -> None:
        """Begin to measure; the device is waited for at every change."""
        self.seconds = defaultdict(float)
        self._running, self._part = True, OTHER
        self._since = self._now()

    def stop(self) -> dict[str, float]:
        """End it; the seconds by part."""
        self.switch(OTHER)
        self._running = False
        return {part: self.seconds[part] for part in PARTS}

    def switch(self, part: str) -> None:
        """From now on, time counts for another part."""
        if self._running:
            now = self._now()
            self.seconds[self._part] += now - self._since
            self._part, self._since = part, now

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        """Time counts for a part, and afterwards for the one before."""
        before = self._part
        self.switch(part)
        try:
            yield
        finally:
            self.switch(before)

    def timed(self, call: Callable[..., Any], part: str) -> Callable[..., Any]:
        """A function, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.within(part):
                return call(*args, **kwargs)

        return timed

    def network(self, call: Callable[..., Any], part: str) -> Callable[..., Any]:
        """A network's forward, timed, and its backward, from the moment that its output's gradient is there."""
        forward = self.timed(call, part)

        def timed(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            for tensor in tree_leaves(output):
                if self._running and isinstance(tensor, Tensor) and tensor.requires_grad:
                    tensor.register_hook(lambda _: self.switch(part))  # type: ignore[no-untyped-call]
            return output

        return timed

    def backward(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """A backward pass: what is left after the last gradient is waiting for the other ranks."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.within(OTHER):
                result = call(*args, **kwargs)
                if self._running and self._gradient > self._since:
                    self.seconds[self._part] += self._gradient - self._since
                    self._part, self._since = COMMUNICATION, self._gradient
            return result

        return timed

    def gradient(self, _: Tensor) -> None:
        """A gradient is there."""
        if self._running:
            self._gradient = self._now()

    def _now(self) -> float:
        self._synchronize()
        return time.perf_counter()


def observe(trainer: Trainer, runtime: Runtime, timeline: Timeline) -> None:
    """Put the stopwatches into a trainer.

    Args:
        trainer: its parts are replaced by timed ones.
        runtime: the trainer's.
        timeline: what they count for.
    """
    for name, trainable in trainer.take_step.networks.items():
        network: Any = trainable.network
        # What a module's call runs, compiled or not, also when the call comes from DDP.
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
