"""``srgan-dist doctor``: checks what would make a run fail, one line for each check: ok, a warning or a failure."""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any, Literal, NamedTuple

import torch
from packaging.requirements import Requirement
from rich.table import Table
from rich.text import Text

from srgan_dist.config.root import Config
from srgan_dist.data.build import build_shards, micro_batch_size
from srgan_dist.data.checking.check import check_shards
from srgan_dist.data.checking.report import Finding
from srgan_dist.data.remote.sources import PIPE
from srgan_dist.distributed.environment import ignored_settings
from srgan_dist.distributed.memory import used_ram
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.errors import Failure, UserError
from srgan_dist.evaluation.build import lacking_weights, on_this_machine
from srgan_dist.models.build import build_discriminator, build_features, build_generator, build_learned_distance
from srgan_dist.models.pretrained import hed_file, torchvision_file
from srgan_dist.tracking.wandb_start import wandb_mode
from srgan_dist.training.build import best_by, check_networks
from srgan_dist.training.computable import smallest_micro_batch
from srgan_dist.training.memory_estimate import Device, Unpredictable, predict_bytes
from srgan_dist.training.without_memory import without_memory
from srgan_dist.utils.files import why_unwritable

Verdict = Literal["ok", "warn", "fail"]

_SAMPLES = 4  # of each shard, whose pixels are checked
_SKEW = 2.0  # seconds between two nodes' clocks, by which logs and W&B's time axis would be off
_SPARE_FILES = 256  # in addition to the shards: libraries, sockets, workers' pipes
_INEXACT = 0.15  # predictions of memory may be off by this fraction
_REDUCE_SECONDS = 2.0
_REDUCE_BYTES = 16 << 20  # about the generator's gradient


class Answer(NamedTuple):
    """The result of one check.

    Attributes:
        name: Name of the check.
        verdict: ``ok``, ``warn`` if the run may fail, ``fail`` if it will.
        text: What was found, and what to do.
    """

    name: str
    verdict: Verdict
    text: str


def examine(config: Config | None, runtime: Runtime, *, run_commands: bool = False) -> list[Answer]:
    """Run all checks. Every rank must call it.

    Args:
        config: The configuration of the run; None omits the checks that need one.
        runtime: The ranks.
        run_commands: Run the commands in data.train (`pipe:`) as training would.

    Returns:
        Rank 0's answers, and the other ranks' answers that are not ok and not among them.
    """
    questions: dict[str, Callable[[], Iterator[Answer]]] = {"versions": _versions}
    questions["devices"] = lambda: _devices(config, runtime)
    # The runtime here is not that of the run, which has other settings.
    asked = (
        ignored_settings(precision=config.train.precision, compile=config.train.compile)
        if config
        else runtime.ignored_settings
    )
    questions["environment"] = lambda: (Answer("environment", "warn", line) for line in asked)
    if config:
        questions |= {
            "batch": lambda: _batch(config, runtime),
            "memory": lambda: _memory(config, runtime),
            "shards": lambda: _shards(config, runtime, run_commands=run_commands),
            "disk": lambda: _disk(config),
            "perceptual": lambda: _perceptual(config),
            "additional": lambda: _additional(config),
            "measures": lambda: _measures(config),
            "tracker": lambda: _tracker(config),
        }
    questions |= {"clocks": lambda: _clocks(runtime), "ranks": lambda: _ranks(runtime)}
    answers: list[Answer] = []
    for name, question in questions.items():
        try:
            answers += question()
        except (UserError, Failure) as error:
            if all(str(error) != answer.text for answer in answers):  # one reason may fail several checks
                answers.append(Answer(name, "fail", str(error)))
    first, *others = runtime.all_gather_object(answers)
    return first + [
        answer._replace(name=f"{answer.name} (rank {rank})")
        for rank, theirs in enumerate(others, start=1)
        for answer in theirs
        if answer.verdict != "ok" and answer not in first
    ]


def _versions() -> Iterator[Answer]:
    found, wrong = [], []
    for line in metadata.requires("srgan-dist") or []:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is not installed")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, allowed is {requirement.specifier}")
        if requirement.name in ("torch", "accelerate", "wandb"):
            found.append(f"{requirement.name} {version}")
    if wrong:
        yield Answer("versions", "fail", "; ".join(wrong) + ": pip install -e .")
        return
    yield Answer("versions", "ok", ", ".join(found))


def _devices(config: Config | None, runtime: Runtime) -> Iterator[Answer]:
    if runtime.device.type == "cpu":
        text = f"{runtime.describe()}: no GPU is seen" + (
            "" if torch.version.cuda else ", and this torch is built without CUDA"
        )
        yield Answer("devices", "warn", text)
        return
    free, total = torch.cuda.mem_get_info(runtime.device)
    text = f"{runtime.describe()}; {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    if free < 0.9 * total:
        yield Answer("devices", "warn", f"{text}: another process holds the rest")
        return
    if config and config.train.precision == "bf16" and not torch.cuda.is_bf16_supported():
        yield Answer("devices", "fail", f"{text}, without bf16: set train.precision=fp32")
        return
    yield Answer("devices", "ok", text)


