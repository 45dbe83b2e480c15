"""One run, from its configuration to its result: preparing the folder, resuming, training, writing the result."""

from __future__ import annotations

import itertools
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from srgan_dist.checkpointing.manager import Checkpoints, step_of
from srgan_dist.config.compatibility import as_begun, learning_digest
from srgan_dist.config.root import Config
from srgan_dist.distributed.launch import process_rank, trial_folder
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.distributed.signals import StopGracePeriod, StopSignals, stop_signals
from srgan_dist.distributed.watchdog import watchdog
from srgan_dist.errors import Failure, Stopped, UserError
from srgan_dist.inference.generator import SRGenerator
from srgan_dist.records.metrics import METRICS
from srgan_dist.tracking.console import default_logging
from srgan_dist.tracking.run_info import read_run_info, write_run_info
from srgan_dist.tracking.run_logger import RunLogger
from srgan_dist.tracking.train_log import TrainLog, train_log
from srgan_dist.tracking.wandb_start import Labels
from srgan_dist.training.build import build_trainer, check_networks
from srgan_dist.training.repeat import beside_parent, compare_with_parent
from srgan_dist.training.restart import after_restart, record_start
from srgan_dist.training.saved_counters import load_state
from srgan_dist.training.trainable_network import NonFiniteLoss
from srgan_dist.training.trainer import Trainer
from srgan_dist.utils.files import clear_leftovers, whole_file, why_unwritable, write_whole
from srgan_dist.utils.locks import LOCK_NAME, FolderLock
from srgan_dist.utils.names import beside, expand_home
from srgan_dist.utils.system_errors import explain
from srgan_dist.utils.times import utc

log = logging.getLogger("srgan_dist")


_PATIENCE = 10.0  # seconds for another run in this folder to end
STOPPED = "stopped.json"  # in the run's folder: the run was stopped by a signal, and resumes when it is started again
FAILED = "failed.json"  # in the run's folder: after which step the run failed, and why


def train(config: Config, *, stop: threading.Event | None = None, parent: Path | None = None) -> dict[str, Any]:
    """Train to the end; a run whose folder has checkpoints resumes from the newest sound one.

    Log lines go where the program sends those of ``srgan_dist``; where it has not decided, to stderr.

    In the main thread SIGTERM, SIGINT (Ctrl-C, a notebook's interrupt), SIGUSR1 and SIGHUP stop the run at the next
    step boundary with everything saved; a second SIGINT stops it at once. In another thread no signal does, since
    Python hands them to the main thread alone: there ``stop`` does. A process trains one run at a time.

    Args:
        config: The resolved configuration.
        stop: Set by another thread to stop the run as a signal would.
        parent: Folder of the run that this one repeats: run.json names it, and the data is compared. Where run.dir is
            this folder, the new run gets one beside it: ``NAME-again``.

    Returns:
        The content of result.json: ``name``, ``started`` and ``finished`` (UTC), ``hours`` (of training), ``steps``,
        ``images``, ``seconds``, ``parameters``, and, with validation images, ``bicubic``, ``final`` and after
        pretraining ``pretrained``; each of these has ``psnr_y`` (dB), ``ssim_y``, ``perceptual`` and what
        validate.measures asks for, and ``identical`` where images were equal to HR, which are not in the mean of
        ``psnr_y``. ``best`` has for each measure the best ``value`` of all validations and its ``step``.

    Raises:
        UserError: The configuration does not match the machine, the data or the checkpoint.
        Failure: A loss was not finite, a checkpoint could not be written, or the disk is full.
        Stopped: It was asked to stop; everything is saved, and the same call resumes it.

    Example:
        In a notebook whose cells stay free meanwhile:

        >>> from concurrent.futures import ThreadPoolExecutor
        >>> stop = threading.Event()
        >>> run = ThreadPoolExecutor(1).submit(train, config, stop=stop)
        >>> run.result()["final"]["psnr_y"]  # waits for the end; stop.set() brings it about earlier
    """
    is_main = process_rank() == 0
    with default_logging(is_main=is_main), train_log(is_main=is_main) as lines, stop_signals(stop) as signals:
        return _train(config, signals, lines, parent)


def _train(config: Config, signals: StopSignals, lines: TrainLog, parent: Path | None) -> dict[str, Any]:
    config = config.model_copy(update={"run": config.run.model_copy(update={"dir": trial_folder(config.run.dir)})})
    runtime = Runtime(
        precision=config.train.precision,
        channels_last=config.train.channels_last,
        compile=config.train.compile,
        threads=config.train.threads,
        shares_memory_errors=config.data.micro_batch == "auto",
        num_ranks=config.run.ranks,
        timeout=config.run.hang_seconds
        + 60.0,  # longer than the watchdog, whose report says more than a collective's timeout
    )
    log.info("%s", runtime.describe())
    for line in runtime.ignored_settings if runtime.is_main else ():
        log.warning("%s", line)
    check_networks(config, runtime)
    config = after_restart(beside_parent(config, parent, runtime), runtime)
    with _held_folder(config, runtime) as set_aside:
        return _train_in_folder(config, runtime, signals, set_aside, lines, parent)


