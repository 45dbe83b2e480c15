"""Identical images have an infinite PSNR, and JSON has no infinity: they are left out of the mean, and counted."""

from __future__ import annotations

import io
import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from srgan_dist.config.models import SRResNetConfig
from srgan_dist.errors import UserError
from srgan_dist.evaluation.evaluate import evaluate, to_table, write_json
from srgan_dist.evaluation.metrics import psnr_ssim_y
from srgan_dist.evaluation.test_sets import read_pairs
from srgan_dist.evaluation.validator import Validator
from srgan_dist.inference.generator import SRGenerator
from srgan_dist.inference.upscale_files import upscale_file
from srgan_dist.models.build import build_generator
from srgan_dist.tracking.console import result_table
from srgan_dist.utils import strict_json
from tests.conftest import photo


def bicubic() -> SRGenerator:
    """A network that is bicubic interpolation: fresh, with a skip."""
    config = SRResNetConfig(
        channels=8, blocks=1, norm="none", skip="bicubic", upsampler="pixelshuffledirect", end_kernel=3
    )
    return SRGenerator(build_generator(config, scale=4), scale=4, metadata={}).eval()


def strictly(text: str) -> Any:
    """Read JSON as other programs do, without Python's NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


def write(folder: Path, **images: np.ndarray[Any, np.dtype[np.uint8]]) -> Path:
    folder.mkdir()
    for name, image in images.items():
        Image.fromarray(image).save(folder / f"{name}.png")
    return folder


BLANK = np.full((48, 48, 3), 255, np.uint8)


BLANKS = {"psnr_y": None, "psnr_rgb": None, "ssim_y": pytest.approx(1), "grid": 1.0}


def test_evaluate_leaves_a_blank_page_out_of_the_mean(tmp_path: Path) -> None:
    generator = bicubic()
    folder = write(tmp_path / "pages", blank=BLANK, photo=photo(48, 48))
    (result,) = evaluate(generator, folder, measures=["grid"])
    (alone,) = evaluate(generator, write(tmp_path / "photos", photo=photo(48, 48)), measures=["grid"])
    assert (result["identical"], alone["identical"]) == (1, 0)
    blank = result["images"][0]
    assert blank["model"] == blank["bicubic"] == BLANKS
    for method in ("model", "bicubic"):
        assert result[method]["psnr_y"] == alone[method]["psnr_y"]
        assert result[method]["ssim_y"] == pytest.approx((1 + alone[method]["ssim_y"]) / 2)
    write_json(tmp_path / "result.json", tmp_path / "w", [result])
    assert strictly((tmp_path / "result.json").read_text())["sets"] == [result]
    shown = io.StringIO()
    Console(file=shown, width=200).print(to_table(result))
    assert "1 image identical, left out of the mean PSNR" in " ".join(shown.getvalue().split())


def test_a_folder_that_is_refused_is_refused_before_any_is_measured(tmp_path: Path) -> None:
    measured: list[str] = []
    with pytest.raises(UserError, match="nowhere"):
        evaluate(bicubic(), [write(tmp_path / "good", a=photo(48, 48)), tmp_path / "nowhere"], on_image=measured.append)
    assert not measured


def test_evaluate_of_blank_pages_alone_has_no_mean(tmp_path: Path) -> None:
    (result,) = evaluate(bicubic(), write(tmp_path / "pages", one=BLANK, two=BLANK), measures=["grid"])
    assert result["model"] == BLANKS
    assert result["identical"] == 2
    to_table(result)


def test_an_image_that_is_identical_for_one_of_both_counts_for_neither(tmp_path: Path) -> None:
    """The gain compares means over the same images."""
    generator = bicubic()
    with torch.no_grad():
        for parameter in generator.network.parameters():
            parameter.add_(0.01)
    folder = write(tmp_path / "pages", grey=BLANK // 2, photo=photo(48, 48))
    (result,) = evaluate(generator, folder)
    grey, other = result["images"]
    assert grey["bicubic"]["psnr_y"] is None
    assert grey["model"]["psnr_y"] is not None
    assert result["identical"] == 1
    assert result["model"]["psnr_y"] == other["model"]["psnr_y"]


def test_validation_leaves_them_out_too(tmp_path: Path) -> None:
    images = list(read_pairs(write(tmp_path / "pages", blank=BLANK, photo=photo(48, 48)), scale=4))
    alone: Any = SimpleNamespace(
        rank=0,
        world_size=1,
        device=torch.device("cpu"),
        memory_format=torch.contiguous_format,
        all_gather_object=lambda value: [value],
        images_of_any_size=nullcontext,
    )

    def measure(*of: int) -> dict[str, float | None]:
        validator = Validator([images[index] for index in of], scale=4, runtime=alone, measures={})
        return validator.measure(validator.bicubic)

    both, photo_alone, blank_alone = measure(0, 1), measure(1), measure(0)
    assert both["psnr_y"] == photo_alone["psnr_y"]
    assert both["identical"] == 1
    # A network that makes noise of the blank page is measured on the same images as bicubic upscaling.
    validator = Validator(images, scale=4, runtime=alone, measures={})
    noisy = validator.measure(lambda lr: validator.bicubic(lr) - 0.01)
    assert noisy["identical"] == 1
    assert (
        noisy["psnr_y"]
        == Validator(images[1:], scale=4, runtime=alone, measures={}).measure(lambda lr: validator.bicubic(lr) - 0.01)[
            "psnr_y"
        ]
    )
    assert "identical" not in photo_alone
    assert blank_alone["psnr_y"] is None
    shown = io.StringIO()
    result = {"bicubic": blank_alone, "final": both, "steps": 1, "images": 4, "seconds": 1.0}
    Console(file=shown, width=200).print(result_table(result))
    lines = [[cell.strip() for cell in line.split("│")] for line in shown.getvalue().splitlines()]
    assert ["bicubic, without 1 identical", "identical"] in [line[1:3] for line in lines]


def test_the_metric_itself_stays_infinite() -> None:
    image = torch.from_numpy(BLANK).permute(2, 0, 1)[None]
    assert psnr_ssim_y(image, image, border=4)[0] == float("inf")


def test_json_has_no_infinity() -> None:
    content = {"a": [float("inf"), (float("nan"), 1.5)], "b": {"c": -float("inf")}, "d": "NaN", "e": 3, "f": None}
    read = strictly(strict_json.dumps(content))
    assert read == {"a": [None, [None, 1.5]], "b": {"c": None}, "d": "NaN", "e": 3, "f": None}


class Overflows(torch.nn.Module):
    """A network whose weights are finite and whose output, on bright pixels, is not."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(2e38))

    def forward(self, lr: Tensor) -> Tensor:
        return lr.repeat_interleave(4, -1).repeat_interleave(4, -2) * self.weight * 2