def _batch(config: Config, runtime: Runtime) -> Iterator[Answer]:
    check_networks(config, runtime)
    size = micro_batch_size(config.data, world_size=runtime.world_size)
    per_rank_batch = config.data.batch_size // runtime.world_size
    per_rank = f"{size} x {per_rank_batch // size} micro-batches"
    text = f"{config.data.batch_size} patches = {per_rank} x {runtime.world_size} ranks"
    yield Answer("batch", "ok", text)


def _memory(config: Config, runtime: Runtime) -> Iterator[Answer]:
    size = micro_batch_size(config.data, world_size=runtime.world_size)
    per_rank_batch = config.data.batch_size // runtime.world_size
    # auto may go down to it, and the prediction knows one rank alone, as does BatchNorm in it.
    try:
        smallest = smallest_micro_batch(config, per_rank_batch=per_rank_batch, batchnorm_ranks=1)
    except UserError as error:
        if runtime.batchnorm_ranks > 1:  # together they can, or "batch" has failed
            yield Answer("memory", "warn", f"unknown: a rank alone, which is what is predicted, cannot train ({error})")
            return
        raise
    size = smallest if config.data.micro_batch == "auto" else max(size, smallest)
    device: Device = "cuda" if runtime.device.type == "cuda" else "cpu"
    try:
        need = predict_bytes(
            config, micro_batch=size, per_rank_batch=per_rank_batch, recompute=config.train.recompute, device=device
        )
    except Unpredictable as error:
        yield Answer("memory", "warn", f"unknown: {error}")
        return
    room = runtime.free_memory() + (used_ram() if device == "cpu" else 0)
    ratio, patches = need / room, "1 patch" if size == 1 else f"{size} patches"
    text = f"{need / 2**30:.1f} GiB for {patches} at a time, as predicted, {room / 2**30:.1f} GiB free"
    verdict: Verdict = "ok" if ratio < 1 - _INEXACT else "warn" if ratio < 1 + _INEXACT else "fail"
    yield Answer("memory", verdict, text if verdict == "ok" else f"{text}: srgan-dist plan prints what fits")


def _shards(config: Config, runtime: Runtime, *, run_commands: bool) -> Iterator[Answer]:
    data = config.data
    commands = [source for source in data.train if source.startswith(PIPE)]
    if commands and not run_commands:  # asking what would happen must not do it
        number = "1 command is" if len(commands) == 1 else f"{len(commands)} commands are"
        yield Answer(
            "commands", "warn", f"{number} not run (pipe:...), nor what is written checked: --run-commands does"
        )
        data = data.model_copy(update={"train": tuple(source for source in data.train if source not in commands)})
        if not data.train:
            return
    shards = build_shards(data)
    text = f"{len(shards.shard_paths)} shards, {len(shards)} samples, x{shards.scale}"
    yield Answer("shards", "ok", f"{text}, their sizes as their manifest says")
    yield _files(len(shards.shard_paths))
    if shards.is_remote:
        shards.fetch(0)
        yield Answer("pixels", "ok", f"the first of the remote shards is in {config.data.cache_dir}")
        return
    if not runtime.is_main:
        return
    faults: list[Finding] = []
    degraded = config.data.degradation.kind != "stored"
    summary = check_shards(
        list(data.train),
        on_finding=lambda finding: faults.append(finding) if finding.is_fault else None,
        sample=_SAMPLES,
        any_kernel=degraded,
    )
    if faults:
        more = f" (and {len(faults) - 1} more; srgan-dist check reports all)" if len(faults) > 1 else ""
        yield Answer("pixels", "fail", f"{faults[0]}{more}")
    else:
        yield Answer("pixels", "ok", f"{summary.num_inspected} checked samples are valid")


def _files(num_shards: int) -> Answer:
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = num_shards + _SPARE_FILES
    text = f"{limit} open files allowed, {needed} are enough"
    if limit >= needed:
        return Answer("files", "ok", text)
    remedy = f"ulimit -n {needed}" if hard >= needed else "pack larger shards, or ask for a higher limit"
    return Answer("files", "warn", f"{text}: {remedy}")


