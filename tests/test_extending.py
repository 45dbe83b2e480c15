"""The recipe for a new generator is true: followed word for word in a copy of the package, it is all there is to do."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Finished, metrics, options, run

# 1. One config class, in the union.
CONFIG, UNION = "srgan_dist/config.py", "GeneratorConfig = Annotated["
CONFIG_CLASS = '''\
class ESPCNConfig(Section):
    name: Literal["espcn"] = "espcn"
    """Shi et al. 2016: three convolutions and one pixel shuffle."""
    scales: ClassVar[tuple[int, ...]] = (2, 3, 4)
    channels: PositiveInt = 64
    """Feature channels of the first convolution; the second has half of them."""


'''
# 2. One file.
NETWORK = '''\
"""ESPCN: features at low resolution, and one pixel shuffle."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn


class ESPCN(nn.Module):
    """Map a low-resolution image to one `scale` times as large.

    Args:
        scale: 2, 3 or 4.
        channels: feature channels of the first convolution.

    Source: Shi et al. 2016, section 3.
    """

    def __init__(self, *, scale: int = 4, channels: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, channels, 5, padding=2),
            nn.Tanh(),
            nn.Conv2d(channels, channels // 2, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(channels // 2, 3 * scale**2, 3, padding=1),
            nn.PixelShuffle(scale),
        )

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale a batch [N, 3, h, w]; the result is not clamped."""
        return cast(Tensor, self.layers(lr))
'''
# 3. One case, with its imports.
BUILD = "srgan_dist/build_networks.py"
IMPORTS = "from srgan_dist.config import ESPCNConfig\nfrom srgan_dist.models.espcn import ESPCN\n"
CASE = """\
        case ESPCNConfig():
            return ESPCN(scale=scale, channels=config.channels)
"""


def insert(file: Path, text: str, *, before: str) -> None:
    """Put text before the first place that has other text."""
    content = file.read_text()
    assert before in content
    file.write_text(content.replace(before, text + before, 1))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which the recipe has been followed."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "srgan_dist", folder / "srgan_dist", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", folder)
    insert(folder / CONFIG, CONFIG_CLASS, before=UNION)
    insert(folder / CONFIG, " | ESPCNConfig", before=", Choice()]\nDiscriminatorConfig")
    (folder / "srgan_dist/models/espcn.py").write_text(NETWORK)
    insert(folder / BUILD, IMPORTS, before="from srgan_dist.models.discriminator import")
    insert(folder / BUILD, CASE, before="        case _:\n")
    return folder


def python(copy: Path, *arguments: str | Path) -> Finished:
    done = run(sys.executable, *arguments, cwd=copy, PYTHONPATH=str(copy), COLUMNS="80")
    assert done.code == 0, done.err
    return done


def test_the_help_shows_the_new_generator(copy: Path) -> None:
    assert "  --generator.name=espcn " in python(copy, "train.py", "--help").out
    text = " ".join(python(copy, "train.py", "--help-all").out.split())
    assert (
        "generator.name=espcn: Shi et al. 2016: three convolutions and one pixel shuffle; data.scale 2, 3, 4." in text
    )


def test_mistakes_know_the_new_generator(copy: Path) -> None:
    for option, answer in {
        "--generator.name=swin": "generator: name is 'swin'; allowed: srresnet, rrdb, msrresnet, espcn",
        "--data.scale=8": "data.scale is 8, but generator.name=espcn has scales 2, 3, 4",
        "--generator.chanels=3": "did you mean generator.channels?",
    }.items():
        done = run(sys.executable, "train.py", "--generator.name=espcn", option, cwd=copy, PYTHONPATH=str(copy))
        assert done.code == 2
        assert answer in done.err


def test_the_new_generator_trains_and_comes_back_from_its_weights(copy: Path, shards: Path, validation: Path) -> None:
    tiny = {"data.train": shards, "data.validation": validation, "run.dir": "run", "train.steps": 2}
    changes = [option for option in options(tiny) if not option.startswith("--generator.")]
    few = ["--generator.name=espcn", "--generator.channels=8", "--train.pretrain_steps=1", "--loss.perceptual.weight=0"]
    python(copy, "train.py", *changes, *few)
    assert [line["step"] for line in metrics(copy / "run")] == [1, 2]
    code = """
from PIL import Image
from srgan_dist import SRGenerator
generator = SRGenerator.from_pretrained("run/weights/generator.safetensors")
print(type(generator.network).__name__, generator.upscale(Image.new("RGB", (20, 10))).size)
"""
    assert python(copy, "-c", code).out.split(maxsplit=1) == ["ESPCN", "(80, 40)\n"]
