"""What is measured besides PSNR and SSIM: which measures, of which images, on which rank."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from srgan_dist.config.load import load_config
from srgan_dist.errors import Failure, UserError
from srgan_dist.evaluation import build, image_measures
from srgan_dist.evaluation.build import build_measures, describe_auto
from srgan_dist.evaluation.evaluate import evaluate
from srgan_dist.evaluation.image_measures import network_measure
from srgan_dist.evaluation.summary import bicubic_check, interval, summarise
from srgan_dist.evaluation.validator import mean_quality
from srgan_dist.models.pretrained import WeightsUnavailable
from srgan_dist.training.build import best_by
from tests.cli.test_evaluate import write_weights
from tests.conftest import launch, photo


class Difference(nn.Module):
    """A distance that needs no weights."""

    def __init__(self, *, weights: str) -> None:  # noqa: ARG002 - as LPIPS takes it
        super().__init__()
        torch.rand(3)  # as networks do that are initialised

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        return (sr - hr).abs().mean(dim=(1, 2, 3))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The weights of VGG16 that are on this machine; none at first."""
    found: set[str] = set()
    monkeypatch.setattr(build, "vgg16_is_here", found.__contains__)
    networks: Any = {name: (Difference, weights) for name, (_, weights) in build._NETWORKS.items()}
    monkeypatch.setattr(build, "_NETWORKS", networks)
    return found


def built(asked: Any, *, scale: int = 4, ranks: Any = None) -> list[str]:
    return list(build_measures(asked, key="validate.measures", scale=scale, device="cpu", ranks=ranks))


@pytest.mark.parametrize(
    ("weights", "names"),
    [
        (set(), ["grid"]),
        ({"auto"}, ["grid", "lpips", "dists"]),
        ({"hed"}, ["grid", "lpips_hed", "dists_hed"]),
        ({"auto", "hed"}, ["grid", "lpips", "dists"]),
    ],
    ids=["none", "torchvision's", "hed's", "both"],
)
def test_auto_measures_by_what_is_here_and_says_so_once(here: set[str], weights: set[str], names: list[str]) -> None:
    here |= weights
    assert built("auto") == names
    line = describe_auto(set(names), key="validate.measures")
    assert line.startswith("validate.measures=auto: measures ")
    assert all(name in line for name in names)


def test_auto_needs_the_weights_of_every_rank(here: set[str]) -> None:
    here |= {"auto", "hed"}
    asked: list[bool] = []
    ranks = SimpleNamespace(all_agree=lambda ok: [asked.append(ok), len(asked) > 1][1])  # type: ignore[func-returns-value]
    assert built("auto", ranks=ranks) == ["grid", "lpips_hed", "dists_hed"]


def test_a_list_is_what_is_measured_and_no_random_number_is_taken(here: set[str]) -> None:
    torch.manual_seed(0)
    assert built(["dists_hed", "grid"]) == ["dists_hed", "grid"]
    assert built([]) == built(["grid"], scale=1) == []
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))
    assert not here


def test_a_list_whose_weights_are_lacking_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsUnavailable, match=r"^validate\.measures has lpips_hed: .*fetch") as error:
        built(["lpips_hed"])
    assert isinstance(error.value, Failure)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"validate\.measures has 'niqe'; allowed is auto, or a list of grid, lpips"):
        built(["niqe"])


def test_an_image_that_is_too_large_is_measured_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    sr, hr = (torch.from_numpy(photo(100, 71, seed)).permute(2, 0, 1)[None] for seed in (0, 1))
    whole = network_measure(Difference(weights="auto"))(sr, hr)
    monkeypatch.setattr(image_measures, "_LARGEST", 32)
    assert network_measure(Difference(weights="auto"))(sr, hr) == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("given", ["auto", "[grid, lpips]", "lpips,grid,lpips", "[]", "grid"])
def test_measures_are_read_as_a_list_or_auto(given: str, tmp_path: Path) -> None:
    expected = {"auto": "auto", "[grid, lpips]": ("grid", "lpips"), "[]": (), "grid": ("grid",)}
    config = load_config(None, [f"--validate.measures={given}"])
    assert config.validation.measures == expected.get(given, ("lpips", "grid"))
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml())
    assert load_config(file).validation.measures == config.validation.measures
    assert load_config(None).validation.measures == ("grid",)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--validate.measures=niqe"], "validate.measures: is ['niqe']; allowed is auto, or a list of grid, lpips"),
        (["--validate.measures=auto,grid"], "allowed is auto, or a list of"),
        (["--checkpoint.best=val/lpips"], "no LPIPS is measured, as validate.measures lacks lpips"),
        (["--checkpoint.best=val/grid", "--validate.measures=lpips"], "as validate.measures lacks grid"),
        (
            ["--checkpoint.best=val/grid", "--data.scale=1", "--data.degradation.kind=noise"],
            "data.scale is 1, and without upscaling there is no grid",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(arguments: list[str], says: str) -> None:
    with pytest.raises(UserError) as error:
        load_config(None, ["--data.validation=x", *arguments])
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("measured", "by"),
    [
        (["perceptual", "grid"], "perceptual"),
        (["grid", "lpips_hed", "perceptual"], "lpips_hed"),
        (["lpips", "perceptual"], "lpips"),
    ],
)
def test_the_front_is_of_the_first_distance_that_is_measured(measured: list[str], by: str) -> None:
    config = load_config(None, ["--checkpoint.best=front", "--data.validation=x", "--validate.measures=auto"])
    assert best_by(config, measured) == ("psnr_y", by)


