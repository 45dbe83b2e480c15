"""Trains in float64 through the project's own parts and writes the weights: the same on any ranks and micro-batches.

python equivalence.py SHARDS OUT MICRO_BATCH G_PER_D KIND NORM CLIP
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from srgan_dist.build import build_learning_rates
from srgan_dist.build_data import build_shards, build_windows
from srgan_dist.checkpoint import Checkpoints
from srgan_dist.configfile import load_config
from srgan_dist.learner import FiniteGuard, Learner
from srgan_dist.models.discriminator import VGGDiscriminator
from srgan_dist.models.srresnet import SRResNet
from srgan_dist.objective import Objective
from srgan_dist.runtime import Runtime
from srgan_dist.signals import StopSignals
from srgan_dist.tracking import Journal
from srgan_dist.trainer import Intervals, Trainer

STEPS, PRETRAIN, BATCH = 7, 1, 8


def main(shards: str, out: str, micro_batch: str, g_per_d: str, kind: str, norm: str, clip: str) -> None:
    torch.set_default_dtype(torch.float64)
    config = load_config(
        None,
        [
            f"--data.train={shards}",
            "--data.patch_size=48",
            f"--data.batch_size={BATCH}",
            f"--data.micro_batch={micro_batch}",
            f"--train.steps={STEPS}",
            f"--train.pretrain_steps={PRETRAIN}",
            f"--train.g_per_d={g_per_d}",
            "--optimizer.generator.warmup_steps=3",
            "--optimizer.generator.learning_rate=1e-3",
            "--optimizer.discriminator.learning_rate=1e-3",
        ],
    )
    runtime = Runtime(threads=1)
    torch.manual_seed(0)
    guard = FiniteGuard(runtime)

    def learner(network: nn.Module, name: str) -> Learner:
        limit = float(clip) or None
        return Learner(
            network, runtime=runtime, guard=guard, name=name, betas=(0.9, 0.99), weight_decay=0.01, clip=limit
        )

    network = SRResNet(scale=4, channels=8, blocks=1, norm=norm)
    ema = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    generator = learner(network, "g")
    discriminator = learner(VGGDiscriminator(channels=4, norm="spectral", hidden=16), "d")
    features = nn.Conv2d(3, 5, 3).requires_grad_(False)
    windows, dataset = build_windows(config.data, build_shards(config.data), seed=0, consumed=0, runtime=runtime)
    folder = Path(out)
    folder.mkdir(exist_ok=True)
    trainer = Trainer(
        config=config.train,
        runtime=runtime,
        guard=guard,
        generator=generator,
        discriminator=discriminator,
        ema=ema,
        objective=Objective(
            pixel="mse",
            pixel_weight=0.1,
            adversarial=kind,
            adversarial_weight=0.1,
            label_smoothing=0.1,
            features=lambda images: [features(images)],
            perceptual="mse",
            perceptual_weight=1.0,
        ),
        windows=windows,
        stream={},
        degradation=None,
        batch_size=BATCH,
        epoch_size=dataset.num_crops,
        learning_rates=build_learning_rates(config),
        intervals=Intervals(log=1, images=100, validate=100, checkpoint=100),
        journal=Journal(
            folder=folder,
            accelerator=runtime.accelerator,
            tracker="none",
            project="test",
            group=None,
            tags=(),
            config={},
            num_steps=STEPS,
        ),
        checkpoints=Checkpoints(folder / "checkpoints", keep=1, runtime=runtime),
        validator=None,
        folder=folder,
        metadata={},
        signals=StopSignals(),
    )
    trainer.journal.start(step=0, tracker_id=None)
    trainer.run()
    weights = {f"g.{key}": value for key, value in generator.network.state_dict().items()}
    weights |= {f"d.{key}": value for key, value in discriminator.network.state_dict().items()}
    weights |= {f"ema.{key}": value for key, value in trainer.ema.module.state_dict().items()}
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / f"rank{runtime.rank}.safetensors")
    (folder / f"rank{runtime.rank}.json").write_text(
        json.dumps({"world_size": runtime.world_size, "micro_batches": windows.num_micro_batches})
    )
    trainer.windows.close()
    runtime.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
