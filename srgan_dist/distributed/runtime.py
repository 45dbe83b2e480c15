"""The machine: devices, processes, precision, threads, and what all ranks must agree on."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, broadcast_object_list
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore, PrefixStore
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from srgan_dist.distributed.collectives import SumOverRanks
from srgan_dist.distributed.compiler import prepare_compiler
from srgan_dist.distributed.launch import ranks_asked_for
from srgan_dist.distributed.memory import available_ram
from srgan_dist.errors import Failure, UserError

T = TypeVar("T")
_DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
log = logging.getLogger("srgan_dist")


class OutOfMemory(Failure):
    """This rank or another ran out of memory within an update; where it is shared, all ranks know."""


class Runtime:
    """One rank's view of the run: a thin layer over Accelerate, and the only place that knows the hardware.

    Args:
        precision: ``fp32``, or ``bf16`` or ``fp16`` for autocast with fp32 weights.
        channels_last: Keep activations and weights of convolutions in NHWC order.
        compile: Compile networks, each at its first call.
        threads: CPU threads of this rank; None: the cores it may use, divided by the ranks of its node.
        tracker: ``wandb``, ``tensorboard`` or None.
        folder: The run's folder, for trackers that write files.
        shares_memory_errors: Ranks tell each other when one runs out of memory, at the price of a vote an update.
        num_ranks: Ranks that there must be, or None.
        timeout: Seconds after which a collective that not all ranks have come to is an error.

    Raises:
        UserError: Not as many ranks as there must be, started as several processes that do not know of each other, fp16
            without a GPU, bf16 on a GPU that lacks it, or ``compile`` without a compiler.
    """

    def __init__(
        self,
        *,
        precision: str = "fp32",
        channels_last: bool = True,
        compile: bool = False,
        threads: int | None = None,
        tracker: str | None = None,
        folder: str | None = None,
        shares_memory_errors: bool = False,
        num_ranks: int | None = None,
        timeout: float = 1800.0,
    ) -> None:
        if precision == "fp16" and not torch.cuda.is_available():
            raise UserError("train.precision is fp16, which needs a GPU; use bf16 or fp32")
        # Its search for the fastest convolution tries ones that want gigabytes of workspace, several times what the
        # networks take; read when cuDNN is loaded. MiB.
        os.environ.setdefault("CUDNN_CONV_WSCAP_DBG", "256")
        # Accelerate keeps one precision for the whole process; the next run of a notebook may have another.
        AcceleratorState._reset_state()
        self.accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),
            mixed_precision="no" if precision == "fp32" else precision,
            log_with=tracker,
            project_dir=folder,
            kwargs_handlers=[
                DistributedDataParallelKwargs(gradient_as_bucket_view=True),
                InitProcessGroupKwargs(timeout=timedelta(seconds=timeout)),
            ],
        )
        # One scaler would serve both networks, and an overflow of one would hold the other back: see LossScale.
        self.accelerator.scaler = None
        self.needs_loss_scale = precision == "fp16"
        self.device = self.accelerator.device
        self.rank = self.accelerator.process_index
        self.world_size = self.accelerator.num_processes
        self.is_main = self.accelerator.is_main_process
        hosts = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout)) if self.world_size > 1 else None
        self.shares_memory_errors = shares_memory_errors
        self._distributed: list[DistributedDataParallel] = []
        # Of one rank alone, a store in its own memory.
        shared = dist.distributed_c10d._get_default_store() if self.world_size > 1 else HashStore()
        self._store = PrefixStore("srgan_dist", shared)
        self._hosts = cast("dist.ProcessGroup | None", hosts)
        self.dtype = _DTYPES[self.accelerator.mixed_precision]
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._check_world(num_ranks)
        on_gpu = self.device.type == "cuda"
        if on_gpu and precision == "bf16" and not torch.cuda.is_bf16_supported():
            raise UserError("train.precision is bf16, which this GPU lacks; use fp32")
        self.compiles = compile
        if compile:
            prepare_compiler(on_gpu=on_gpu)
        self.local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        # Two ranks that each use every core are ten times slower than one.
        self.threads = threads or max(1, len(os.sched_getaffinity(0)) // self.local_world_size)
        torch.set_num_threads(self.threads)
        torch.backends.cudnn.benchmark = on_gpu  # crops have one size

    def _check_world(self, num_ranks: int | None) -> None:
        started = int(os.environ.get("WORLD_SIZE", "1"))
        asked = num_ranks or ranks_asked_for()
        if started == self.world_size and asked not in (None, started):
            raise UserError(
                f"{asked} ranks were asked for, but there {'is' if started == 1 else 'are'} {started}: on CPU start "
                "with 'accelerate launch --config_file launch/accelerate/cpu_two_ranks.yaml --num_processes "
                f"{asked} train.py ...', on GPUs with --multi_gpu, never with --cpu"
            )
        if started != self.world_size:
            raise UserError(
                f"{started} processes were started, but each sees {self.world_size}: on CPU start with "
                "'accelerate launch --config_file launch/accelerate/cpu_two_ranks.yaml train.py ...', "
                "never with --cpu"
            )
        kind = self.accelerator.distributed_type
        if kind not in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
            raise UserError(
                f"accelerate is configured for {kind.value}, but srgan-dist trains with DDP; "
                "use one of launch/accelerate/*.yaml by --config_file"
            )

    def prepare(self, network: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Wrap a network (DDP, autocast) and its optimizer; the network given stays usable without DDP."""
        if self.device.type == "cuda" and self.world_size > 1:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        wrapped, optimizer = self.accelerator.prepare(network, optimizer)
        if isinstance(wrapped, DistributedDataParallel):
            # Equal at the start; later they differ only by BatchNorm's running statistics, which no training forward
            # reads, and sending them before every forward would write into a graph that still waits for its backward.
            wrapped.broadcast_buffers = False
            self._distributed.append(wrapped)
        return wrapped, optimizer

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network to the device, in the run's memory format."""
        return network.to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload, no-any-return]

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

    def reduce_mean(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Average scalars over the ranks, in one collective, and read them: a host synchronisation."""
        if not values:
            return {}
        packed = torch.stack([value.detach().to(self.device, torch.float64) for value in values.values()])
        packed = cast("Tensor", self.accelerator.reduce(packed, reduction="mean"))
        return dict(zip(values, packed.tolist(), strict=True))

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

    def mean_over_ranks(self, value: Tensor) -> Tensor:
        """Average a tensor over the ranks, on the device; gradients flow back to every rank's."""
        if self.world_size == 1:
            return value
        self.check_room()
        mean: Tensor = SumOverRanks.apply(value) / self.world_size
        return mean

    def reduce_sum(self, value: Tensor) -> Tensor:
        """Add a tensor over the ranks (int64 wraps around)."""
        value = value.to(self.device)
        if self.world_size > 1:
            dist.all_reduce(value)
        return value

    def broadcast_tensor(self, value: Tensor) -> None:
        """Overwrite a tensor by rank 0's, in place."""
        if self.world_size > 1:
            dist.broadcast(value, src=0)

    def gather(self, value: Tensor) -> list[list[float]]:
        """Every rank's vector, by rank: a host synchronisation."""
        gathered = cast("Tensor", self.accelerator.gather(value.to(self.device)[None]))
        return cast("list[list[float]]", gathered.tolist())

    def all_gather_object(self, value: T) -> list[T]:
        """Every rank's object, by rank."""
        if self._hosts is None:
            return [value]
        values = cast("list[T]", [None] * self.world_size)
        dist.all_gather_object(values, value, group=self._hosts)
        return values

    def broadcast(self, value: T) -> T:
        """Give every rank the object of rank 0."""
        return cast("T", broadcast_object_list([value])[0])

    def all_agree(self, ok: bool) -> bool:
        """True where every rank says so: the only ground for a decision that changes control flow."""
        return not self.any_rank(not ok)

    def any_rank(self, wish: bool) -> bool:
        """True on every rank where it is true on one. Asked over the CPU: the device need not catch up."""
        if self._hosts is None:
            return wish
        votes = torch.tensor(int(wish))
        dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=self._hosts)
        return bool(votes.item())

    @contextlib.contextmanager
    def memory_shared(self) -> Iterator[None]:
        """Around an update: a rank that runs out of memory tells the others, which then do not wait for it.

        Raises:
            OutOfMemory: Here, or on another rank.
        """
        try:
            yield
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            if self.shares_memory_errors:
                self.any_rank(True)
            raise OutOfMemory(str(error).splitlines()[0]) from error

    def check_room(self) -> None:
        """Before a collective within an update: whether another rank ran out of memory and will not come to it.

        Raises:
            OutOfMemory: It did.
        """
        if self.shares_memory_errors and self.any_rank(False):
            raise OutOfMemory("another rank ran out of memory")

    def recover(self) -> None:
        """After a broken-off update, on all ranks: give back what only it still holds."""
        for network in self._distributed:
            # A forward without its backward leaves the reducer waiting for gradients to average.
            network.reducer._reset_state()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def publish(self, name: str, value: str) -> None:
        """Tell the other ranks something, without waiting for them; from any thread."""
        self._store.set(f"{name}/{self.rank}", value)

    def published(self, name: str) -> list[str | None]:
        """What each rank last told, by rank; None where it did not. From any thread."""
        keys = [f"{name}/{rank}" for rank in range(self.world_size)]
        return [self._store.get(key).decode() if self._store.check([key]) else None for key in keys]

    def barrier(self) -> None:
        """Wait for every rank."""
        self.accelerator.wait_for_everyone()

    def rng_state(self) -> dict[str, Tensor]:
        """The random state of this rank."""
        state = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    def set_rng_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state of `rng_state`; a state of the other kind of device is left alone."""
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

    def describe(self) -> str:
        """One line: device, ranks, threads, precision."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        precision = {"no": "fp32"}.get(self.accelerator.mixed_precision, self.accelerator.mixed_precision)
        ranks = "1 rank" if self.world_size == 1 else f"{self.world_size} ranks"
        return f"{name}, {ranks}, {self.threads} threads each, {precision}"

    def close(self) -> None:
        """End the trackers and leave the process groups, whose threads must not outlive the interpreter."""
        self._hosts, self._store = None, PrefixStore("srgan_dist", HashStore())
        gc.collect()
        self.accelerator.end_training()


def process_rank() -> int:
    """The rank of this process, before a `Runtime` exists."""
    return int(os.environ.get("RANK", "0"))
