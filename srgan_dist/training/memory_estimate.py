"""How much memory an update takes, found out without taking it: it runs on tensors that have only a shape."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import AdamW
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from srgan_dist.config.root import Config
from srgan_dist.data.loading.loader import Pair
from srgan_dist.distributed.memory import used_ram
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.models.build import build_discriminator, build_features, build_generator
from srgan_dist.models.features import FeatureNetwork
from srgan_dist.training.adversarial import Game
from srgan_dist.training.build_losses import build_objective, build_rules

Recompute = Literal["none", "perceptual", "generator", "both"]
Device = Literal["cpu", "cuda"]
RECOMPUTE: tuple[Recompute, ...] = ("none", "perceptual", "generator", "both")
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


# What oneDNN's copies and the allocator's holes take, as measured: 60 to 250 MiB over the shipped recipes.
_LIBRARIES = 150 * 2**20
# CUDA's context and cuDNN's workspaces; an estimate.
_GPU_LIBRARIES = 1024 * 2**20


@dataclass(frozen=True)
class Footprint:
    """What the tensors of one rank need.

    Attributes:
        peak: Most bytes of tensors at a time: weights, gradients, moments, the average, the window, activations.
        saved: Bytes of what a checkpoint holds; on a CPU a copy of it is there while it is being written.
    """

    peak: int
    saved: int


class LiveBytes(TorchDispatchMode):
    """Adds up the memory of all tensors that are made within, as long as they live.

    Attributes:
        now: Bytes that are held.
        peak: Most bytes that were held at a time.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.peak: int = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._add(value)
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._known:
            self._known[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self._known.pop(key)


def peak_bytes(action: Callable[[], object]) -> int:
    """Run something on tensors without memory.

    Args:
        action: Makes all its tensors itself, and reads no value.

    Returns:
        Most bytes of tensors that it would have held at a time.
    """
    live = LiveBytes()
    with _without_memory(), live:
        action()
    return live.peak


def footprint(config: Config, *, micro_batch: int, num_micro_batches: int, recompute: Recompute) -> Footprint:
    """Run an update of each network on tensors without memory, as a configuration has it.

    Args:
        config: The configuration; its own micro-batch and ``train.recompute`` do not count.
        micro_batch: Crops in one forward.
        num_micro_batches: Micro-batches of one rank in a window.
        recompute: As ``train.recompute``.

    Returns:
        What one rank needs. It takes a second or a few.
    """
    live = LiveBytes()
    with _without_memory(), live:
        rehearsal = _Rehearsal(config, recompute)
        saved = live.now - rehearsal.gradient_bytes()
        rehearsal.add_features()
        # The second micro-batch meets the gradients of the first; further ones only add their images.
        window = [rehearsal.pair(micro_batch) for _ in range(min(num_micro_batches, 2))]
        rehearsal.run(window)
        images = sum(image.nbytes for image in (*window[0], window[0].hr))  # LR, HR, and SR of its size
        peak = live.peak + images * (num_micro_batches - len(window))
        return Footprint(peak=peak, saved=saved)


def predict_bytes(config: Config, *, micro_batch: int, share: int, recompute: Recompute, device: Device) -> int:
    """Predict the most memory that a rank of a training takes.

    Args:
        config: The configuration; its own micro-batch and ``train.recompute`` do not count.
        micro_batch: Crops in one forward on one rank.
        share: Crops of a rank in a window.
        recompute: As ``train.recompute``.
        device: Where the networks are.

    Returns:
        Resident bytes on a CPU, which begin with those of this process; bytes of the GPU on a GPU, an estimate.
    """
    found = footprint(config, micro_batch=micro_batch, num_micro_batches=share // micro_batch, recompute=recompute)
    if device == "cuda":
        return found.peak + _GPU_LIBRARIES
    return used_ram() + found.peak + found.saved + _LIBRARIES


class Fit(NamedTuple):
    """The largest micro-batch that fits.

    Attributes:
        micro_batch: Crops in one forward; 0 where not even one fits.
        bytes: What it needs; where none fits, what one crop would.
    """

    micro_batch: int
    bytes: int


def largest_micro_batch(config: Config, *, share: int, recompute: Recompute, memory: int, device: Device) -> Fit:
    """Find the largest micro-batch that fits, as `predict_bytes` has it.

    Args:
        config: The configuration; its own micro-batch and ``train.recompute`` do not count.
        share: Crops of a rank in a window; a micro-batch divides it.
        recompute: As ``train.recompute``.
        memory: Bytes of a rank.
        device: Where the networks are.
    """
    need = 0
    for size in range(share, 0, -1):
        if share % size == 0:
            need = predict_bytes(config, micro_batch=size, share=share, recompute=recompute, device=device)
            if need <= memory:
                return Fit(size, need)
    return Fit(0, need)


def operations(config: Config, *, recompute: Recompute) -> int:
    """Count the floating-point operations that one crop costs: its share of an update of each network.

    Args:
        config: The configuration.
        recompute: As ``train.recompute``.

    Returns:
        Those of ``g_per_d`` updates of the generator and one of the discriminator.
    """
    with _without_memory():
        rehearsal = _Rehearsal(config, recompute)
        rehearsal.add_features()
        with FlopCounterMode(display=False) as of_generator:
            game = rehearsal.update_generator([rehearsal.pair(1)])
        with FlopCounterMode(display=False) as of_discriminator:
            if game:
                rehearsal.update_discriminator(game)
    return int(config.train.planned_g_per_d * of_generator.get_total_flops() + of_discriminator.get_total_flops())


@contextmanager
def _without_memory() -> Iterator[None]:
    """All tensors that are made within have a shape and nothing else."""
    log = logging.getLogger(FeatureNetwork.__module__)
    level = log.level
    log.setLevel(logging.ERROR)  # that weights without values are untrained goes without saying
    try:
        with FakeTensorMode():
            yield
    finally:
        log.setLevel(level)


class _InAutocast(nn.Module):
    """A network as it is when Accelerate has prepared it."""

    def __init__(self, network: nn.Module, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, images: Tensor) -> Any:
        with torch.autocast("cpu", self.dtype or torch.bfloat16, enabled=self.dtype is not None):
            output = self.network(images)
        return output.float() if isinstance(output, Tensor) and self.dtype else output


class _Alone:
    """The only rank."""

    def mean_over_ranks(self, value: Tensor) -> Tensor:
        return value


class _Rehearsal:
    """The trainer's updates without data, logs and other ranks."""

    def __init__(self, config: Config, recompute: Recompute) -> None:
        self.config, self.recompute = config, recompute
        self.dtype = _AUTOCAST.get(config.train.precision)
        self.generator, self.generator_optimizer = self._learner(self._new_generator())
        self.average = self._new_generator()
        self.discriminator: nn.Module | None = None
        if config.adversarial_steps:
            discriminator = build_discriminator(config.discriminator).eval()
            self.discriminator, self.discriminator_optimizer = self._learner(discriminator)
        self.features: nn.Module | None = None

    def add_features(self) -> None:
        perceptual = self.config.loss.perceptual
        if perceptual.weight and self.discriminator:
            untrained = perceptual.model_copy(update={"weights": "random"})
            network = build_features(untrained, recompute=self.recompute in ("perceptual", "both"))
            network.compute_in(self.dtype or torch.float32)
            self.features = _InAutocast(network, self.dtype)

    def _new_generator(self) -> nn.Module:
        twice = self.recompute in ("generator", "both")
        return build_generator(self.config.generator, scale=self.config.data.scale, recompute=twice)

    def _learner(self, network: nn.Module) -> tuple[nn.Module, AdamW]:
        optimizer = AdamW(network.parameters(), lr=1e-4, fused=True)
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()  # makes its moments
        return _InAutocast(network, self.dtype), optimizer

    def gradient_bytes(self) -> int:
        learnt = [network for network in (self.generator, self.discriminator) if network]
        gradients = [parameter.grad for network in learnt for parameter in network.parameters()]
        return sum(gradient.nbytes for gradient in gradients if gradient is not None)

    def pair(self, size: int) -> Pair:
        patch, scale = self.config.data.patch_size, self.config.data.scale
        lr, hr = (torch.zeros(size, 3, side, side) for side in (patch // scale, patch))
        return Pair(lr=lr, hr=hr, key=torch.zeros(size, dtype=torch.int64))

    def run(self, window: Sequence[Pair]) -> None:
        game = self.update_generator(window)
        if game:
            self.update_discriminator(game)

    def update_generator(self, window: Sequence[Pair]) -> Game | None:
        objective = build_objective(self.config.loss, self.features)
        self.generator_optimizer.zero_grad(set_to_none=True)
        game = None
        if self.discriminator:
            self.discriminator.requires_grad_(False)
            adversarial = self.config.loss.adversarial
            rules, noise = build_rules(adversarial, device=torch.device("cpu")), adversarial.instance_noise
            game = Game(rules, self.discriminator, window, runtime=cast("Runtime", _Alone()), noise=noise)
            game.foresee(self.generator)
        for index, pair in enumerate(window):
            sr = self.generator(pair.lr)
            terms = objective.content(sr, pair.hr) if game else objective.pretraining(sr, pair.hr)
            if game:
                terms["g/adversarial"] = game.generator_loss(sr, index)
            self._backward(torch.stack(list(terms.values())).sum())
        self.generator_optimizer.step()
        return game

    def update_discriminator(self, game: Game) -> None:
        assert self.discriminator
        self.discriminator.requires_grad_(True)
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        for half in game.halves():
            self._backward(game.discriminator_terms(half, self.discriminator, r1_is_due=True)["d/loss"])
        self.discriminator_optimizer.step()

    @staticmethod
    def _backward(loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
