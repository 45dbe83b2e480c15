"""Trains by a configuration and writes weights and last gradients: the same on any ranks and micro-batches.

python equivalence.py DTYPE OUT --section.key=value ...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch._dynamo.utils import counters

from srgan_dist.checkpointing.manager import Checkpoints
from srgan_dist.config.load import load_config
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.distributed.signals import StopSignals
from srgan_dist.tracking.run_logger import RunLogger
from srgan_dist.training.build import build_trainer


def main(dtype: str, out: str, *overrides: str) -> None:
    torch.set_default_dtype(getattr(torch, dtype))
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    config = load_config(None, [f"--run.dir={folder}", *overrides])
    runtime = Runtime(threads=1, compile=config.train.compile, shares_memory_errors=config.data.micro_batch == "auto")
    run_logger = RunLogger(folder=folder, accelerator=runtime.accelerator, num_steps=config.train.steps)
    trainer = build_trainer(
        config,
        runtime=runtime,
        run_logger=run_logger,
        checkpoints=Checkpoints(folder / "checkpoints", keep=1, runtime=runtime),
        signals=StopSignals(),
        position=None,
    )
    run_logger.start(step=0, tracker_id=None)
    trainer.run()
    networks = {"g": trainer.take_step.generator.network, "ema": trainer.take_step.ema.network}
    if trainer.take_step.gan:
        networks["d"] = trainer.take_step.gan.discriminator.network
    weights = {f"{name}.{key}": value for name, net in networks.items() for key, value in net.state_dict().items()}
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / f"rank{runtime.rank}.safetensors")
    gradients = {
        f"{name}.{key}": value.grad.contiguous()
        for name, net in networks.items()
        for key, value in net.named_parameters()
        if value.grad is not None
    }
    save_file(gradients, folder / f"gradients{runtime.rank}.safetensors")
    (folder / f"rank{runtime.rank}.json").write_text(
        json.dumps({"world_size": runtime.world_size, "micro_batches": len(trainer.next_batch())})
    )
    if config.train.compile:
        graphs = {"compiled": counters["stats"]["unique_graphs"], "breaks": dict(counters["graph_break"])}
        (folder / f"graphs{runtime.rank}.json").write_text(json.dumps(graphs))
    trainer.data.stream.close()
    runtime.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
