"""Predicts the memory of an update by running it on tensors that have a shape but no data."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from srgan_dist.config.models import NotRecomputed
from srgan_dist.config.root import Config
from srgan_dist.data.loading.loader import Patches
from srgan_dist.distributed.memory import used_ram
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.errors import UserError
from srgan_dist.training.build_step import build_perceptual_network, build_schedule, build_step, in_autocast
from srgan_dist.training.micro_batch import MicroBatch
from srgan_dist.training.schedules import Rates
from srgan_dist.training.without_memory import NEEDS_VALUES, without_memory

Recompute = Literal["none", "perceptual", "generator", "both"]
Device = Literal["cpu", "cuda"]
RECOMPUTE: tuple[Recompute, ...] = ("none", "perceptual", "generator", "both")
_RATES = Rates(step=1, phase_step=1, is_pretraining=False, generator=1e-4, discriminator=1e-4, noise=0.1)
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


# oneDNN's copies and the allocator's fragmentation, measured: 60 to 250 MiB over the shipped recipes.
_LIBRARIES = 150 * 2**20
# CUDA's context and cuDNN's workspaces, estimated.
_GPU_LIBRARIES = 1024 * 2**20


def recompute_settings(config: Config) -> tuple[Recompute, ...]:
    """The values of ``train.recompute`` that the networks can follow."""
    return ("none", "perceptual") if isinstance(config.generator, NotRecomputed) else RECOMPUTE


@dataclass(frozen=True)
class Footprint:
    """The memory that the tensors of one rank need.

    Attributes:
        peak: Largest number of bytes of tensors at a time: weights, gradients, moments, EMA, batch, activations.
        saved: Bytes of a checkpoint; on a CPU, a copy of them is in memory while it is being written.
    """

    peak: int
    saved: int


class Unpredictable(UserError):
    """A network of which only training itself shows what it needs."""


class LiveBytes(TorchDispatchMode):
    """Adds up the memory of all tensors that are created within it, as long as they live.

    Attributes:
        now: Bytes in use.
        peak: Largest number of bytes in use at a time.
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
    """Run a function on tensors without memory.

    Args:
        action: Creates all its tensors itself, and reads no values.

    Returns:
        The largest number of bytes of tensors that it would have used at a time.
    """
    live = LiveBytes()
    with without_memory(), live:
        action()
    return live.peak


def estimate_step_memory(
    config: Config, *, micro_batch: int, num_micro_batches: int, recompute: Recompute
) -> Footprint:
    """Estimate the memory of a training step by running it on tensors without memory.

    Args:
        config: The configuration; its own micro-batch and ``train.recompute`` are ignored.
        micro_batch: Patches in one forward pass.
        num_micro_batches: Micro-batches of one rank in a global batch.
        recompute: The value of ``train.recompute``.

    Returns:
        What one rank needs. Computing it takes a few seconds.
    """
    live = LiveBytes()
    with _predictable(config), without_memory(), live:
        # The second micro-batch runs while the first one's gradients exist; further ones only add their images.
        present = min(num_micro_batches, 2)
        rehearsal = _Rehearsal(config, recompute, micro_batch=micro_batch, num_micro_batches=present)
        rehearsal.step(rehearsal.batch, _RATES)  # creates the optimizers' moments
        rehearsal.step(rehearsal.batch, _RATES)
        patches = rehearsal.batch[0]
        images = sum(image.nbytes for image in (patches.lr, patches.hr, patches.hr))  # and SR, of HR's size
        peak = live.peak + images * (num_micro_batches - present)
        return Footprint(peak=peak, saved=rehearsal.saved_bytes())


def predict_bytes(
    config: Config, *, micro_batch: int, per_rank_batch: int, recompute: Recompute, device: Device
) -> int:
    """Predict the peak memory of one training process.

    Args:
        config: The configuration; its own micro-batch and ``train.recompute`` are ignored.
        micro_batch: Patches in one forward pass on one rank.
        per_rank_batch: Patches of a rank in a global batch.
        recompute: The value of ``train.recompute``.
        device: The kind of device that holds the networks.

    Returns:
        On a CPU, resident bytes, including those that this process already uses; on a GPU, an estimate of its memory.
    """
    found = estimate_step_memory(
        config, micro_batch=micro_batch, num_micro_batches=per_rank_batch // micro_batch, recompute=recompute
    )
    if device == "cuda":
        return found.peak + _GPU_LIBRARIES
    return used_ram() + found.peak + found.saved + _LIBRARIES


class Fit(NamedTuple):
    """The largest micro-batch that fits.

    Attributes:
        micro_batch: Patches in one forward pass; 0 if not even the fewest fit.
        bytes: Memory that it needs; if none fits, memory that the fewest need.
    """

    micro_batch: int
    bytes: int


def largest_micro_batch(
    config: Config, *, per_rank_batch: int, recompute: Recompute, memory: int, device: Device, smallest: int = 1
) -> Fit:
    """Find the largest micro-batch that fits according to `predict_bytes`.

    Args:
        config: The configuration; its own micro-batch and ``train.recompute`` are ignored.
        per_rank_batch: Patches of a rank in a global batch; a micro-batch divides it.
        recompute: The value of ``train.recompute``.
        memory: Bytes available to a rank.
        device: The kind of device that holds the networks.
        smallest: Fewest patches that the networks can compute at a time.
    """
    need = 0
    for size in range(per_rank_batch, smallest - 1, -1):
        if per_rank_batch % size == 0:
            need = predict_bytes(
                config, micro_batch=size, per_rank_batch=per_rank_batch, recompute=recompute, device=device
            )
            if need <= memory:
                return Fit(size, need)
    return Fit(0, need)