class Halved(torch.nn.Module):
    """A network that computes in half precision."""

    def __init__(self, network: Overflows) -> None:
        super().__init__()
        self.network = network.half()

    def forward(self, lr: Tensor) -> Tensor:
        sr: Tensor = self.network(lr.half())
        return sr


@pytest.mark.parametrize("tile", [256, 48])
def test_an_output_that_is_not_finite_is_no_picture(tmp_path: Path, tile: int) -> None:
    generator = SRGenerator(Overflows(), scale=4, metadata={})
    folder = write(tmp_path / "pages", bright=np.full((100, 100, 3), 255, np.uint8))
    told = (
        r"bright(\.png)?: the network's output is not finite, though its weights are: it overflows torch\.float32; "
        "use weights of an earlier step"
    )
    with pytest.raises(UserError, match=told):
        upscale_file(generator, folder / "bright.png", tmp_path / "out.png", tile=tile)
    assert not (tmp_path / "out.png").exists()
    with pytest.raises(UserError, match=told):
        evaluate(generator, folder)


def test_half_precision_that_overflows_is_told_of_fp32() -> None:
    network = Overflows()
    network.weight.data = torch.tensor(5e4)
    white = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    assert SRGenerator(network, scale=4, metadata={}).upscale_tensor(white).min() == 255
    with pytest.raises(UserError, match=r"it overflows torch\.float16; use fp32"):
        SRGenerator(Halved(network), scale=4, metadata={}).upscale_tensor(white)