def _train_in_folder(
    config: Config,
    runtime: Runtime,
    signals: StopSignals,
    set_aside: Path | None,
    lines: TrainLog,
    parent: Path | None,
) -> dict[str, Any]:
    run_logger = RunLogger(
        folder=config.run.dir,
        accelerator=runtime.accelerator,
        tracker=config.tracker.name,
        labels=Labels(**config.tracker.model_dump(exclude={"name", "log_weights"})),
        log_weights=config.tracker.log_weights,
        goals={key: goal for key, goal in METRICS.items() if not config.why_unmeasured(key.removeprefix("val/"))},
        config=config.shown(),
        num_steps=config.train.steps,
        pretrain_steps=config.train.pretrain_steps,
    )
    checkpoints = Checkpoints(
        config.run.dir / "checkpoints",
        keep=config.checkpoint.keep,
        runtime=runtime,
        stop_grace=StopGracePeriod(config.run.stop_lead) if runtime.is_main else None,
    )
    ended_by: BaseException | None = None
    try:
        trainer = _start(config, runtime, run_logger, checkpoints, set_aside, signals, parent)
        if runtime.is_main:
            lines.begin(config.run.dir)  # not before: a mistake leaves no file
        with _end_recorded(config.run.dir, trainer, runtime, signals):
            with watchdog(runtime, seconds=config.run.hang_seconds, step=lambda: trainer.step):
                trainer.run()
            result = _finish(config, trainer, runtime)
        trainer.data.stream.close()
    except BaseException as error:
        ended_by = error
        if isinstance(error, Failure) and error.on_every_rank:
            checkpoints.wait()  # checkpoints from before the failure are valid
        if not isinstance(error, (OSError, RuntimeError)) or (lack := explain(error, config.run.dir)) is None:
            raise
        kind = UserError if isinstance(error, PermissionError) else Failure
        raise kind(f"{lack} and start again: the run resumes") from None
    finally:
        checkpoints.give_up()
        run_logger.close(ended_by)
        runtime.close()
    return result


@contextmanager
def _end_recorded(folder: Path, trainer: Trainer, runtime: Runtime, signals: StopSignals) -> Iterator[None]:
    """Around the training: leave in the run's folder why it ended early."""
    try:
        yield
    except Stopped:
        if runtime.is_main:
            marker = {"signal": signals.received or "on another rank", "step": trainer.step}
            write_whole(folder / STOPPED, json.dumps(marker))
        raise
    except Exception as error:
        if runtime.is_main:
            lack = explain(error, folder) if isinstance(error, (OSError, RuntimeError)) else None
            reason = lack or " ".join(str(error).split()) or type(error).__name__
            with suppress(OSError):  # a full disk, maybe; the error itself is reported all the same
                if isinstance(error, NonFiniteLoss):  # its step was never logged
                    trainer.run_logger.metrics(trainer.step, {"alert": reason})
                write_whole(folder / FAILED, json.dumps({"step": trainer.step, "reason": reason}, indent=2) + "\n")
        raise


def _start(
    config: Config,
    runtime: Runtime,
    run_logger: RunLogger,
    checkpoints: Checkpoints,
    set_aside: Path | None,
    signals: StopSignals,
    parent: Path | None,
) -> Trainer:
    """Build the trainer, restore a checkpoint if there is one, and log which."""
    folder = config.run.dir
    source = checkpoints.newest() if config.run.resume in ("auto", "never") else expand_home(config.run.resume)
    state = load_state(checkpoints, source) if source else None
    if state:
        config = as_begun(config, state.counters["origin"])
    trainer = build_trainer(
        config,
        runtime=runtime,
        run_logger=run_logger,
        checkpoints=checkpoints,
        signals=signals,
        position=state.counters if state else None,
    )
    compare_with_parent(config, parent, runtime, shards=trainer.data.fingerprint["shards"])
    tracker_id, is_resumed = None, False
    if state and source:
        trainer.restore(state, source)
        is_resumed = source.resolve().parent == checkpoints.folder.resolve()
        if is_resumed:
            tracker_id, trainer.saved_step = state.counters["tracker_id"], trainer.step
        for abandoned in checkpoints.set_aside_after(trainer.step):
            log.info("%s: belongs to a later step and is no longer used", abandoned)
        log.info("%s: resumes after step %d of %d, from %s", folder, trainer.step, config.train.steps, source)
    else:
        old = f"; the previous run was moved to {set_aside}" if set_aside else ""
        log.info("%s: starts from scratch%s", folder, old)
    devices = runtime.device_names()
    if runtime.is_main:
        for record in (STOPPED, FAILED):
            (folder / record).unlink(missing_ok=True)
        for place in (folder, folder / "samples", *(folder / "samples").glob("*/")):
            clear_leftovers(place)
        checkpoints.clear_leftovers()
        trainer.best.clear_leftovers()
        trainer.best.arrange(map(step_of, checkpoints.found()), history=trainer.best.history)
        record_start(folder, step=trainer.step)
        write_run_info(
            folder,
            step=trainer.step,
            is_resumed=is_resumed,
            devices=devices,
            seed=config.run.seed,
            data_digest=trainer.data.fingerprint["shards"],
            parent=parent,
        )
        # So that the run resumes when it is started again with this file.
        resolved = config.model_copy(update={"run": config.run.model_copy(update={"resume": "auto"})})
        write_whole(folder / "config.yaml", resolved.to_yaml(), private=config.holds_secrets)
    networks = trainer.take_step.networks.items()
    parameters = {name: sum(tensor.numel() for tensor in trained.network.parameters()) for name, trained in networks}
    run_logger.start(
        step=trainer.step,
        tracker_id=tracker_id,
        configuration=learning_digest(config),
        facts={"parameters": parameters},
    )
    log.info("%s", trainer.describe())
    return trainer