@pytest.mark.parametrize("best", ["front", "val/dists"])
def test_a_best_that_auto_turns_out_not_to_measure_is_refused(best: str) -> None:
    arguments = [f"--checkpoint.best={best}", "--data.validation=x", "--validate.measures=auto"]
    config = load_config(None, [*arguments, "--loss.perceptual.weight=0"])
    with pytest.raises(UserError, match=rf"checkpoint\.best is {best}, which validate\.measures=auto cannot measure"):
        best_by(config, ["grid"])


def test_the_interval_of_a_mean_is_that_of_theory_and_the_same_each_time() -> None:
    values = np.random.default_rng(1).normal(30, 3, 200).tolist()
    ends = interval(values)
    assert ends
    half = 1.96 * float(np.std(values)) / 200**0.5
    assert ends == pytest.approx([np.mean(values) - half, np.mean(values) + half], abs=0.05)
    assert ends == interval([*values, None])
    assert interval([1.5, 1.5]) == [1.5, 1.5]
    assert interval([30.0]) is interval([]) is None


def test_means_of_methods_are_over_the_same_images() -> None:
    rows: list[dict[str, Any]] = [
        {"a": {"psnr_y": 30.0, "grid": 1.0}, "b": {"psnr_y": None, "grid": 2.0}},
        {"a": {"psnr_y": 20.0, "grid": None}, "b": {"psnr_y": 22.0, "grid": None}},
    ]
    found = summarise(rows, ["a", "b"])
    assert found["a"] == {"psnr_y": 20.0, "grid": 1.0}
    assert found["b"] == {"psnr_y": 22.0, "grid": 2.0}
    assert found["identical"] == 1
    assert found["intervals"]["a"] == {"psnr_y": None, "grid": None}


def test_the_mean_of_a_validation_leaves_out_what_an_image_has_not() -> None:
    rows: list[dict[str, Any]] = [
        {"image": "a", "psnr_y": 30.0, "ssim_y": 0.8, "perceptual": None, "grid": 1.5},
        {"image": "b", "psnr_y": 20.0, "ssim_y": 0.6, "perceptual": None, "grid": None},
    ]
    assert mean_quality(rows) == {"psnr_y": 25.0, "ssim_y": pytest.approx(0.7), "perceptual": None, "grid": 1.5}


@pytest.mark.parametrize(
    ("name", "count", "psnr", "tells"),
    [
        ("Set5", 5, 28.43, False),
        ("Set5", 5, 26.7, True),
        ("Set5", 4, 26.7, False),
        ("BSDS100", 100, 25.5, True),
        ("Urban-100", 100, 23.15, False),
        ("mine", 5, 20.0, False),
        ("Set14", 14, None, False),
    ],
)
def test_bicubic_of_a_known_set_is_compared(name: str, count: int, psnr: float | None, tells: bool) -> None:
    line = bicubic_check(name, count=count, scale=4, psnr_y=psnr)
    assert (line is not None) is tells
    assert line is None or (f"{name} x4: bicubic has {psnr:.2f} dB" in line and "\n" not in line)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    write_weights(tmp_path / "w.safetensors", gain=0.02)
    return tmp_path / "w.safetensors"


def on_two_ranks(measure: Callable[[Any], Any]) -> Iterator[Any]:
    """What each of two ranks returns, or raises; the first is run twice, as it needs the other's rows."""
    sent: dict[int, Any] = {}

    class Stop(Exception):
        pass

    def ranks(rank: int) -> Any:
        def gather(value: Any) -> list[Any]:
            sent[rank] = value
            if len(sent) < 2:
                raise Stop
            return [sent[0], sent[1]]

        return SimpleNamespace(rank=rank, world_size=2, is_main=rank == 0, all_gather_object=gather)

    with pytest.raises(Stop):
        measure(ranks(0))
    for rank in (1, 0):
        try:
            yield measure(ranks(rank))
        except UserError as error:
            yield error


@pytest.mark.parametrize("count", [1, 2, 5], ids="{} images".format)
def test_ranks_share_the_images_and_all_get_what_one_measures(weights: Path, tmp_path: Path, count: int) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for number in range(count):
        Image.fromarray(photo(48, 48 + 4 * number, number)).save(folder / f"{number}.png")
    alone = evaluate(weights, folder, measures=["grid"])
    measured: list[str] = []
    both = on_two_ranks(
        lambda ranks: evaluate(weights, folder, measures=["grid"], ranks=ranks, on_image=measured.append)
    )
    assert list(both) == [alone, alone]
    again = [str(number) for number in range(0, count, 2)]  # rank 0 is run twice
    assert sorted(measured) == sorted([*map(str, range(count)), *again])


def test_a_mistake_that_one_rank_meets_is_told_on_all(weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    Image.fromarray(photo(48, 48)).save(folder / "a.png")
    Image.fromarray(photo(12, 12)).save(folder / "b.png")
    told = list(on_two_ranks(lambda ranks: evaluate(weights, folder, measures=[], ranks=ranks)))
    assert [str(error) for error in told] == [str(told[0])] * 2
    assert "b is 12x12; images to measure on need at least 19 pixels" in str(told[0])


@pytest.mark.slow
def test_evaluate_on_two_real_ranks_writes_what_one_writes(weights: Path, validation: Path, tmp_path: Path) -> None:
    written = []
    for ranks in (1, 2):
        file = tmp_path / f"{ranks}.json"
        done = launch(ranks, "--module", "srgan_dist", "evaluate", weights, validation, f"--json={file}")
        assert done.code == 0, done.err
        assert done.out.count("3 images") == 1
        written.append(json.loads(file.read_text()))
    assert written[0]["sets"][0]["images"] == [
        {**row, "model": pytest.approx(row["model"], rel=1e-6), "bicubic": pytest.approx(row["bicubic"], rel=1e-6)}
        for row in written[1]["sets"][0]["images"]
    ]
