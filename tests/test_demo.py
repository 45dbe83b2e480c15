"""The demo, in small."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT, run

SMALL = [
    "--train.steps=12",
    "--train.pretrain_steps=8",
    "--generator.blocks=1",
    "--generator.channels=8",
    "--train.threads=1",
    "--log.every=4",
]


@pytest.mark.slow
def test_the_demo(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "srgan_dist.demo", "--config", ROOT / "configs/demo.yaml", *SMALL]
    done = run(*command, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "runs/demo: starts from scratch" in done.err
    for row in ("bicubic", "after pretraining", "at the end"):
        assert row in done.err
    result = json.loads((tmp_path / "runs/demo/result.json").read_text())
    assert result["final"]["psnr_y"] > 20
    with Image.open(tmp_path / "runs/demo/samples/final.png") as picture:
        assert picture.width > 5 * 192  # LR, bicubic, pretrained, GAN, HR
    for name in ("astronaut", "chelsea"):
        with (
            Image.open(tmp_path / f"runs/demo/upscaled/{name}_lr.png") as lr,
            Image.open(tmp_path / f"runs/demo/upscaled/{name}_sr.png") as sr,
        ):
            assert sr.size == (4 * lr.width, 4 * lr.height)

    done = run(*command, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "already finished" in done.err
    assert "after pretraining" in done.err

    done = run(*command, "--fresh", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "the previous run was moved to runs/demo.1" in done.err


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    done = run(sys.executable, "-m", "srgan_dist.demo", "--config", tmp_path / "none.yaml", cwd=tmp_path)
    assert done.code == 2
    assert "none.yaml: cannot read the configuration" in " ".join(done.err.split())
