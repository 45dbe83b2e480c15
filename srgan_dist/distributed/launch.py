"""How this process was started, and whether it knows of the others."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from srgan_dist.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator


_LAUNCH_SCRIPTS = ("accelerate-launch", "accelerate.commands.launch", "accelerate/commands/launch.py")
_OF_AGENTS = ("WANDB_SWEEP_ID", "WANDB_RUN_ID")
_PARENT = os.getppid()  # of a program, as it begins: its launcher may die while torch is loaded


def process_rank() -> int:
    """The rank of this process, also before torch is loaded."""
    return int(os.environ.get("RANK", "0"))


def num_processes() -> int:
    """Processes that a launcher started in all; 1 where none did. Known before torch is loaded, as is the rank."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def trial_folder(folder: Path) -> Path:
    """The folder of a run that an agent of W&B's started as a trial of a sweep: all of them have the same run.dir.

    Args:
        folder: run.dir.

    Returns:
        A folder below it named after the trial's W&B run; ``folder`` itself outside of a sweep, or where it is named
        after the trial already.
    """
    sweep, trial = os.environ.get("WANDB_SWEEP_ID"), os.environ.get("WANDB_RUN_ID")
    return folder / trial if sweep and trial and trial not in folder.parts else folder


def trial_environment(slot: int, *, parallel: int, num_gpus: int) -> dict[str, str]:
    """The environment of a trial that trains beside others on this machine.

    Args:
        slot: Which of the places for trials it has, from 0.
        parallel: Number of places.
        num_gpus: GPUs that this process may use.

    Returns:
        This process's, without what an agent of W&B's would have set; with the place's share of the GPUs, or of the
        cores where nobody has said how many a process takes.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _OF_AGENTS}
    # `accelerate` is found beside this Python also where its virtual environment is not activated.
    environment["PATH"] = f"{environment.get('PATH', os.defpath)}{os.pathsep}{Path(sys.executable).parent}"
    if num_gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(num_gpus)))
        devices = visible.split(",")
        mine = devices[slot::parallel] or [devices[slot % len(devices)]]
        return environment | {"CUDA_VISIBLE_DEVICES": ",".join(mine)}
    if parallel > 1 and "OMP_NUM_THREADS" not in environment:
        environment["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // parallel))
    return environment


class JobStart(NamedTuple):
    """Who started this process: what a later start of the same job has in common with it, and what not.

    Attributes:
        slurm_job: Slurm's number of the job, or of the array's task; None without Slurm.
        slurm_restarts: How often Slurm has requeued it.
        launcher: The process of torchrun or of ``accelerate launch`` that started this one, as host, number and start
            time; None without one that restarts its ranks.
    """

    slurm_job: str | None
    slurm_restarts: int
    launcher: str | None

    def is_restart_of(self, before: JobStart) -> bool:
        """Whether Slurm or the launcher, and not a person, started the same command again."""
        requeued = self.slurm_job == before.slurm_job and self.slurm_restarts > before.slurm_restarts
        return (self.slurm_job is not None and requeued) or (
            self.launcher is not None and self.launcher == before.launcher
        )


def job_start() -> JobStart:
    """Who started this process."""
    job, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    restarts = os.environ.get("SLURM_RESTART_COUNT", "")
    return JobStart(
        slurm_job=f"{job}_{task}" if job else os.environ.get("SLURM_JOB_ID"),
        slurm_restarts=int(restarts) if restarts.isdecimal() else 0,
        # Of a notebook's ranks the parent is the notebook, which starts the ranks of its next cell as well.
        launcher=_launcher() if "TORCHELASTIC_RUN_ID" in os.environ and not multiprocessing.parent_process() else None,
    )


def _launcher() -> str | None:
    # Not by TORCHELASTIC_RESTART_COUNT, which stays the same when ranks are started again since one joined or left.
    import psutil  # here, since a command's first line must not wait for it

    parent = psutil.Process().parent()
    return f"{socket.gethostname()} {parent.pid} {parent.create_time():.2f}" if parent else None


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
    parent = os.getppid() if multiprocessing.parent_process() else _PARENT
    is_launched = "TORCHELASTIC_RUN_ID" in os.environ or "launch" in _launch_words()
    # One that died meanwhile cannot be asked any more, but accelerate leaves this variable to what it starts.
    has_died = parent != os.getppid() and "ACCELERATE_MIXED_PRECISION" in os.environ
    return parent if is_launched or has_died else None


def ranks_asked_for() -> int | None:
    """What the command line of ``accelerate launch`` says, if that is what started this process.

    With ``--cpu`` it starts one process, whatever it was asked for, and says nothing.

    Returns:
        The number of processes asked for, or None.
    """
    value = launch_option("num_processes") or ""
    return int(value) if value.isdigit() else None


def launch_option(name: str) -> str | None:
    """The value of an option of ``accelerate launch``, if that is what started this process.

    Args:
        name: Such as ``num_processes``; with hyphens it is the same option.

    Returns:
        Its value; None where it was not given.
    """
    for word, following in pairwise([*_launch_words(), ""]):
        option, _, value = word.partition("=")
        if option.startswith("--") and option[2:].replace("-", "_") == name:
            return value or following
    return None


def launcher_environment() -> dict[str, str] | None:
    """The environment that torchrun or ``accelerate launch`` was started in; None where neither started this process.

    It lacks what they add for the ranks. Where it may not be read, it is taken to be empty.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ and not _launch_words():
        return None
    import psutil  # here, since a command's first line must not wait for it

    try:
        around = (process.environ() for process in psutil.Process().parents())
        # Between it and this process there may be a shell that binds ranks to cores.
        return next((variables for variables in around if "TORCHELASTIC_RUN_ID" not in variables), {})
    except (psutil.Error, OSError):  # not ours to look at
        return {}


def _launch_words() -> list[str]:
    """The command line of the ``accelerate launch`` that started this process; empty where none did."""
    import psutil  # here, since a command's first line must not wait for it

    try:
        parent = psutil.Process().parent()
        words = parent.cmdline() if parent else []
    except psutil.Error:  # not ours to look at
        return []
    is_command = "launch" in words and any(word.endswith("accelerate") for word in words)
    return words if is_command or any(word.endswith(_LAUNCH_SCRIPTS) for word in words) else []
