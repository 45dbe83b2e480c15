"""From the configuration to the objects of a run; `build_step` makes those of the update."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from srgan_dist.checkpointing.best import BestWeights
from srgan_dist.checkpointing.manager import Checkpoints
from srgan_dist.config.compatibility import config_fingerprint, refuse_changes
from srgan_dist.config.root import Config
from srgan_dist.config.training import ScheduleConfig
from srgan_dist.data.build import build_shards, build_stream, micro_batch_size
from srgan_dist.degradations.build import build_degradation
from srgan_dist.distributed.memory import used_ram
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.distributed.signals import StopSignals
from srgan_dist.errors import UserError
from srgan_dist.evaluation.build import build_measures, build_validation_images, describe_auto
from srgan_dist.evaluation.image_measures import perceptual_measure
from srgan_dist.evaluation.test_sets import ImagePair
from srgan_dist.evaluation.validator import Validator
from srgan_dist.models.features import FeatureNetwork
from srgan_dist.tracking.run_logger import RunLogger
from srgan_dist.training.build_step import build_perceptual_network, build_schedule, build_step, in_autocast
from srgan_dist.training.collapse_monitor import CollapseMonitor, CollapseResponse, Limits
from srgan_dist.training.discriminator_schedule import DiscriminatorSchedule
from srgan_dist.training.micro_batch import MicroBatch
from srgan_dist.training.schedules import Intervals, Rates, instance_noise, learning_rate, ramped
from srgan_dist.training.trainer import Schedules, Services, Trainer, TrainingData
from srgan_dist.utils.measures import DISTANCES

log = logging.getLogger("srgan_dist")

_USABLE_FRACTION = 0.9  # of the free memory: predictions are not exact, and other processes grow, too


def build_rates(config: Config) -> Callable[[int], Rates]:
    """Build the function from a step to its learning rates, adversarial factor and noise."""

    def rate(schedule: ScheduleConfig, step: int, num_steps: int) -> float:
        return learning_rate(
            step,
            num_steps=num_steps,
            base=schedule.learning_rate,
            schedule=schedule.schedule,
            warmup_steps=schedule.warmup_steps,
            milestones=schedule.milestones,
            gamma=schedule.gamma,
            minimum=schedule.min_learning_rate,
        )

    pretrain_steps, optimizer, adversarial = config.train.pretrain_steps, config.optimizer, config.loss.adversarial

    def rates(step: int) -> Rates:
        if step <= pretrain_steps:
            return Rates(
                step=step,
                phase_step=step,
                is_pretraining=True,
                generator=rate(optimizer.pretrain, step, pretrain_steps),
            )
        in_phase, num_steps = step - pretrain_steps, config.adversarial_steps
        return Rates(
            step=step,
            phase_step=in_phase,
            is_pretraining=False,
            generator=rate(optimizer.generator, in_phase, num_steps),
            discriminator=rate(optimizer.discriminator, in_phase, num_steps),
            adversarial=ramped(in_phase, delay=config.train.d_warmup_steps, ramp=adversarial.ramp_steps),
            noise=instance_noise(
                in_phase, initial=adversarial.instance_noise, num_steps=adversarial.instance_noise_steps
            ),
            additional={
                loss.kind: ramped(in_phase, delay=loss.start, ramp=loss.ramp_steps) for loss in config.loss.additional
            },
        )

    return rates


def build_collapse_response(config: Config, *, schedule: DiscriminatorSchedule, is_main: bool) -> CollapseResponse:
    """Build the collapse monitor and the response to a collapse."""
    train, stability = config.train, config.stability
    limits = Limits(
        d_accuracy=stability.max_d_accuracy,
        grad_ratio=stability.grad_ratio,
        saturated=stability.max_saturated,
        psnr_drop=stability.max_psnr_drop,
    )
    start = train.pretrain_steps + train.d_warmup_steps
    return CollapseResponse(
        schedule=schedule,
        monitor=CollapseMonitor(limits, patience=stability.patience, start=start),
        action=stability.on_collapse,
        is_main=is_main,
    )


def build_trainer(
    config: Config,
    *,
    runtime: Runtime,
    run_logger: RunLogger,
    checkpoints: Checkpoints,
    signals: StopSignals,
    position: dict[str, Any] | None,
) -> Trainer:
    """Build a trainer with freshly initialised weights.

    Args:
        config: The resolved configuration.
        runtime: The machine and the other ranks.
        run_logger: Receives the metrics.
        checkpoints: Stores the training state.
        signals: Records whether this process was asked to stop.
        position: Counters of the checkpoint to resume from, or None for a new run.

    Raises:
        UserError: The configuration does not fit the data, the ranks or the checkpoint.
    """
    micro_batch = _micro_batch(config, runtime)
    data = _training_data(config, runtime, position)
    torch.manual_seed(config.run.seed)
    schedule = build_schedule(config, runtime=runtime)
    network = build_perceptual_network(config, runtime=runtime)
    images = build_validation_images(config.data)
    validator = build_validator(config, images, network=network, runtime=runtime) if images else None
    if network:
        runtime.compile(network)
    return Trainer(
        config=config.train,
        runtime=runtime,
        step=build_step(
            config,
            runtime=runtime,
            micro_batch=micro_batch,
            schedule=schedule,
            features=in_autocast(network, runtime=runtime) if network else None,
            starts=position is None,
        ),
        data=data,
        schedules=Schedules(
            rates=build_rates(config),
            intervals=_intervals(config),
            collapse=build_collapse_response(config, schedule=schedule, is_main=runtime.is_main),
        ),
        services=Services(
            run_logger=run_logger,
            checkpoints=checkpoints,
            best=BestWeights(config.run.dir / "weights", by=best_by(config, validator.measures if validator else ())),
            validator=validator,
            signals=signals,
            folder=config.run.dir,
        ),
    )


def build_validator(
    config: Config, images: Sequence[ImagePair], *, network: FeatureNetwork | None, runtime: Runtime
) -> Validator:
    """Build what measures the generator on the validation images; ``network`` is the perceptual loss's."""
    scale = config.data.scale
    asked = config.validation.measures
    measures = build_measures(asked, key="validate.measures", scale=scale, device=runtime.device, ranks=runtime)
    if asked == "auto":
        log.info("%s", describe_auto(measures.keys(), key="validate.measures"))
    if network:
        # Not compiled: validation images have any size.
        measures["perceptual"] = perceptual_measure(in_autocast(network.forward, runtime=runtime))
    return Validator(images, scale=scale, runtime=runtime, measures=measures)


