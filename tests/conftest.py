"""Real runs in real processes: packed images, configurations, and ranks started by accelerate."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"

# Two processes that each take every core are ten times slower than one.
torch.set_num_threads(1)

TINY = {
    "data.patch_size": 48,
    "data.batch_size": 4,
    "generator.channels": 8,
    "generator.blocks": 1,
    "generator.norm": "none",
    "generator.skip": "bicubic",
    "generator.upsampler": "pixelshuffledirect",
    "generator.end_kernel": 3,
    "discriminator.channels": 4,
    "discriminator.norm": "spectral",
    "loss.perceptual.network": "efficientnet_lite0",
    "train.steps": 6,
    "train.pretrain_steps": 2,
    "train.g_per_d": 2,
    "train.threads": 1,
    "log.every": 1,
    "log.images_every": 100,
    "checkpoint.every": 3,
    "tracker.name": "none",
}


@dataclass
class Finished:
    """What a process left."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Lines on stderr that are not a log line of training."""
        return [line for line in self.err.splitlines() if line.strip()]


def photo(height: int, width: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """An image with edges, gradients and fine detail."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width, 3), 128.0)
    for period in (6.3, 17.0, 41.0):
        for channel in range(3):
            image[..., channel] += 30 * np.sign(np.sin((x * random.normal() + y * random.normal()) / period * 3))
    return np.clip(image + random.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def environment(**extra: str) -> dict[str, str]:
    """The environment of a user's shell, without keys and without this machine's own settings of W&B."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "ACCELERATE", "PET_"))}
    return kept | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"} | extra


def run(*command: str | Path, cwd: Path = ROOT, timeout: float = 240, **extra: str) -> Finished:
    """Run a command to its end."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def cli(*arguments: str | Path, **options: Any) -> Finished:
    """Run ``srgan-dist`` as a user does."""
    return run(Path(sys.executable).with_name("srgan-dist"), *arguments, **options)


def call(*arguments: str | Path) -> Finished:
    """Run ``srgan-dist`` in this process: for the commands that start no ranks, and much faster."""
    from srgan_dist.cli.commands import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Finished(code, out.getvalue(), err.getvalue())


def launch(ranks: int, script: str | Path, *arguments: str | Path, **options: Any) -> Finished:
    """Run a script on several CPU ranks, by the configuration that the project ships."""
    accelerate: list[str | Path] = [Path(sys.executable).with_name("accelerate"), "launch", "--main_process_port", "0"]
    accelerate += [] if ranks == 2 else ["--num_processes", str(ranks)]  # the shipped configuration starts two
    config: list[str | Path] = ["--config_file", ROOT / "launch/accelerate/cpu_two_ranks.yaml"]
    return run(*accelerate, *config, script, *arguments, **options)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def options(changes: dict[str, Any]) -> list[str]:
    """Command line arguments of a tiny run with changes."""
    return [f"--{key}={value}" for key, value in (TINY | changes).items()]


def write_images(folder: Path) -> None:
    """Make a folder of six small images, the same on every machine."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(6):
        Image.fromarray(photo(96, 80 + 8 * number, number)).save(folder / f"{number}.png")


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """A command that a test calls in this process sets the log up for good; the next test must not see that."""
    log = logging.getLogger("srgan_dist")
    handlers, level, propagate = log.handlers[:], log.level, log.propagate
    yield
    log.handlers[:], log.propagate = handlers, propagate
    log.setLevel(level)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six small images."""
    folder = tmp_path_factory.mktemp("images")
    write_images(folder)
    return folder


@pytest.fixture(scope="session")
def validation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three other images."""
    folder = tmp_path_factory.mktemp("validation")
    for number in range(3):
        Image.fromarray(photo(64, 72, 100 + number)).save(folder / f"v{number}.png")
    return folder


@pytest.fixture(scope="session")
def shards(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images, packed."""
    from srgan_dist.data.packing.pack import pack

    out = tmp_path_factory.mktemp("shards") / "tiny"
    pack(images, out, scale=4, tile=96)
    return out


@pytest.fixture(scope="session")
def large_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiles of 480 pixels."""
    from srgan_dist.bench.common.images import make_images
    from srgan_dist.data.packing.pack import pack

    images, out = tmp_path_factory.mktemp("large"), tmp_path_factory.mktemp("shards") / "large"
    make_images(images, count=1)
    pack(images, out, scale=4)
    return out


Train = Callable[..., Finished]


@pytest.fixture
def train(shards: Path, validation: Path) -> Train:
    """Run a tiny training: ``train(folder, ranks=1, **{"section.key": value})``."""

    def start(folder: Path, *, ranks: int = 1, changes: dict[str, Any] | None = None, **extra: Any) -> Finished:
        base = {"run.dir": folder, "data.train": shards, "data.validation": validation}
        arguments = options(base | (changes or {}))
        return cli("train", *arguments, **extra) if ranks == 1 else launch(ranks, "train.py", *arguments, **extra)

    return start


Pixels = NDArray[np.uint8]


def smooth_noise(height: int, width: int, seed: int = 0) -> Pixels:
    """Waves of several lengths under fine noise: gradients, edges and detail."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width, 3), 128.0)
    for period in (7, 19, 53):
        phase = random.uniform(0, 2 * np.pi, 6)
        for channel in range(3):
            image[..., channel] += 30 * np.sin(2 * np.pi * x / period + phase[channel])
            image[..., channel] += 20 * np.sin(2 * np.pi * y / period + phase[channel + 3])
    return np.clip(image + random.normal(0, 6, image.shape), 0, 255).round().astype(np.uint8)


@pytest.fixture(scope="session")
def make_image() -> Callable[..., Pixels]:
    return smooth_noise


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of different sizes, one of them in a subfolder, none a multiple of 4 in both sides."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for seed, (name, height, width) in enumerate([("a.png", 121, 163), ("b.b.png", 64, 130), ("more/c.png", 90, 50)]):
        Image.fromarray(smooth_noise(height, width, seed)).save(folder / name)
    return folder


@pytest.fixture(scope="session")
def packed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos in tiles of at most 64, in several shards."""
    out = tmp_path_factory.mktemp("packed") / "shards"
    from srgan_dist.data.packing.pack import pack

    pack(photos, out, scale=4, tile=64, shard_bytes=60_000)
    return out
