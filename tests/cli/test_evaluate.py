"""``srgan-dist evaluate`` of runs and of several models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from srgan_dist.checkpointing.weights import save_weights
from srgan_dist.config.models import SRResNetConfig
from srgan_dist.evaluation.side_by_side import common_means, to_tables
from srgan_dist.models.build import build_generator, generator_metadata
from tests.conftest import Finished, call
from tests.records.folders import make_run


def write_weights(path: Path, *, scale: int = 4, gain: float = 0.0) -> None:
    """Weights of a network that is bicubic interpolation, or with a gain something worse."""
    config = SRResNetConfig(
        channels=8, blocks=1, norm="none", skip="bicubic", upsampler="pixelshuffledirect", end_kernel=3
    )
    weights = build_generator(config, scale=scale).state_dict()
    if gain:
        name = [name for name in weights if name.endswith("bias")][-1]
        weights[name] = weights[name] + gain
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(path, weights, generator_metadata(config, scale=scale) | {"step": "7"})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that has best weights, one that has only its last, and a file of weights."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("a", "b"):
        make_run(folder / name)
        write_weights(folder / name / "weights/generator.safetensors", gain=0.1)
    write_weights(folder / "a/weights/best.safetensors")
    write_weights(folder / "x2.safetensors", scale=2)
    return folder


def refused(done: Finished, *parts: str | Path) -> None:
    """Exit code 2 and one line with these parts."""
    assert done.code == 2, done.err
    assert len(done.lines) == 1, done.err
    assert all(str(part) in done.lines[0] for part in parts), done.lines[0]


def test_of_a_run_its_best_weights_are_measured_as_the_file_is(models: Path, validation: Path, tmp_path: Path) -> None:
    weights, outs = models / "a/weights/best.safetensors", []
    for model in (models / "a", weights):
        done = call("evaluate", model, validation, "--json", tmp_path / f"{model.name}.json")
        assert done.code == 0, done.err
        outs.append(done.out)
    assert outs[0].replace("\n", "") == f"{weights}:" + outs[1].replace("\n", "")
    contents = [(tmp_path / f"{name}.json").read_text() for name in ("a", "best.safetensors")]
    assert contents[0] == contents[1]
    assert json.loads(contents[0]).keys() == {"weights", "sets"}


def test_runs_and_weights_side_by_side(models: Path, validation: Path, images: Path, tmp_path: Path) -> None:
    given = [models / "a", models / "b", models / "b/weights/generator.safetensors"]
    done = call("evaluate", *given, validation, images, "--json", tmp_path / "all.json")
    assert done.code == 0, done.err
    content = json.loads((tmp_path / "all.json").read_text())["models"]
    assert [model["name"] for model in content] == list(map(str, given))
    assert content[0]["weights"] == str(models / "a/weights/best.safetensors")
    assert content[1]["weights"] == str(models / "b/weights/generator.safetensors")
    assert [[len(of["images"]) for of in model["sets"]] for model in content] == [[3, 6]] * 3
    assert content[1]["sets"] == content[2]["sets"] != content[0]["sets"]
    assert "best.safetensors, step 7" in done.out
    assert "generator.safetensors, step 7" in done.out


def test_what_is_what_is_seen_by_content_and_the_order_matters(
    models: Path, validation: Path, images: Path, tmp_path: Path
) -> None:
    a, b = models / "a", models / "b"
    refused(call("evaluate", a, validation, b), f"{b} is a model, but {validation} before it is a folder of images")
    refused(call("evaluate", a, models / "none", b), f"{b} is a model, but there is no {models}/none")
    refused(call("evaluate", a, b), f"all of {a}, {b} are models: name a folder of images")
    refused(call("evaluate", a, a, validation), f"{a} stands there twice")
    refused(call("evaluate", validation, images), "is a folder; name a file of weights")
    refused(call("evaluate", a, models / "x2.safetensors", validation), "enlarge differently", "x2.safetensors 2")
    refused(call("evaluate", make_run(tmp_path / "new"), validation), "new: this run has no weights yet")
    both = shutil.copytree(a, tmp_path / "both")
    Image.new("RGB", (64, 64)).save(both / "figure.png")
    refused(call("evaluate", both, validation), f"{both} is the folder of a run, and holds images as well")
    refused(call("evaluate", a, both), f"{both} is the folder of a run, and holds images as well")


def result(name: str, values: dict[str, tuple[float | None, float | None]]) -> dict[str, Any]:
    """What `evaluate` returns for a test set: by image, PSNR of bicubic and of the model."""
    rows = [
        {
            "name": image,
            "bicubic": {"psnr_y": bicubic, "ssim_y": 0.5},
            "model": {"psnr_y": model, "ssim_y": 0.5 if model else 1.0},
        }
        for image, (bicubic, model) in values.items()
    ]
    return {"name": name, "images": rows}


def test_means_are_over_the_same_images_and_the_best_is_bold() -> None:
    results = {
        "good": [result("set", {"x": (20.0, 30.0), "blank": (20.0, None)})],
        "bad": [result("set", {"x": (20.0, 25.0), "blank": (20.0, 90.0)})],
    }
    (means,) = common_means(results)
    assert means["identical"] == 1
    assert [means[method]["psnr_y"] for method in ("bicubic", *results)] == [20.0, 30.0, 25.0]
    (table,) = to_tables(results, {})
    psnr = list(table.columns[1].cells)
    assert [getattr(cell, "style", None) for cell in psnr] == ["", "bold", ""]
    assert str(table.caption).startswith("1 of 2 images identical")
