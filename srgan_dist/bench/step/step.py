"""``srgan-dist bench step``: time, memory and parts of variants of the training step, and of other trainers' steps."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import torch

from srgan_dist.bench.common.child import CYCLE, PARTS, PEAK
from srgan_dist.bench.common.images import make_images
from srgan_dist.bench.common.measure import Spread
from srgan_dist.bench.common.process import Process
from srgan_dist.bench.step import child as step_child
from srgan_dist.bench.step.child import BASICSR, OURS, peer_networks, peer_step
from srgan_dist.bench.step.variants import Row, StepBenchOptions, StepReport, Variant, variants
from srgan_dist.config.root import Config
from srgan_dist.data.packing.pack import pack
from srgan_dist.distributed.memory import available_ram
from srgan_dist.errors import Failure, UserError
from srgan_dist.training.memory_estimate import estimate_step_memory, peak_bytes

_MEMORY_FRACTION = 0.4  # of the free memory, for each of the two processes that are measured in turns


def bench_step(options: StepBenchOptions, *, on_progress: Callable[[str], None]) -> StepReport:
    """Measure every variant in its own process, in turns with BasicSR's step.

    Args:
        options: What to measure.
        on_progress: Called with a description of the current work.

    Raises:
        UserError: A number is out of range, or a variant is not known.
        Failure: BasicSR's step, with which all others are compared, does not run.
    """
    for name in ("rounds", "ranks"):
        if (number := getattr(options, name)) < 1:
            raise UserError(f"--{name} is {number}, allowed are whole numbers from 1")
    chosen = variants(options.config, ranks=options.ranks, only=options.only)
    rows: list[Row] = []
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="srgan-dist-bench-") as name:
        bench = Bench(Path(name), options)
        on_progress("shards")
        bench.make_shards()
        reference, *others = chosen
        with bench.process(reference) as peer:
            on_progress(reference.name)
            peer.warm_up()
            rows.append(bench.alone(reference, peer))
            for variant in others:
                on_progress(variant.name)
                try:
                    rows.append(bench.in_turns(variant, peer))
                except (Failure, UserError) as error:
                    left_out[variant.name] = str(error)
    return StepReport(options, rows, left_out)


class Bench:
    """The shards and configurations of a benchmark.

    Args:
        folder: An empty folder.
        options: What to measure.
    """

    def __init__(self, folder: Path, options: StepBenchOptions) -> None:
        self.folder, self.options = folder, options
        self.g_per_d = options.config.train.planned_g_per_d

    def make_shards(self) -> None:
        """Generate images and pack them."""
        images = self.folder / "images"
        images.mkdir()
        make_images(images)
        scale = self.options.config.data.scale
        pack(images, self.folder / "shards", scale=scale if scale > 1 else 4)  # a denoiser's LR is made from HR

    def alone(self, variant: Variant, process: Process) -> Row:
        seconds = Spread.of([process.ask(CYCLE) for _ in range(self.options.rounds)])
        return self.row(variant, process, seconds, None)

    def row(self, variant: Variant, process: Process, seconds: Spread, speed_up: Spread | None) -> Row:
        parts = process.ask(PARTS) if variant.kind == OURS else {}
        total = sum(parts.values())
        return Row(
            variant=variant,
            seconds=seconds,
            speed_up=speed_up,
            images_per_second=self.options.config.data.batch_size / seconds.median,
            num_patches=process.num_patches,
            peak_gib=process.ask(PEAK),
            parts={part: seconds / total for part, seconds in parts.items()},
        )

    def in_turns(self, variant: Variant, peer: Process) -> Row:
        with self.process(variant) as process:
            process.warm_up()
            pairs = [(process.ask(CYCLE), peer.ask(CYCLE)) for _ in range(self.options.rounds)]
            seconds = Spread.of([ours for ours, _ in pairs])
            return self.row(variant, process, seconds, Spread.of([theirs / ours for ours, theirs in pairs]))

    @contextmanager
    def process(self, variant: Variant) -> Iterator[Process]:
        """Start a variant's process, and end it afterwards."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        config = self.config(variant, folder / "run")
        num_patches = self.num_patches(variant, config)
        spec = {
            "kind": variant.kind,
            "num_patches": num_patches,
            "steps": self.g_per_d,
            "config": config.model_dump(mode="json", by_alias=True),
        }
        scale = self.scale(variant, num_patches)
        with closing(
            Process(step_child.main, folder, spec, ranks=variant.ranks, num_patches=num_patches, scale=scale)
        ) as process:
            yield process

    def config(self, variant: Variant, run: Path) -> Config:
        """The configuration of a variant: adversarial training on generated images without logging and saving."""
        content = self.options.config.model_dump(mode="json", by_alias=True)
        forever = 10**9
        quiet = {
            "run.dir": str(run),
            "run.init_from": None,
            "run.init_discriminator_from": None,
            "data.train": [str(self.folder / "shards")],
            "data.validation": [],
            "loss.perceptual.weights": "random",
            "loss.additional": [],  # which the others do not have
            "train.steps": forever,
            "train.pretrain_steps": 0,
            "log.every": forever,
            "checkpoint.every": forever,
            "tracker.name": "none",
        }
        for key, value in (quiet | dict(variant.changes)).items():
            *sections, name = key.split(".")
            section = content
            for part in sections:
                section = section[part]
            section[name] = value
        return Config(**content)

    def num_patches(self, variant: Variant, config: Config) -> int:
        """The number of patches that a process takes at a time: a batch, or as many of it as fit for a peer.

        Raises:
            Failure: There is not enough memory.
        """
        batch = config.data.batch_size
        if torch.cuda.is_available():
            return batch
        room = int(available_ram() * _MEMORY_FRACTION)
        if variant.kind == OURS:
            per_rank_batch = batch // variant.ranks
            micro_batch = config.data.micro_batch if isinstance(config.data.micro_batch, int) else per_rank_batch
            need = estimate_step_memory(
                config,
                micro_batch=micro_batch,
                num_micro_batches=per_rank_batch // micro_batch,
                recompute=config.train.recompute,
            )
            if need.peak * variant.ranks > room:
                raise Failure(f"needs {need.peak / 2**30:.1f} GiB, there are {room / 2**30:.1f} for it")
            return batch
        for num_patches in _halvings(batch):
            if peak_bytes(lambda num_patches=num_patches: _rehearse(variant.kind, config, num_patches)) <= room:  # type: ignore[misc]
                return num_patches
        raise Failure(f"there is not enough memory for a single patch: {room / 2**30:.1f} GiB")

    def scale(self, variant: Variant, num_patches: int) -> float:
        """The factor from the time of a cycle to that of one update on a whole batch."""
        updates = 1 if variant.kind == BASICSR else self.g_per_d
        return self.options.config.data.batch_size / num_patches / updates


def _halvings(number: int) -> Iterator[int]:
    while number:
        yield number
        number //= 2


def _rehearse(kind: str, config: Config, num_patches: int) -> None:
    patch, scale = config.data.patch_size, config.data.scale
    lr, hr = (torch.zeros(num_patches, 3, side, side) for side in (patch // scale, patch))
    peer_step(kind, peer_networks(config), g_per_d=1).update(lr, hr)
