"""The demo, in small."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT, run

COMMAND: list[str | Path] = [sys.executable, "-m", "srgan_dist.demo", "--config", ROOT / "configs/demo.yaml"]
COMMAND += ["--generator.blocks=1", "--generator.channels=8", "--train.threads=1", "--log.every=40"]
FEW = ["--train.steps=124", "--train.pretrain_steps=120"]  # the fewest with which it is surely better than bicubic


@pytest.mark.slow
def test_the_demo_learns_more_than_bicubic_is_shown_again_and_starts_over(tmp_path: Path) -> None:
    done = run(*COMMAND, *FEW, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "runs/demo: starts from scratch" in done.err
    for row in ("bicubic", "after pretraining", "at the end"):
        assert row in done.err
    result = json.loads((tmp_path / "runs/demo/result.json").read_text())
    bicubic, pretrained, final = (result[name] for name in ("bicubic", "pretrained", "final"))
    assert pretrained["psnr_y"] > bicubic["psnr_y"]
    assert pretrained["perceptual"] < bicubic["perceptual"]
    assert final["perceptual"] < bicubic["perceptual"]
    assert final != pretrained
    with Image.open(tmp_path / "runs/demo/samples/final.png") as picture:
        assert picture.width > 5 * 192  # LR, bicubic, pretrained, GAN, HR
    for name in ("astronaut", "chelsea"):
        with (
            Image.open(tmp_path / f"runs/demo/upscaled/{name}_lr.png") as lr,
            Image.open(tmp_path / f"runs/demo/upscaled/{name}_sr.png") as sr,
        ):
            assert sr.size == (4 * lr.width, 4 * lr.height)

    done = run(*COMMAND, *FEW, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "already finished" in done.err
    assert "after pretraining" in done.err

    done = run(*COMMAND, "--train.steps=2", "--train.pretrain_steps=1", "--fresh", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "the previous run was moved to runs/demo.1" in done.err


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    done = run(sys.executable, "-m", "srgan_dist.demo", "--config", tmp_path / "none.yaml", cwd=tmp_path)
    assert done.code == 2
    assert "none.yaml: cannot read the configuration" in " ".join(done.err.split())
