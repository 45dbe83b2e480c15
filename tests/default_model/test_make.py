"""`make model`, in small: from photographs that are there already to weights, figures and a card."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image

from srgan_dist import SRGenerator
from srgan_dist.checkpointing.weights import load_weights
from srgan_dist.config.load import load_config
from srgan_dist.default_model.make import CONFIGS
from srgan_dist.default_model.photographs import read_list
from srgan_dist.inference.default import VARIANTS, Variant
from tests.conftest import photo, run

SMALL = {
    "generator.channels": 8,
    "generator.convs": 2,
    "discriminator.channels": 4,
    "data.batch_size": 2,
    "data.patch_size": 48,
    "loss.perceptual.weight": 0,
    "train.threads": 1,
    "train.precision": "fp32",
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_configurations_are_of_one_architecture(variant: Variant) -> None:
    config = load_config(CONFIGS[variant])
    assert config.generator == load_config(CONFIGS["psnr"]).generator
    assert config.data.scale == 4
    assert (config.adversarial_steps == 0) == (variant == "psnr")


@pytest.mark.slow
def test_weights_figures_and_a_card_are_made_once(tmp_path: Path) -> None:
    listed = read_list()
    validation = next(one for one in listed if one.use == "validation")
    few = [*listed[:2], validation]
    for seed, one in enumerate(few):
        place = tmp_path / "model/photographs" / one.use / one.file
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(144, 144, seed)).save(place)
    with (tmp_path / "few.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, asdict(few[0]))
        writer.writeheader()
        writer.writerows(asdict(one) for one in few)
    command = [sys.executable, "-m", "srgan_dist.default_model.make", "--minutes", "0.001", "--folder", "model"]
    command += ["--photographs", "few.csv", *(f"--{key}={value}" for key, value in SMALL.items())]

    done = run(*command, cwd=tmp_path)
    assert done.code == 0, done.err
    model = tmp_path / "model"
    for variant in ("psnr", "gan"):
        weights, metadata = load_weights(model / f"{variant}.safetensors")
        assert {str(value.dtype) for value in weights.values()} == {"torch.float16"}
        assert metadata["default_model"] == variant
        assert SRGenerator.from_pretrained(model / f"{variant}.safetensors").scale == 4
    result = json.loads((model / "gan/result.json").read_text())
    assert f"model/gan: {result['steps']} steps, at " in done.err
    assert "psnr/weights/generator.safetensors" in (model / "gan/config.yaml").read_text()
    card = (model / "MODEL_CARD.md").read_text()
    for one in few:
        assert one.author in card
        assert one.licence in card
    figures = json.loads((model / "evaluation.json").read_text())
    assert f"| gan | {figures['gan'][0]['model']['psnr_y']:.2f} |" in card

    made = {path: path.stat().st_mtime_ns for path in model.rglob("*.json")}
    done = run(*command, cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.err.count("already trained") == 2
    assert {path: path.stat().st_mtime_ns for path in model.rglob("*.json")} == made


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "0"], "--minutes is 0.0, allowed are numbers above 0"),
        (["--photographs", "none.csv"], "none.csv: not a list of photographs"),
        (["--photographs", "none.csv", "--train.step=1"], "none.csv"),
    ],
    ids=["minutes", "list", "key"],
)
def test_a_mistake_is_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = run(sys.executable, "-m", "srgan_dist.default_model.make", *arguments, cwd=tmp_path)
    assert done.code == 2
    assert message in " ".join(done.err.split())
    assert len(done.lines) == 1
