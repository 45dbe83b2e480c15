"""Whole runs, started as a user starts them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from tests.conftest import Train, metrics

NETWORKS = ("generator", "discriminator")


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    found: dict[str, torch.Tensor] = {}
    for name in ("generator", "discriminator", "ema"):
        found |= {f"{name}.{key}": value for key, value in load_file(newest / f"{name}.safetensors").items()}
    return found


def same(first: Path, second: Path) -> bool:
    a, b = final_weights(first), final_weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def finished() -> dict[str, Path]:
    return {}


@pytest.fixture
def whole(train: Train, finished: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run of six steps, trained once."""
    if "whole" not in finished:
        folder = tmp_path_factory.mktemp("whole") / "run"
        done = train(folder)
        assert done.code == 0, done.err
        finished["whole"] = folder
    return finished["whole"]


def test_an_equal_run_leaves_equal_bytes_and_clears_what_a_killed_one_left(
    whole: Path, train: Train, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    left = [run / ".result.json.tmp", run / "weights/.generator.safetensors.tmp", run / "weights/.tmpF4LAwS"]
    left += [run / "samples/.final.png.tmp", run / "checkpoints/.tmp-step-000003/ema.safetensors"]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    done = train(run)
    assert done.code == 0, done.err
    assert [path for path in run.rglob(".*") if path.name.startswith(".tmp") or path.name.endswith(".tmp")] == []
    # state.json holds how long it took, and so the manifest its digest; the others time nothing.
    names = {path.relative_to(whole) for path in whole.rglob("*") if path.suffix in (".safetensors", ".pt", ".png")}
    assert len(names) > 10
    for name in names:
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_run_writes_the_documented_files(whole: Path) -> None:
    lines = metrics(whole)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    always = {"step", "images", "epoch", "learning_rate", "g/pixel", "g/total", "grad_norm/g", "data/digest"}
    always |= {"perf/images_per_second", "perf/data_wait", "perf/memory_gib"}
    adversarial = {"g/perceptual", "g/adversarial"}
    discriminator = {"d/loss", "d/real_score", "d/fake_score", "grad_norm/d"}
    for line in lines:
        assert always <= line.keys()
        assert (adversarial <= line.keys()) == (line["step"] > 2)
        assert (discriminator <= line.keys()) == (line["step"] >= 4)  # 2 of pretraining, then 2:1
    assert {"val/psnr_y", "val/ssim_y", "val/perceptual"} <= lines[1].keys() & lines[5].keys()
    terms = ("g/pixel", "g/perceptual", "g/adversarial")
    assert lines[5]["g/total"] == pytest.approx(sum(lines[5][term] for term in terms), rel=1e-5)
    result = json.loads((whole / "result.json").read_text())
    assert result["steps"] == 6
    assert result["images"] == 24
    assert result["parameters"] > 1000
    for name in ("bicubic", "pretrained", "final"):
        assert result[name].keys() == {"psnr_y", "ssim_y", "perceptual", "grid"}
    assert sorted(path.name for path in (whole / "checkpoints").iterdir()) == ["step-000003", "step-000006"]
    with Image.open(whole / "samples" / "step-000006.png") as picture:
        assert picture.width > picture.height / 2
    assert (whole / "samples/final.png").is_file()
    assert "steps: 6" in (whole / "config.yaml").read_text()


def test_weights_say_what_they_are(whole: Path) -> None:
    with safe_open(whole / "weights/generator.safetensors", framework="pt") as file:
        facts = file.metadata()
    assert facts["scale"] == "4"
    assert facts["step"] == "6"
    assert json.loads(facts["generator"])["channels"] == 8


def test_a_finished_run_is_left_alone(whole: Path, train: Train, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(whole, copy)
    done = train(copy)
    assert done.code == 0
    assert "resumes after step 6 of 6" in done.err
    assert [line["step"] for line in metrics(copy)] == [1, 2, 3, 4, 5, 6]
    assert same(copy, whole)


def test_resumed_is_uninterrupted(whole: Path, train: Train, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(whole, copy)
    shutil.rmtree(copy / "checkpoints/step-000006")  # as if the machine had died after step 3 (in mid-cycle of 2:1)
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "cut o')
    done = train(copy)
    assert done.code == 0, done.err
    assert "resumes after step 3 of 6" in done.err
    assert same(copy, whole)
    before, after = metrics(whole), metrics(copy)
    assert [line["step"] for line in after] == [1, 2, 3, 4, 5, 6]
    for first, second in zip(before, after, strict=True):
        for key in ("data/digest", "g/total", "grad_norm/g", "learning_rate"):
            assert first[key] == second[key], key
    results = [json.loads((folder / "result.json").read_text()) for folder in (whole, copy)]
    assert results[0]["pretrained"] == results[1]["pretrained"]
    assert results[0]["final"] == results[1]["final"]


def test_a_damaged_checkpoint_is_named_and_skipped(whole: Path, train: Train, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(whole, copy)
    victim = copy / "checkpoints/step-000006/generator.safetensors"
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(content)
    done = train(copy)
    assert done.code == 0, done.err
    assert "generator.safetensors does not match the SHA-256" in done.err
    assert "resumes after step 3 of 6" in done.err
    assert same(copy, whole)


def test_a_named_checkpoint_is_the_one_that_is_loaded(whole: Path, train: Train, tmp_path: Path) -> None:
    done = train(tmp_path / "run", changes={"run.resume": whole / "checkpoints/step-000003"})
    assert done.code == 0, done.err
    assert "resumes after step 3 of 6" in done.err
    assert same(tmp_path / "run", whole)


def test_never_resume_renames_the_old_run(whole: Path, train: Train, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(whole, copy)
    done = train(copy, changes={"run.resume": "never"})
    assert done.code == 0, done.err
    assert f"starts from scratch; the previous run was moved to {tmp_path / 'run.1'}" in done.err
    assert same(tmp_path / "run.1", whole)
    assert same(copy, whole)  # the same seed


def test_another_seed_is_another_run(whole: Path, train: Train, tmp_path: Path) -> None:
    assert train(tmp_path / "run", changes={"run.seed": 1}).code == 0
    assert not same(tmp_path / "run", whole)


@pytest.mark.slow
def test_two_ranks_read_and_do_the_same(whole: Path, train: Train, tmp_path: Path) -> None:
    done = train(tmp_path / "run", ranks=2)
    assert done.code == 0, done.err
    assert "global batch of 4 = 2 x 1 micro-batches x 2 ranks" in done.err
    one, two = metrics(whole), metrics(tmp_path / "run")
    for first, second in zip(one, two, strict=True):
        assert first["data/digest"] == second["data/digest"]
        for key in ("g/total", "grad_norm/g"):
            assert first[key] == pytest.approx(second[key], rel=1e-3), key
    keys = ("psnr_y", "ssim_y", "perceptual")
    results: list[dict[str, Any]] = [
        json.loads((folder / "result.json").read_text()) for folder in (whole, tmp_path / "run")
    ]
    for name in ("bicubic", "pretrained", "final"):
        for key in keys:
            assert results[0][name][key] == pytest.approx(results[1][name][key], rel=1e-3)


@pytest.mark.slow
def test_two_ranks_resume_bit_for_bit(train: Train, tmp_path: Path) -> None:
    assert train(tmp_path / "whole", ranks=2).code == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy/checkpoints/step-000006")
    done = train(tmp_path / "copy", ranks=2)
    assert done.code == 0, done.err
    assert "2 ranks" in done.err
    assert same(tmp_path / "whole", tmp_path / "copy")
    assert (tmp_path / "copy/checkpoints/step-000006/rng-00001.pt").is_file()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_every_norm_and_precision_trains(train: Train, tmp_path: Path, precision: str, norm: str) -> None:
    changes = {
        "train.precision": precision,
        "generator.norm": norm,
        "discriminator.norm": "batch",
        "train.clip_grad_norm": 0.5,
        "train.steps": 4,
        "train.pretrain_steps": 1,
        "train.g_per_d": 1,
    }
    done = train(tmp_path / "run", changes=changes)
    assert done.code == 0, done.err
    assert all(torch.tensor(line["g/total"]).isfinite() for line in metrics(tmp_path / "run"))


@pytest.mark.parametrize(
    ("generator", "discriminator", "kind"),
    [
        ("rrdb", "unet", "relativistic"),
        ("msrresnet", "vgg", "hinge"),
        ("srresnet", "patchgan", "lsgan"),
        ("compact", "vgg", "vanilla"),
        ("span", "unet", "vanilla"),
    ],
)
def test_every_network_and_loss_trains(
    shards: Path, validation: Path, tmp_path: Path, generator: str, discriminator: str, kind: str
) -> None:
    from tests.conftest import cli

    done = cli(
        "train",
        f"--run.dir={tmp_path / 'run'}",
        f"--data.train={shards}",
        f"--data.validation={validation}",
        "--data.patch_size=48",
        "--data.batch_size=2",
        f"--generator.name={generator}",
        "--generator.channels=8",
        *([] if generator in ("compact", "span") else ["--generator.blocks=1"]),
        f"--discriminator.name={discriminator}",
        "--discriminator.channels=4",
        "--loss.perceptual.weights=random",
        "--loss.perceptual.layer=conv2_2",
        f"--loss.adversarial.kind={kind}",
        "--train.steps=2",
        "--log.every=1",
        "--tracker.name=none",
    )
    assert done.code == 0, done.err
    assert "vgg19 is untrained" in done.err
    assert "g/adversarial" in metrics(tmp_path / "run")[-1]


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_loss_that_is_not_finite_stops_the_run(train: Train, tmp_path: Path, ranks: int) -> None:
    changes = {"optimizer.pretrain.learning_rate": 1e38, "train.pretrain_steps": 6}
    done = train(tmp_path / "run", ranks=ranks, changes=changes)
    assert done.code == 1
    assert "g/pixel is not finite; no optimizer has moved since" in done.err
    if ranks == 1:
        assert "Traceback" not in done.err
    assert not list((tmp_path / "run").glob("weights/*"))


def test_the_adversarial_term_alone_moves_the_generator_and_not_the_discriminator(train: Train, tmp_path: Path) -> None:
    """Between steps 1 and 2 of 3:1, in which D does not learn."""
    changes = {
        "loss.pixel.weight": 0,
        "loss.perceptual.weight": 0,
        "train.pretrain_steps": 0,
        "train.g_per_d": 3,
        "train.steps": 2,
        "checkpoint.every": 1,
        "generator.skip": "none",
    }
    assert train(tmp_path / "run", changes=changes).code == 0
    assert not {"g/pixel", "g/perceptual"} & metrics(tmp_path / "run")[-1].keys()
    before, after = (
        {name: load_file(tmp_path / f"run/checkpoints/step-{step:06d}/{name}.safetensors") for name in NETWORKS}
        for step in (1, 2)
    )
    moved = {
        name: [key for key, value in before[name].items() if not torch.equal(value, after[name][key])]
        for name in NETWORKS
    }
    assert moved["discriminator"] == []
    assert moved["generator"] == list(before["generator"])
