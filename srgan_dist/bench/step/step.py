"""``srgan-dist bench step``: time, memory and parts of a training step, by what can be chosen, beside others' steps."""

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
from srgan_dist.bench.step.ways import Options, Row, StepReport, Way, ways
from srgan_dist.config.root import Config
from srgan_dist.data.packing.pack import pack
from srgan_dist.distributed.memory import available_ram
from srgan_dist.errors import Failure, UserError
from srgan_dist.training.memory_estimate import footprint, peak_bytes

_MEMORY_SHARE = 0.4  # of the free memory, for one of the two processes that are measured in turns


def bench_step(options: Options, *, on_progress: Callable[[str], None]) -> StepReport:
    """Measure every way in a process of its own, in turns with BasicSR's step.

    Args:
        options: what.
        on_progress: called with what is being done.

    Raises:
        UserError: a number is out of range, or a way is not known.
        Failure: BasicSR's step, to which all others are compared, does not run.
    """
    for name in ("rounds", "ranks"):
        if (number := getattr(options, name)) < 1:
            raise UserError(f"--{name} is {number}, allowed are whole numbers from 1")
    chosen = ways(options.config, ranks=options.ranks, only=options.only)
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
            for way in others:
                on_progress(way.name)
                try:
                    rows.append(bench.in_turns(way, peer))
                except (Failure, UserError) as error:
                    left_out[way.name] = str(error)
    return StepReport(options, rows, left_out)


class Bench:
    """The folder of a measurement: its shards, and configurations that train on them.

    Args:
        folder: an empty one.
        options: what is measured.
    """

    def __init__(self, folder: Path, options: Options) -> None:
        self.folder, self.options = folder, options
        self.g_per_d = options.config.train.planned_g_per_d

    def make_shards(self) -> None:
        """Make images and pack them."""
        images = self.folder / "images"
        images.mkdir()
        make_images(images)
        scale = self.options.config.data.scale
        pack(images, self.folder / "shards", scale=scale if scale > 1 else 4)  # a denoiser's LR is made of HR

    def alone(self, way: Way, process: Process) -> Row:
        seconds = Spread.of([process.ask(CYCLE) for _ in range(self.options.rounds)])
        return self.row(way, process, seconds, None)

    def row(self, way: Way, process: Process, seconds: Spread, speed_up: Spread | None) -> Row:
        parts = process.ask(PARTS) if way.kind == OURS else {}
        total = sum(parts.values())
        return Row(
            way=way,
            seconds=seconds,
            speed_up=speed_up,
            images_per_second=self.options.config.data.batch_size / seconds.median,
            crops=process.crops,
            peak_gib=process.ask(PEAK),
            parts={part: seconds / total for part, seconds in parts.items()},
        )

    def in_turns(self, way: Way, peer: Process) -> Row:
        with self.process(way) as process:
            process.warm_up()
            pairs = [(process.ask(CYCLE), peer.ask(CYCLE)) for _ in range(self.options.rounds)]
            seconds = Spread.of([ours for ours, _ in pairs])
            return self.row(way, process, seconds, Spread.of([theirs / ours for ours, theirs in pairs]))

    @contextmanager
    def process(self, way: Way) -> Iterator[Process]:
        """Start a way's process; it is gone afterwards."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        config = self.config(way, folder / "run")
        crops = self.crops(way, config)
        spec = {
            "way": way.kind,
            "crops": crops,
            "steps": self.g_per_d,
            "config": config.model_dump(mode="json", by_alias=True),
        }
        scale = self.scale(way, crops)
        with closing(Process(step_child.main, folder, spec, ranks=way.ranks, crops=crops, scale=scale)) as process:
            yield process

    def config(self, way: Way, run: Path) -> Config:
        """The configuration of a way: training from the start, on made images, without anything around it."""
        content = self.options.config.model_dump(mode="json", by_alias=True)
        forever = 10**9
        quiet = {
            "run.dir": str(run),
            "run.init_from": None,
            "data.train": [str(self.folder / "shards")],
            "data.validation": [],
            "loss.perceptual.weights": "random",
            "train.steps": forever,
            "train.pretrain_steps": 0,
            "log.every": forever,
            "checkpoint.every": forever,
            "tracker.name": "none",
        }
        for key, value in (quiet | dict(way.changes)).items():
            *sections, name = key.split(".")
            section = content
            for part in sections:
                section = section[part]
            section[name] = value
        return Config(**content)

    def crops(self, way: Way, config: Config) -> int:
        """Crops that a peer takes at a time: the window, or as many as there is memory for.

        Raises:
            Failure: there is not enough memory.
        """
        batch = config.data.batch_size
        if torch.cuda.is_available():
            return batch
        room = int(available_ram() * _MEMORY_SHARE)
        if way.kind == OURS:
            per_rank_batch = batch // way.ranks
            micro_batch = config.data.micro_batch if isinstance(config.data.micro_batch, int) else per_rank_batch
            need = footprint(
                config,
                micro_batch=micro_batch,
                num_micro_batches=per_rank_batch // micro_batch,
                recompute=config.train.recompute,
            )
            if need.peak * way.ranks > room:
                raise Failure(f"needs {need.peak / 2**30:.1f} GiB, there are {room / 2**30:.1f} for it")
            return batch
        for crops in _halvings(batch):
            if peak_bytes(lambda crops=crops: _rehearse(way.kind, config, crops)) <= room:  # type: ignore[misc]
                return crops
        raise Failure(f"there is not enough memory for a single crop: {room / 2**30:.1f} GiB")

    def scale(self, way: Way, crops: int) -> float:
        """Makes a cycle's time that of one update on a whole window."""
        updates = 1 if way.kind == BASICSR else self.g_per_d
        return self.options.config.data.batch_size / crops / updates


def _halvings(number: int) -> Iterator[int]:
    while number:
        yield number
        number //= 2


def _rehearse(kind: str, config: Config, crops: int) -> None:
    patch, scale = config.data.patch_size, config.data.scale
    lr, hr = (torch.zeros(crops, 3, side, side) for side in (patch // scale, patch))
    peer_step(kind, peer_networks(config), g_per_d=1).update(lr, hr)
