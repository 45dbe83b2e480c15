"""The measured process of `bench step`: runs our training step, or a peer's."""

from __future__ import annotations

from multiprocessing.connection import Connection

import torch

from srgan_dist.bench.common.child import Orders, connected, read_spec, runtime_options, serve_trainer, synchronize
from srgan_dist.bench.common.timeline import Timeline
from srgan_dist.bench.step.peers import BasicSRStep, Networks, NotebookStep
from srgan_dist.config.root import Config
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.models.build import build_discriminator, build_features, build_generator

OURS, BASICSR, NOTEBOOK = "ours", "basicsr", "notebook"


def main(file: str) -> None:
    """Serve one variant of the training step, as a file specifies.

    Args:
        file: JSON of ``address``, ``kind``, ``num_patches`` (for a peer), ``steps`` (in a cycle) and ``config``.
    """
    spec, config = read_spec(file)
    ours, steps = spec["kind"] == OURS, spec["steps"]

    def work(runtime: Runtime, connection: Connection | None) -> None:
        timeline = Timeline(lambda: synchronize(runtime))
        if ours:
            serve_trainer(config, runtime, Orders(connection, runtime, timeline, steps=steps))
        else:
            orders = Orders(connection, runtime, timeline, steps=1)
            _serve_peer(spec["kind"], config, runtime, orders, num_patches=spec["num_patches"], g_per_d=steps)

    theirs = {"precision": "fp32", "channels_last": False, "threads": config.train.threads}
    connected(work, spec["address"], Runtime, **(runtime_options(config) if ours else theirs))


def _serve_peer(kind: str, config: Config, runtime: Runtime, orders: Orders, *, num_patches: int, g_per_d: int) -> None:
    torch.manual_seed(config.run.seed)
    networks = peer_networks(config)
    for network in (networks.generator, networks.discriminator, networks.features, networks.average):
        if network:
            runtime.place(network)
    step = peer_step(kind, networks, g_per_d=g_per_d)
    patch, scale = config.data.patch_size, config.data.scale
    lr, hr = (torch.rand(num_patches, 3, side, side, device=runtime.device) for side in (patch // scale, patch))
    while True:
        orders.wait()
        step.cycle(lr, hr)


def peer_networks(config: Config) -> Networks:
    """Build the networks of a configuration for a peer's step."""
    perceptual = config.loss.perceptual
    return Networks(
        generator=build_generator(config.generator, scale=config.data.scale),
        discriminator=build_discriminator(config.discriminator),
        features=build_features(perceptual) if perceptual.weight else None,
        average=build_generator(config.generator, scale=config.data.scale),
        loss=config.loss,
    )


def peer_step(kind: str, networks: Networks, *, g_per_d: int) -> BasicSRStep | NotebookStep:
    """Build a peer's step."""
    return BasicSRStep(networks) if kind == BASICSR else NotebookStep(networks, g_per_d=g_per_d)
