"""The networks of a tiny run with their optimizers after one update, and the state that a checkpoint of it holds."""

from __future__ import annotations

import functools

import torch

from srgan_dist.checkpointing.format import TrainingState
from srgan_dist.config.compatibility import config_fingerprint
from srgan_dist.config.load import config_from
from srgan_dist.config.root import Config
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.training.build import build_collapse_response
from srgan_dist.training.build_step import build_schedule, build_step
from srgan_dist.training.gan_step import TwoPhases
from srgan_dist.training.micro_batch import MicroBatch
from tests.conftest import options

SHARDS = "0" * 64
"""Digest of the shards that the state says it was trained on."""


@functools.cache
def tiny_config() -> Config:
    """A generator and a discriminator of a few thousand weights."""
    changes = {"run.dir": "run", "data.train": "shards", "loss.perceptual.weight": 0, "generator.norm": "batch"}
    return config_from(options(changes), prog="train.py")


def tiny_step(runtime: Runtime) -> TwoPhases:
    """Its networks, which have been updated once."""
    config = tiny_config()
    step = build_step(
        config,
        runtime=runtime,
        micro_batch=MicroBatch(4, per_rank_batch=4, runtime=runtime),
        schedule=build_schedule(config, runtime=runtime),
        features=None,
    )
    update(step)
    step.ema.update(step.generator.network)
    return step


def update(step: TwoPhases) -> None:
    """Run both optimizers on a gradient: their kernels read and write every moment."""
    for trainable in step.networks.values():
        for parameter in trainable.network.parameters():
            parameter.grad = torch.full_like(parameter, 1e-3)
        trainable.move(1, {})


def tiny_state(step: TwoPhases, runtime: Runtime) -> TrainingState:
    """What a checkpoint of it holds."""
    config = tiny_config()
    response = build_collapse_response(config, schedule=build_schedule(config, runtime=runtime), is_main=True)
    counters = {
        "step": 1,
        "consumed": 4,
        "origin": config_fingerprint(config, shards=SHARDS),
        **step.counters(runtime.reduce_mean),
        "stability": response.state(),
        "seconds": 1.5,
        "results": {"final": {"psnr_y": 27.5, "perceptual": None}},
        "tracker_id": None,
    }
    return TrainingState(counters, step.weights(), step.optimizers(), runtime.rng_state())
