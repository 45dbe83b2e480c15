"""A run folder that an earlier version wrote is resumed, read and used: tests/fixtures/run-v0.1/README.md."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from srgan_dist.data.packing.pack import pack
from srgan_dist.inference.generator import SRGenerator
from tests.conftest import ROOT, Finished, cli, metrics, photo, write_images

OLD = ROOT / "tests/fixtures/run-v0.1"


def prepare(folder: Path) -> Path:
    """Put the old run into a folder, with the data that it was trained on; returns where it is."""
    write_images(folder / "images")
    pack(folder / "images", folder / "shards", scale=4, tile=96)
    (folder / "validation").mkdir()
    Image.fromarray(photo(32, 36, 100)).save(folder / "validation/v0.png")
    shutil.copytree(OLD / "run", folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    """The folder in which the old run was resumed, and what the command said."""
    folder = tmp_path_factory.mktemp("old")
    run = prepare(folder)
    done = cli("train", "--config", run / "config.yaml", "--train.steps=12", cwd=folder)
    assert done.code == 0, done.err
    return folder, done


@pytest.fixture
def resumed(workplace: tuple[Path, Finished]) -> Path:
    """The old run, resumed from step 7 and trained to step 12."""
    return workplace[0] / "run"


def test_it_is_resumed_after_its_last_step(workplace: tuple[Path, Finished]) -> None:
    _, done = workplace
    assert "after step 7 of 12, from run/checkpoints/step-000007" in done.err


def test_its_lines_of_metrics_stay_and_the_next_are_those_of_the_old_code(resumed: Path) -> None:
    """Same patches, same names, same losses: the optimizers, the average and the place in 2:1 were taken over."""
    old, new = (OLD / "run/metrics.jsonl").read_text(), (resumed / "metrics.jsonl").read_text()
    assert new.startswith(old)
    continued = [json.loads(line) for line in (OLD / "continued.jsonl").read_text().splitlines()]
    lines = metrics(resumed)
    assert [line["step"] for line in lines] == list(range(1, 13))
    for line, expected in zip(lines[7:], continued, strict=True):
        assert line.keys() - expected.keys() - {"val/grid"} == {"time", "hours", "learning_rate/d"}
        for name, value in expected.items():
            if name.startswith("perf/"):
                continue
            tolerant = isinstance(value, float) and not name.endswith(("_accuracy", "saturated"))
            if tolerant:  # of rounding on another processor
                assert line[name] == pytest.approx(value, rel=1e-3, abs=1e-6), name
            elif isinstance(value, float):  # fractions of pixels: a few may lie at the limit
                assert line[name] == pytest.approx(value, abs=0.01), name
            else:
                assert line[name] == value, name


def test_its_configuration_is_kept_but_for_what_was_asked(resumed: Path) -> None:
    old, new = (yaml.safe_load((folder / "config.yaml").read_text()) for folder in (OLD / "run", resumed))
    # Version 0.1 had one layer, and said whether before or after its ReLU.
    perceptual = old["loss"]["perceptual"]
    assert (perceptual.pop("layer"), perceptual.pop("activation")) == ("conv2_2", "before")
    perceptual |= {"layers": {"conv2_2": 1.0}, "normalise": False, "preset": None}
    for section in old:
        for key, value in old[section].items():
            expected = 12 if (section, key) == ("train", "steps") else value
            assert new[section][key] == expected, f"{section}.{key}"


def test_its_result_continues(resumed: Path) -> None:
    old, new = (json.loads((folder / "result.json").read_text()) for folder in (OLD / "run", resumed))
    assert new.keys() - old.keys() == {"name", "best", "started", "finished", "hours"}
    assert new["started"] is None  # nobody wrote it down
    logged = [line for line in metrics(resumed) if "val/psnr_y" in line]
    assert len(logged) > 1
    for name, best in (("psnr_y", max), ("ssim_y", max), ("perceptual", min)):
        assert new["best"][name]["value"] == best(line[f"val/{name}"] for line in logged)  # its old lines count, too
    assert (new["steps"], new["images"]) == (12, 48)
    assert new["parameters"] == old["parameters"]
    assert new["pretrained"] == old["pretrained"]  # from the checkpoint: the phase is long over
    assert new["final"] != old["final"]


def test_the_next_checkpoint_has_the_same_files_and_names(resumed: Path) -> None:
    old, new = OLD / "run/checkpoints/step-000007", resumed / "checkpoints/step-000012"
    assert {path.name for path in new.iterdir()} == {path.name for path in old.iterdir()}
    assert [path.name for path in (resumed / "checkpoints").iterdir()] == ["step-000012"]  # checkpoint.keep is 1
    for path in old.glob("*.safetensors"):
        before, after = load_file(path), load_file(new / path.name)
        assert list(after) == list(before)
        assert all(
            (after[name].dtype, after[name].shape) == (value.dtype, value.shape) for name, value in before.items()
        )
        assert any(not torch.equal(after[name], value) for name, value in before.items())
    states = [json.loads((folder / "state.json").read_text()) for folder in (old, new)]
    assert states[0].keys() <= states[1].keys()
    assert (states[1]["step"], states[1]["consumed"], states[1]["discriminator_updates"]) == (12, 48, 5)


@pytest.mark.parametrize("name", ["generator", "pretrained"])
def test_its_weights_load_for_use(name: str) -> None:
    path = OLD / f"run/weights/{name}.safetensors"
    generator = SRGenerator.from_pretrained(path)
    image = photo(20, 24, 7)
    with torch.inference_mode():
        sr = generator(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)
    assert sr.shape == (1, 3, 80, 96)
    assert sr.isfinite().all()


def test_the_new_weights_have_the_metadata_of_the_old_ones(resumed: Path) -> None:
    facts = []
    for folder in (OLD / "run", resumed):
        with safe_open(folder / "weights/generator.safetensors", framework="pt") as file:
            facts.append((list(file.keys()), file.metadata()))
    (old_names, old), (new_names, new) = facts
    assert new_names == old_names
    assert new.keys() == old.keys()
    for name in ("format", "scale", "generator"):
        assert new[name] == old[name]


def test_other_shards_are_refused(tmp_path: Path) -> None:
    """The digest in the old checkpoint is compared: the run above was not resumed on just any data."""
    run = prepare(tmp_path)
    shutil.rmtree(tmp_path / "shards")
    Image.fromarray(photo(96, 80, 50)).save(tmp_path / "images/0.png")
    pack(tmp_path / "images", tmp_path / "shards", scale=4, tile=96)
    done = cli("train", "--config", run / "config.yaml", "--train.steps=12", cwd=tmp_path)
    assert done.code == 2
    assert "data.train: shards " in done.err
