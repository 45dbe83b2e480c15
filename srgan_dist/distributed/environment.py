"""What the environment asks beside the configuration, which alone decides what is computed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from srgan_dist.distributed.launch import launch_option, launcher_environment
from srgan_dist.errors import UserError

_PREFIXES = ("ACCELERATE_", "FSDP_", "MEGATRON_LM_", "PARALLELISM_CONFIG_")
_OTHER_TRAINING = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "parallelism within a network",
}
# Where this process runs, and what it prints: not what it computes.
_MATTERLESS = {
    "ACCELERATE_USE_CPU",
    "ACCELERATE_CPU_AFFINITY",
    "ACCELERATE_DEBUG_MODE",
    "ACCELERATE_LOG_LEVEL",
    "ACCELERATE_DISABLE_RICH",
}
_DEFAULTS = {"", "no", "none", "false", "0", "default"}
_DECIDES = {
    "ACCELERATE_MIXED_PRECISION": "train.precision decides",
    "ACCELERATE_DOWNCAST_BF16": "train.precision decides",
    "ACCELERATE_FP8": "train.precision decides",
    "ACCELERATE_DYNAMO": "train.compile decides",
    "ACCELERATE_GRADIENT_ACCUMULATION": "data.micro_batch decides",
}
# Read by libraries below torch, where nothing can take them back.
_ROUNDING = (
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
)
_NO_COMPILER = ("TORCH_COMPILE_DISABLE", "TORCHDYNAMO_DISABLE")


@contextmanager
def configuration_alone() -> Iterator[None]:
    """Within it, Accelerate finds nothing in the environment that would win over, or add to, what it is given.

    Raises:
        UserError: The environment asks for another way of training, which nothing in the configuration stands for.
    """
    for name, what in _OTHER_TRAINING.items():
        if os.environ.get(name, "").lower() in ("1", "true", "yes", "on"):
            raise UserError(
                f"{name} asks for {what}, but srgan-dist trains with DDP: start with one of launch/accelerate/*.yaml "
                "by --config_file"
            )
    taken = {name: os.environ.pop(name) for name in list(os.environ) if _is_accelerates(name)}
    try:
        yield
    finally:
        os.environ.update(taken)


def ignored_settings(*, precision: str, compile: bool) -> list[str]:
    """What the environment asks otherwise than the configuration, a line each.

    Args:
        precision: The value of ``train.precision``.
        compile: The value of ``train.compile``.

    Returns:
        Lines that say what is ignored, or, of what cannot be, that it matters.
    """
    lines = []
    for name in sorted(filter(_is_accelerates, os.environ)):
        value = os.environ[name]
        is_ours = name == "ACCELERATE_MIXED_PRECISION" and value.lower() == precision
        if name.startswith("ACCELERATE_") and value.lower() not in _DEFAULTS and not is_ours:
            decides = next((text for begin, text in _DECIDES.items() if name.startswith(begin)), None)
            lines.append(f"{name}={value} is ignored: {decides or 'the configuration decides'}")
    steps = launch_option("gradient_accumulation_steps")  # which accelerate hands on to DeepSpeed alone
    if steps not in (None, "1"):
        lines.append(f"--gradient_accumulation_steps {steps} is ignored: data.micro_batch decides")
    for name in _ROUNDING:
        if os.environ.get(name, "").upper() not in ("", "STRICT"):
            lines.append(f"{name}={os.environ[name]} changes how float32 is rounded, and with it the result")
    for name in _NO_COMPILER:
        if compile and os.environ.get(name, "").lower() not in _DEFAULTS:
            lines.append(f"{name}={os.environ[name]} turns train.compile off: slower, with the same result")
    return lines


def _is_accelerates(name: str) -> bool:
    return name.startswith(_PREFIXES) and name not in _MATTERLESS


class Threads(NamedTuple):
    """The CPU threads of a rank, and what decided on them."""

    number: int
    source: str


def cpu_threads(configured: int | None, *, local_ranks: int) -> Threads:
    """How many CPU threads this rank computes with.

    Args:
        configured: The value of ``train.threads``.
        local_ranks: Ranks on this node.

    Returns:
        As configured, else as ``OMP_NUM_THREADS`` says, else this rank's part of the cores that it may use.

    Raises:
        UserError: ``OMP_NUM_THREADS`` is no number.
    """
    if configured:
        return Threads(configured, "train.threads")
    if asked := _omp_num_threads():
        first = asked.partition(",")[0].strip()  # the others are of regions within regions
        if not first.isdecimal() or int(first) < 1:
            raise UserError(
                f"OMP_NUM_THREADS is {asked!r}, allowed are whole numbers from 1: correct it, or set train.threads"
            )
        return Threads(int(first), "OMP_NUM_THREADS")
    # Two ranks that each use every core are ten times slower than one.
    return Threads(max(1, len(os.sched_getaffinity(0)) // local_ranks), "cores / ranks of the node")


def _omp_num_threads() -> str | None:
    """What a person set: launchers of their own accord set it to 1, which leaves most cores idle."""
    asked = launcher_environment()
    if asked is None:
        return os.environ.get("OMP_NUM_THREADS")
    option = launch_option("num_cpu_threads_per_process")
    return asked.get("OMP_NUM_THREADS") if option in (None, "0") else option  # 0 leaves it to accelerate
