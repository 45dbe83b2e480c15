"""The machine as one rank sees it: device, precision, threads, and wrapping networks for the ranks."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any, cast

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from srgan_dist.distributed.collectives import Collectives
from srgan_dist.distributed.environment import configuration_alone, cpu_threads, ignored_settings
from srgan_dist.distributed.launch import check_world
from srgan_dist.distributed.memory import available_ram
from srgan_dist.errors import UserError
from srgan_dist.utils.memory_format import usable_format
from srgan_dist.utils.provenance import cpu_name

_DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
log = logging.getLogger("srgan_dist")


class Runtime(Collectives):
    """One rank's view of the run: a thin layer over Accelerate, and the only place that knows the hardware.

    Args:
        precision: ``fp32``, or ``bf16`` or ``fp16`` for autocast with fp32 weights.
        channels_last: Keep activations and weights of convolutions in NHWC order.
        compile: Compile networks, each at its first call.
        threads: CPU threads of this rank; None: as ``OMP_NUM_THREADS`` says, else the cores it may use, divided by the
            ranks of its node.
        shares_memory_errors: Ranks report to each other when one runs out of memory, at the price of a vote an update.
        num_ranks: Ranks that there must be, or None.
        timeout: Seconds after which a collective that not all ranks have come to is an error.

    Attributes:
        ignored_settings: What the environment asks otherwise than these arguments, a line each.
        threads: CPU threads of this rank, and what decided on them.

    Raises:
        UserError: Not as many ranks as there must be, started as several processes that do not know of each other, or
            for another way of training; fp16 without a GPU, bf16 on a GPU that lacks it, ``compile`` without a
            compiler, or an ``OMP_NUM_THREADS`` that is no number.
    """

    def __init__(
        self,
        *,
        precision: str = "fp32",
        channels_last: bool = True,
        compile: bool = False,
        threads: int | None = None,
        shares_memory_errors: bool = False,
        num_ranks: int | None = None,
        timeout: float = 1800.0,
    ) -> None:
        # Accelerate keeps one precision for the whole process; the next run of a notebook may have another.
        AcceleratorState._reset_state()
        with configuration_alone():
            accelerator = Accelerator(
                cpu=not torch.cuda.is_available(),
                mixed_precision="no" if precision == "fp32" else precision,
                kwargs_handlers=[
                    DistributedDataParallelKwargs(gradient_as_bucket_view=True),
                    InitProcessGroupKwargs(timeout=timedelta(seconds=timeout)),
                ],
            )
        self.ignored_settings = ignored_settings(precision=precision, compile=compile)
        # One scaler would serve both networks, and an overflow of one would hold the other back: see LossScale.
        accelerator.scaler = None
        super().__init__(accelerator, timeout=timeout, shares_memory_errors=shares_memory_errors)
        check_world(accelerator, num_ranks)
        self.needs_loss_scale = precision == "fp16"
        self._distributed: list[DistributedDataParallel] = []
        self.dtype = _DTYPES[self.accelerator.mixed_precision]
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        on_gpu = self.device.type == "cuda"
        if precision == "fp16" and not on_gpu:
            raise UserError("train.precision is fp16, which needs a GPU; use bf16 or fp32")
        if on_gpu and precision == "bf16" and not torch.cuda.is_bf16_supported():
            raise UserError("train.precision is bf16, which this GPU lacks; use fp32")
        self.compiles = compile
        if compile:
            _prepare_compiler(on_gpu=on_gpu)
        self.local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self.threads = cpu_threads(threads, local_ranks=self.local_world_size)
        torch.set_num_threads(self.threads.number)
        torch.backends.cudnn.benchmark = on_gpu  # patches have one size

    @contextmanager
    def images_of_any_size(self) -> Iterator[None]:
        """Compute images of many sizes, as in a validation, without cuDNN's search for the fastest convolution.

        It searches anew for every layer and size: the first validation on Set14 took over a minute on an H100.
        """
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = False
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before

    def prepare(self, network: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Wrap a network (DDP, autocast) and its optimizer; the network given stays usable without DDP."""
        if self.batchnorm_ranks > 1:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        wrapped, optimizer = self.accelerator.prepare(network, optimizer)
        if isinstance(wrapped, DistributedDataParallel):
            # Equal at the start; later they differ only by BatchNorm's running statistics, which no training forward
            # reads, and sending them before every forward would write into a graph that still waits for its backward.
            wrapped.broadcast_buffers = False
            self._distributed.append(wrapped)
        return wrapped, optimizer

    @property
    def batchnorm_ranks(self) -> int:
        """Number of ranks whose patches BatchNorm normalises together."""
        return self.world_size if self.device.type == "cuda" else 1

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network to the device, in the run's memory format."""
        memory_format = usable_format(network, self.memory_format)
        return network.to(self.device, memory_format=memory_format)  # type: ignore[call-overload, no-any-return]

    def compile(self, network: nn.Module) -> None:
        """Compile a network in place, if this run does: its calls, not its `forward`, for inputs of one size.

        The names of its weights stay as they are.
        """
        if self.compiles:
            network.compile(dynamic=False)

    def freeze_batchnorm_stats(self, network: nn.Module) -> None:
        """Put a network into a mode in which no forward changes its buffers."""
        network.eval()
        for module in network.modules():
            # Without running statistics it has none to change, and only in train mode does it see the other ranks.
            if isinstance(module, nn.SyncBatchNorm) and not module.track_running_stats:
                module.train()

    def accumulating(self, network: nn.Module, *, sync: bool) -> AbstractContextManager[Any]:
        """Around forward *and* backward of a micro-batch: average gradients over the ranks only if ``sync``."""
        return contextlib.nullcontext() if sync else self.accelerator.no_sync(network)

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision for a network that was not prepared."""
        return cast("AbstractContextManager[Any]", self.accelerator.autocast())

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of ``loss``."""
        self.accelerator.backward(loss)

    def read_later(self, values: Tensor) -> Callable[[], list[float]]:
        """Begin to copy a vector to the host; only a call of what is returned waits for it."""
        values = values.detach().to("cpu", non_blocking=True, copy=True)
        copied = torch.cuda.Event() if self.device.type == "cuda" else None  # type: ignore[no-untyped-call]
        if copied:
            copied.record(torch.cuda.current_stream(self.device))

        def read() -> list[float]:
            if copied:
                copied.synchronize()
            return cast("list[float]", values.tolist())

        return read

    def recover(self) -> None:
        """After a broken-off update, on all ranks: give back what only it still holds."""
        for network in self._distributed:
            # A forward without its backward leaves the reducer waiting for gradients to average.
            network.reducer._reset_state()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def rng_state(self) -> dict[str, Tensor]:
        """The random state of this rank."""
        state = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    def set_rng_state(self, state: Mapping[str, Tensor]) -> None:
        """Resume from a state of `rng_state`; a state of the other kind of device is left alone."""
        torch.set_rng_state(state["cpu"])
        if self.device.type == "cuda" and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], self.device)

    def peak_memory_gib(self) -> float:
        """Most memory used so far by this rank: of the GPU, or resident in RAM."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**30
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    def free_memory(self) -> int:
        """Bytes that this rank may still take: of its GPU, or its part of its node's RAM."""
        if self.device.type == "cuda":
            return torch.cuda.mem_get_info(self.device)[0]
        return available_ram() // self.local_world_size

    def device_names(self) -> list[str]:
        """The name of every rank's GPU or processor, by rank."""
        on_gpu = self.device.type == "cuda"
        return self.all_gather_object(torch.cuda.get_device_name(self.device) if on_gpu else cpu_name())

    def describe(self) -> str:
        """One line: device, ranks, threads and what decided on them, precision."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        precision = {"no": "fp32"}.get(self.accelerator.mixed_precision, self.accelerator.mixed_precision)
        ranks = "1 rank" if self.world_size == 1 else f"{self.world_size} ranks"
        return f"{name}, {ranks}, {self.threads.number} threads each ({self.threads.source}), {precision}"

    def close(self) -> None:
        """Leave the process groups."""
        self.leave()
        gc.collect()
        self.accelerator.end_training()


def _prepare_compiler(*, on_gpu: bool) -> None:
    """Get ready for `torch.compile`.

    Args:
        on_gpu: Whether networks run on a GPU, for which torch brings its own compiler.

    Raises:
        UserError: there is no C++ compiler for networks on a CPU.
    """
    # Slow to import, and only needed where networks are compiled.
    import torch._dynamo as dynamo
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    # In mixed precision all networks go through one function of Accelerate's, and beyond the limit, by default 8 graphs
    # of a function, a network would silently not be compiled.
    dynamo.config.recompile_limit = 64
    if on_gpu:
        return
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise UserError(
            "train.compile needs a C++ compiler on a CPU, and there is none: install g++ or leave it out"
        ) from None