def _disk(config: Config) -> Iterator[Answer]:
    if problem := why_unwritable(config.run.dir):
        yield Answer("run.dir", "fail", f"{config.run.dir} cannot be written ({problem})")
        return
    yield Answer("run.dir", "ok", f"{config.run.dir} can be written")
    with without_memory():
        generator = _num_parameters(build_generator(config.generator, scale=config.data.scale))
        discriminator = _num_parameters(build_discriminator(config.discriminator)) if config.adversarial_steps else 0
    one = 4 * (4 * generator + 3 * discriminator)  # weights and two moments, and the generator's average
    needed = one * (config.checkpoint.keep + 1)  # the new one is complete before the oldest is deleted
    folder = next(path for path in (config.run.dir, *config.run.dir.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    text = f"{needed / 2**30:.2f} GiB for {config.checkpoint.keep} checkpoints, {free / 2**30:.1f} GiB free"
    verdict: Verdict = "ok" if free > 2 * needed else "warn" if free > needed else "fail"
    yield Answer("space", verdict, text if verdict == "ok" else f"{text}: make room, or lower checkpoint.keep")


def _num_parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _perceptual(config: Config) -> Iterator[Answer]:
    perceptual = config.loss.perceptual
    if not perceptual.weight or not config.adversarial_steps:
        yield Answer("perceptual", "ok", "not used")
        return
    if perceptual.network != "efficientnet_lite0" and (missing := _missing(perceptual.network, perceptual.weights)):
        yield Answer("perceptual", "fail", missing)
        return
    build_features(perceptual)
    if perceptual.weights == "random":
        yield Answer("perceptual", "warn", f"{perceptual.network} is untrained: loss.perceptual.weights=random")
        return
    yield Answer("perceptual", "ok", f"{perceptual.network}: weights are here")


def _missing(network: Literal["vgg16", "vgg19"], weights: str) -> str | None:
    """How to get the weights of a feature network if they are not here: asking must not download them."""
    if weights not in ("auto", "hed"):
        return None
    path, name = (hed_file(), "hed") if weights == "hed" else (torchvision_file(network), network)
    return None if path.exists() else f"{path} is not there: srgan-dist fetch {name}, on a machine with network"


def _additional(config: Config) -> Iterator[Answer]:
    for loss in config.loss.learned if config.adversarial_steps else []:
        if missing := _missing("vgg16", loss.weights):
            yield Answer(loss.kind, "fail", missing)
            continue
        build_learned_distance(loss)
        if loss.weights == "random":
            yield Answer(loss.kind, "warn", "VGG16 is untrained: weights: random in loss.additional")
        else:
            yield Answer(loss.kind, "ok", "weights are here")


def _measures(config: Config) -> Iterator[Answer]:
    """Whether validations can measure what they are asked for."""
    asked = config.validation.measures
    if not config.data.validation:
        yield Answer("measures", "ok", "not used: data.validation is empty")
    elif lacking := lacking_weights(asked):
        networks = sorted({"vgg16" if weights == "auto" else weights for weights in lacking.values()})
        fetch = ", ".join(f"srgan-dist fetch {network}" for network in networks)
        text = f"the weights for {', '.join(lacking)} are not here: {fetch}, on a machine with network"
        yield Answer("measures", "fail", text)
    else:
        if asked == "auto":
            best_by(config, {*on_this_machine(None), *(["perceptual"] if config.has_perceptual_network else [])})
        yield Answer("measures", "ok", asked if isinstance(asked, str) else ", ".join(asked) or "none")


def _tracker(config: Config) -> Iterator[Answer]:
    if config.tracker.name != "wandb":
        yield Answer("tracker", "ok", config.tracker.name)
        return
    mode, why = wandb_mode()
    if mode == "online":
        yield Answer("tracker", "ok", "W&B answers")
        return
    yield Answer("tracker", "warn", f"W&B will be {mode}" + (f": {why}" if why else ""))


def _clocks(runtime: Runtime) -> Iterator[Answer]:
    runtime.barrier()
    times = [row[0] for row in runtime.gather(torch.tensor([time.time()], dtype=torch.float64))]
    skew = max(times) - min(times)
    verdict: Verdict = "ok" if skew < _SKEW else "warn"
    yield Answer("clocks", verdict, f"{skew:.2f} s apart" + ("" if verdict == "ok" else ": start NTP on every node"))


def _ranks(runtime: Runtime) -> Iterator[Answer]:
    if runtime.world_size == 1:
        yield Answer("ranks", "ok", "1: nothing to reduce")
        return
    total = runtime.reduce_sum(torch.ones((), device=runtime.device)).item()  # the first one connects
    if total != runtime.world_size:
        yield Answer("ranks", "fail", f"the sum of {runtime.world_size} ones over the ranks is {total:g}")
        return
    data = torch.zeros(_REDUCE_BYTES // 4, device=runtime.device)
    started, rounds = time.perf_counter(), 0
    while runtime.all_agree(time.perf_counter() - started < _REDUCE_SECONDS):
        runtime.reduce_sum(data)
        rounds += 1
    data[0].item()  # waits for the device
    seconds = time.perf_counter() - started
    # In a ring, each rank sends 2 (n - 1) / n of the data.
    sent = rounds * _REDUCE_BYTES * 2 * (runtime.world_size - 1) / runtime.world_size
    yield Answer("ranks", "ok", f"{runtime.world_size}: all-reduce at {8 * sent / seconds / 1e9:.2f} Gb/s a rank")


def to_table(answers: list[Answer]) -> Table:
    """Render the answers as a table for the terminal."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    for name, verdict, text in answers:
        table.add_row(name, Text(verdict, style=colours[verdict]), text)
    return table


def to_json(answers: list[Answer]) -> list[dict[str, Any]]:
    """Convert the answers to JSON."""
    return [answer._asdict() for answer in answers]
