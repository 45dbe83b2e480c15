"""Compiled networks: one graph each, the same weights under the same names, an error without a compiler."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from srgan_dist import SRGenerator
from tests.conftest import Train, launch, metrics, run
from tests.training.test_equivalence import BASE, SCRIPT, distance

# Few layers: compiling takes most of the time here.
VGG = {"loss.perceptual.network": "vgg19", "loss.perceptual.layer": "conv2_2", "loss.perceptual.weights": "random"}


@pytest.mark.slow
def test_two_compiled_ranks_are_one_eager_one(shards: Path, tmp_path: Path) -> None:
    changes = {"data.train": shards, "generator.norm": "group", "generator.blocks": 2, "train.g_per_d": 2}
    one, two = tmp_path / "one", tmp_path / "two"
    arguments = [f"--{key}={value}" for key, value in (BASE | VGG | changes).items()]
    eager = run(sys.executable, SCRIPT, "float64", one, *arguments)
    assert eager.code == 0, eager.err
    compiled = launch(2, SCRIPT, "float64", two, *arguments, "--data.micro_batch=2", "--train.compile=true")
    assert compiled.code == 0, compiled.err
    expected = load_file(one / "rank0.safetensors")
    for rank in range(2):
        assert json.loads((two / f"rank{rank}.json").read_text()) == {"world_size": 2, "micro_batches": 2}
        # Generator; discriminator while it is frozen and while it is updated; features of targets and of SR images.
        assert json.loads((two / f"graphs{rank}.json").read_text()) == {"compiled": 5, "breaks": {}}
        weights = load_file(two / f"rank{rank}.safetensors")
        assert weights.keys() == expected.keys()
        assert distance(weights, expected) < 1e-10


@pytest.mark.slow
def test_a_compiled_run_validates_and_saves(train: Train, tmp_path: Path) -> None:
    changes = VGG | {"generator.norm": "batch", "train.recompute": "both", "train.precision": "bf16"}
    done = train(tmp_path / "compiled", changes=changes | {"train.compile": True})
    assert done.code == 0, done.err
    assert train(tmp_path / "eager", changes=changes).code == 0
    compiled, eager = (metrics(tmp_path / name)[-1] for name in ("compiled", "eager"))
    assert compiled.keys() == eager.keys()
    for name in ("val/psnr_y", "val/perceptual", "g/total", "d/loss"):
        assert compiled[name] == pytest.approx(eager[name], rel=0.03), name
    files = [tmp_path / name / "weights/generator.safetensors" for name in ("compiled", "eager")]
    assert load_file(files[0]).keys() == load_file(files[1]).keys()
    SRGenerator.from_pretrained(files[0])


def test_without_a_compiler(train: Train, tmp_path: Path) -> None:
    done = train(tmp_path / "run", changes={"train.compile": True}, CXX="no-such-compiler")
    assert done.code == 2
    assert "train.compile needs a C++ compiler on a CPU" in done.err
    assert "Traceback" not in done.err