def _training_data(config: Config, runtime: Runtime, position: dict[str, Any] | None) -> TrainingData:
    shards = build_shards(config.data)
    degradation = build_degradation(config.data.degradation, scale=config.data.scale, device=runtime.device)
    if position:
        refuse_changes(position["origin"], config, shards=shards.digest, step=position["step"])
    stream, dataset = build_stream(
        config.data,
        shards,
        seed=config.run.seed,
        consumed=position["consumed"] if position else 0,
        margin=degradation.margin if degradation else 0,
        runtime=runtime,
    )
    return TrainingData(
        stream=stream,
        degradation=degradation,
        batch_size=config.data.batch_size,
        epoch_size=dataset.num_patches,
        fingerprint=config_fingerprint(config, shards=shards.digest),
    )


def check_networks(config: Config, runtime: Runtime) -> None:
    """Refuse patches or micro-batches that the networks cannot compute, before anything is read, built or written.

    Raises:
        UserError: Says which network, and what would do.
    """
    from srgan_dist.training.computable import check_computable  # here, as importing it takes half a second

    check_computable(
        config,
        micro_batch=micro_batch_size(config.data, world_size=runtime.world_size),
        per_rank_batch=config.data.batch_size // runtime.world_size,
        batchnorm_ranks=runtime.batchnorm_ranks,
    )


def _micro_batch(config: Config, runtime: Runtime) -> MicroBatch:
    size = micro_batch_size(config.data, world_size=runtime.world_size)
    per_rank_batch = config.data.batch_size // runtime.world_size
    if config.data.micro_batch != "auto":
        return MicroBatch(size, per_rank_batch=per_rank_batch, runtime=runtime)
    from srgan_dist.training.computable import smallest_micro_batch  # here, as importing it takes half a second

    smallest = smallest_micro_batch(config, per_rank_batch=per_rank_batch, batchnorm_ranks=runtime.batchnorm_ranks)
    # A full GPU raises an error, and the micro-batch is halved; on a CPU the kernel kills the process, so predict.
    if runtime.device.type == "cpu":
        from srgan_dist.training.memory_estimate import largest_micro_batch

        memory = int(_USABLE_FRACTION * runtime.free_memory()) + used_ram()
        found = largest_micro_batch(
            config,
            per_rank_batch=per_rank_batch,
            recompute=config.train.recompute,
            memory=memory,
            device="cpu",
            smallest=smallest,
        )
        size = min(runtime.all_gather_object(max(found.micro_batch, smallest)))
        if not found.micro_batch:
            log.warning(
                "memory may not suffice for %d patches at a time: srgan-dist plan prints what is needed", smallest
            )
    return MicroBatch(size, per_rank_batch=per_rank_batch, runtime=runtime, smallest=smallest)


def best_by(config: Config, measures: Iterable[str]) -> tuple[str, ...]:
    """What decides which weights are the best.

    Args:
        config: The run's configuration.
        measures: What is measured besides PSNR and SSIM.

    Raises:
        UserError: With ``validate.measures=auto`` it turned out not to be measured.
    """
    measured = {"psnr_y", "ssim_y", *measures}
    match config.checkpoint.best:
        case "auto":
            return ("perceptual",) if config.has_perceptual_network else ("psnr_y",)
        case "front":
            by = ["psnr_y", *(name for name in DISTANCES if name in measured)][:2]
        case metric:
            by = [name for name in [metric.removeprefix("val/")] if name in measured]
    if len(by) < (2 if config.checkpoint.best == "front" else 1):
        asks = f"checkpoint.best is {config.checkpoint.best}"
        raise UserError(f"{asks}, which validate.measures=auto cannot measure here: choose val/psnr_y")
    return tuple(by)


def _intervals(config: Config) -> Intervals:
    return Intervals(
        log=config.log.every,
        images=config.log.images_every,
        validate=config.validation.every,
        checkpoint=config.checkpoint.every,
    )