@contextmanager
def _held_folder(config: Config, runtime: Runtime) -> Iterator[Path | None]:
    """Hold the run's folder for this run alone; with run.resume=never, rename an existing run first.

    Yields:
        The old run's new name, or None.
    """
    folder, moved, problem = config.run.dir, None, None
    lock = FolderLock(folder)
    if runtime.is_main:
        try:
            problem = _taken(lock)
            if not problem and config.run.resume == "never" and any(p.name != LOCK_NAME for p in folder.iterdir()):
                moved = _free_name(folder)
                lock.rename(moved)
                problem = _taken(lock)
        except OSError as error:
            problem = f"which cannot be written ({why_unwritable(folder) or error.strerror})"
    try:
        problem, moved = runtime.broadcast((problem, moved))
        if problem:
            raise UserError(f"run.dir is {folder}, {problem}")
        yield moved
    finally:
        lock.release()


def _taken(lock: FolderLock) -> str | None:
    """Try to hold a run's folder; returns what is wrong."""
    # A run that was killed may still be saving: its ranks notice at their next step that their launcher died.
    if holder := lock.acquire(patience=_PATIENCE):
        return f"where another run trains ({holder}): wait for its end, stop it, or choose another run.dir"
    return None


def _free_name(folder: Path) -> Path:
    candidates = (beside(folder, after=f".{number}") for number in itertools.count(1))
    return next(name for name in candidates if not name.exists())


def _finish(config: Config, trainer: Trainer, runtime: Runtime) -> dict[str, Any]:
    """Write result.json and the final sample image."""
    folder = config.run.dir
    qualities: dict[str, Any] = {}
    if trainer.validator:
        qualities["bicubic"] = trainer.validator.measure(trainer.validator.bicubic)
        qualities |= {name: trainer.results[name] for name in ("pretrained", "final") if name in trainer.results}
    started, finished = _start_and_end(folder, trainer) if runtime.is_main else (None, None)
    result = {
        "name": folder.resolve().name,
        **qualities,
        "best": trainer.best.best_values(),
        "steps": trainer.step,
        "images": trainer.consumed,
        "started": started,
        "finished": finished,
        "hours": round(trainer.clock.seconds / 3600, 4),
        "seconds": round(trainer.clock.seconds, 1),
        "parameters": sum(parameter.numel() for parameter in trainer.take_step.generator.network.parameters()),
    }
    weights = {"final": folder / "weights" / "generator.safetensors", "best": folder / "weights" / "best.safetensors"}
    weights = {which: path for which, path in weights.items() if path.is_file()}
    trainer.run_logger.finish(result, weights)
    if runtime.is_main and trainer.validator:
        columns = {"SR": trainer.take_step.ema.network}
        pretrained = folder / "weights" / "pretrained.safetensors"
        if "pretrained" in trainer.results and pretrained.exists() and config.adversarial_steps:
            before = SRGenerator.from_pretrained(pretrained, device=runtime.device, allow_class=config.generator.name)
            columns = {"pretrained": before, "GAN": trainer.take_step.ema.network}
        crops = {label: trainer.validator.crops(network) for label, network in columns.items()}
        (folder / "samples").mkdir(exist_ok=True)
        with whole_file(folder / "samples" / "final.png") as temporary:
            trainer.validator.contact_sheet(crops).save(temporary, format="PNG")
    return result


def _start_and_end(folder: Path, trainer: Trainer) -> tuple[str | None, str]:
    """When the run began, None if that is unknown, and when it came to its end: a finished run ended when it did."""
    info = read_run_info(folder)
    started = info.get("started") if info else None
    if trainer.step == trainer.first_step:
        with suppress(OSError, ValueError, KeyError, TypeError):  # none, or none of this version
            return started, str(json.loads((folder / "result.json").read_text(encoding="utf-8"))["finished"])
    return started, utc()
