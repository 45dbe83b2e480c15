"""The recipe for a new generator is true: followed word for word in a copy of the package, it is all there is to do."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Finished, metrics, options, run

PAGE = (ROOT / "docs/extending.md").read_text()
CONFIG, NETWORK, BUILD = "srgan_dist/config/models.py", "srgan_dist/models/espcn.py", "srgan_dist/models/build.py"


def recipe() -> list[str]:
    """The Python of the page's section on generators, in its order."""
    section = PAGE.partition("## A generator\n")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)


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
    config_class, union, network, imports, case = recipe()
    insert(folder / CONFIG, f"{config_class}\n\n", before="GeneratorConfig = ")
    config = (folder / CONFIG).read_text()
    (folder / CONFIG).write_text(re.sub(r"^GeneratorConfig = (?s:.*?)^]\n", union, config, flags=re.MULTILINE))
    (folder / NETWORK).write_text(network)
    insert(folder / BUILD, imports, before="from srgan_dist.models.discriminator import")
    insert(folder / BUILD, case, before="        case _:\n")
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
        "--generator.name=swin": "generator: name is 'swin'; allowed: srresnet, rrdb, msrresnet, compact, span, "
        "spandrel, module:Class, espcn",
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
