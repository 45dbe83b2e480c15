"""How this process was started, and whether it knows of the others."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING

from srgan_dist.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator


def process_rank() -> int:
    """The rank of this process, also before torch is loaded."""
    return int(os.environ.get("RANK", "0"))


def check_world(accelerator: Accelerator, num_ranks: int | None) -> None:
    """Refuse ranks that do not know of each other, or are not as many as there must be.

    Args:
        accelerator: As this process sees the ranks.
        num_ranks: Ranks that there must be, or None.

    Raises:
        UserError: Says how to start them.
    """
    from accelerate.utils import DistributedType

    started = int(os.environ.get("WORLD_SIZE", "1"))
    asked = num_ranks or ranks_asked_for()
    if started == accelerator.num_processes and asked not in (None, started):
        raise UserError(
            f"{asked} ranks were asked for, but there {'is' if started == 1 else 'are'} {started}: on CPU start "
            "with 'accelerate launch --config_file launch/accelerate/cpu_two_ranks.yaml --num_processes "
            f"{asked} train.py ...', on GPUs with --multi_gpu, never with --cpu"
        )
    if started != accelerator.num_processes:
        raise UserError(
            f"{started} processes were started, but each sees {accelerator.num_processes}: on CPU start with "
            "'accelerate launch --config_file launch/accelerate/cpu_two_ranks.yaml train.py ...', "
            "never with --cpu"
        )
    kind = accelerator.distributed_type
    if kind not in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
        raise UserError(
            f"accelerate is configured for {kind.value}, but srgan-dist trains with DDP; "
            "use one of launch/accelerate/*.yaml by --config_file"
        )


def launcher_pid() -> int | None:
    """The process of ``accelerate launch`` or ``torchrun`` that started this one and would end it, or None."""
    is_launched = "TORCHELASTIC_RUN_ID" in os.environ or "launch" in _launch_words()
    return os.getppid() if is_launched else None


def ranks_asked_for() -> int | None:
    """What the command line of ``accelerate launch`` says, if that is what started this process.

    With ``--cpu`` it starts one process, whatever it was asked for, and says nothing.

    Returns:
        The number of processes asked for, or None.
    """
    words = _launch_words()
    for word, following in pairwise([*words, ""]):
        name, _, value = word.partition("=")
        if name in ("--num_processes", "--num-processes"):
            value = value or following
            return int(value) if value.isdigit() else None
    return None


def _launch_words() -> list[str]:
    """The command line of the ``accelerate launch`` that started this process; empty where none did."""
    import psutil  # here, since a command's first line must not wait for it

    try:
        parent = psutil.Process().parent()
        words = parent.cmdline() if parent else []
    except psutil.Error:  # not ours to look at
        return []
    return words if "launch" in words and any(word.endswith("accelerate") for word in words) else []