def operations(config: Config, *, recompute: Recompute) -> int:
    """Count the floating-point operations of one patch.

    Args:
        config: The configuration.
        recompute: The value of ``train.recompute``.

    Returns:
        The operations of ``g_per_d`` updates of the generator and one of the discriminator.
    """
    num_patches = 2  # one may be too few for BatchNorm
    with _predictable(config), without_memory():
        rehearsal = _Rehearsal(config, recompute, micro_batch=num_patches, num_micro_batches=1)
        gan = rehearsal.step.gan
        with FlopCounterMode(display=False) as of_generator:
            if gan:
                objective, _ = gan.update_generator(rehearsal.batch, rates=_RATES)
            else:
                rehearsal.step.pretraining.update_generator(rehearsal.batch, rates=_RATES)
        with FlopCounterMode(display=False) as of_discriminator:
            if gan:
                gan.update_discriminator(objective, rates=_RATES)
    total = config.train.planned_g_per_d * of_generator.get_total_flops() + of_discriminator.get_total_flops()
    return int(total) // num_patches


@contextmanager
def _predictable(config: Config) -> Iterator[None]:
    try:
        yield
    except NEEDS_VALUES:
        raise Unpredictable(
            f"the memory of generator.name={config.generator.name} cannot be predicted, as what it computes depends on "
            "the values of an image: set data.micro_batch to a number, and try"
        ) from None


class _InAutocast(nn.Module):
    """Runs a network in autocast, as Accelerate does with the networks it has prepared."""

    def __init__(self, network: nn.Module, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, images: Tensor) -> Any:
        with torch.autocast("cpu", self.dtype or torch.bfloat16, enabled=self.dtype is not None):
            output = self.network(images)
        return output.float() if isinstance(output, Tensor) and self.dtype else output


class _RehearsalRuntime:
    """Stands in for `Runtime`: one rank without hardware, and without Accelerate."""

    device = torch.device("cpu")
    world_size = batchnorm_ranks = 1
    shares_memory_errors = False
    memory_format = torch.channels_last

    def __init__(self, precision: str) -> None:
        self.autocast_dtype = _AUTOCAST.get(precision)
        self.dtype = self.autocast_dtype or torch.float32
        self.needs_loss_scale = precision == "fp16"

    def place(self, network: nn.Module) -> nn.Module:
        return network

    def prepare(self, network: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        return _InAutocast(network, self.autocast_dtype), optimizer

    def compile(self, network: nn.Module) -> None:
        pass  # a compiled network needs no more memory than the plain one, which is measured here

    def freeze_batchnorm_stats(self, network: nn.Module) -> None:
        network.eval()

    def accumulating(self, network: nn.Module, *, sync: bool) -> AbstractContextManager[None]:  # noqa: ARG002
        return nullcontext()

    def memory_shared(self) -> AbstractContextManager[None]:
        return nullcontext()

    def check_room(self) -> None:
        pass  # there is no other rank

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast("cpu", self.dtype, enabled=self.autocast_dtype is not None)

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def mean_over_ranks(self, value: Tensor) -> Tensor:
        return value


class _Rehearsal:
    """The trainer's own step and a batch, without data, logs and other ranks."""

    def __init__(self, config: Config, recompute: Recompute, *, micro_batch: int, num_micro_batches: int) -> None:
        adversarial = config.loss.adversarial.model_copy(
            update={"r1_every": 1}
        )  # every update has the penalty, so that it is counted
        loss = config.loss.untrained().model_copy(update={"adversarial": adversarial})
        train = config.train.model_copy(update={"g_per_d": 1, "recompute": recompute})
        stability = config.stability.model_copy(update={"on_collapse": "warn"})
        run = config.run.model_copy(update={"init_from": None, "init_discriminator_from": None})
        config = config.model_copy(update={"loss": loss, "train": train, "stability": stability, "run": run})
        runtime = cast("Runtime", _RehearsalRuntime(config.train.precision))
        network = build_perceptual_network(config, runtime=runtime)
        self.step = build_step(
            config,
            runtime=runtime,
            micro_batch=MicroBatch(micro_batch, per_rank_batch=micro_batch * num_micro_batches, runtime=runtime),
            schedule=build_schedule(config, runtime=runtime),
            features=in_autocast(network, runtime=runtime) if network else None,
        )
        patch, scale = config.data.patch_size, config.data.scale
        lr, hr = (torch.zeros(micro_batch, 3, side, side) for side in (patch // scale, patch))
        keys = torch.zeros(micro_batch, dtype=torch.int64)
        self.batch = [Patches(lr=lr, hr=hr, key=keys) for _ in range(num_micro_batches)]

    def saved_bytes(self) -> int:
        """Bytes of a checkpoint."""
        tensors = tree_leaves((self.step.weights(), self.step.optimizers()))
        return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))
