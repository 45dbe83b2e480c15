"""The default model, by weights of the test's own: what is loaded by its names, and what lies between its variants."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from srgan_dist import SRGenerator, UserError
from srgan_dist.checkpointing.weights import save_weights
from srgan_dist.cli.commands import main
from srgan_dist.config.models import CompactConfig
from srgan_dist.inference import default
from srgan_dist.models.build import build_generator, generator_metadata

CONFIG = CompactConfig(channels=8, convs=2)


def save(path: Path, *, seed: int, config: CompactConfig = CONFIG, scale: int = 4) -> None:
    torch.manual_seed(seed)
    network = build_generator(config, scale=scale, merged=True)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_weights(path, {n: v.half() for n, v in network.state_dict().items()}, generator_metadata(config, scale=scale))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with both variants, and a photograph to upscale, in the current folder."""
    folder = tmp_path / "default_model"
    for seed, variant in enumerate(default.VARIANTS):
        save(folder / f"{variant}.safetensors", seed=seed)
    monkeypatch.setattr(default, "FOLDER", folder)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)).save("photo.png")
    return folder


def upscaled(*options: str) -> Image.Image:
    assert main(["upscale", "photo.png", "large.png", *options]) == 0
    with Image.open("large.png") as image:
        return image.copy()


def test_without_an_argument_it_is_the_gan(model: Path) -> None:
    lr = torch.rand(1, 3, 8, 8)
    found = SRGenerator.default(device="cpu")
    assert found.scale == 4
    assert torch.equal(found(lr), SRGenerator.from_pretrained(model / "gan.safetensors", device="cpu")(lr))
    assert not torch.equal(found(lr), SRGenerator.default("psnr", device="cpu")(lr))


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("options", "same"),
    [
        ((), ("--weights", "gan")),
        ((), ("--alpha", "1")),
        (("--weights", "psnr"), ("--alpha", "0")),
        (("--weights", "default_model/psnr.safetensors"), ("--alpha", "0")),
        (("--alpha", "0.3"), ("--weights", "psnr", "--blend-with", "gan", "--alpha", "0.7")),
    ],
    ids=["gan", "one", "psnr", "file", "other-end"],
)
def test_upscale_by_the_default_models_names(options: tuple[str, ...], same: tuple[str, ...]) -> None:
    expected = upscaled(*same)
    assert expected.size == (96, 80)
    assert np.abs(np.asarray(upscaled(*options), int) - np.asarray(expected, int)).max() <= 1  # fp32's order of sums


def test_a_file_called_as_a_variant_is_that_file(model: Path) -> None:
    (model / "psnr.safetensors").rename("gan")
    assert default.named_weights("gan") == Path("gan")


@pytest.mark.usefixtures("model")
def test_blended_weights_lie_on_the_line_between() -> None:
    psnr, gan = (SRGenerator.default(variant, device="cpu") for variant in ("psnr", "gan"))
    quarter = gan.blended(psnr, 0.25).network.state_dict()
    for name, value in gan.network.state_dict().items():
        expected = 0.75 * psnr.network.state_dict()[name] + 0.25 * value
        torch.testing.assert_close(quarter[name], expected)
    assert torch.equal(
        gan.network.state_dict()["body.0.weight"], SRGenerator.default().network.state_dict()["body.0.weight"].cpu()
    )


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("config", "scale", "reason"),
    [(CONFIG, 2, "Compact x2 and Compact x4"), (CompactConfig(channels=12, convs=2), 4, "of another shape")],
    ids=["scale", "channels"],
)
def test_networks_that_differ_are_not_blended(config: CompactConfig, scale: int, reason: str) -> None:
    save(Path("other.safetensors"), seed=9, config=config, scale=scale)
    with pytest.raises(UserError, match=reason):
        SRGenerator.default().blended(SRGenerator.from_pretrained("other.safetensors"), 0.5)


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--alpha", "1.5"], "--alpha is 1.5, allowed are numbers from 0 to 1"),
        (["--alpha", "nan"], "--alpha is nan, allowed"),
        (["--blend-with", "gan"], "--blend-with needs --alpha"),
        (["--weights", "none"], "none: there is no such weights file"),
    ],
    ids=["beyond", "nan", "no-alpha", "no-file"],
)
def test_a_mistake_is_one_line(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upscale", "photo.png", "large.png", *options]) == 2
    assert message in capsys.readouterr().err
    assert not Path("large.png").exists()


def test_an_installation_without_weights_says_what_to_do(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / "gan.safetensors").unlink()
    assert main(["upscale", "photo.png", "large.png"]) == 2
    assert "no weights of the default model" in capsys.readouterr().err
    with pytest.raises(UserError, match="no variant 'best', allowed are gan and psnr"):
        SRGenerator.default("best")  # type: ignore[arg-type]


@pytest.mark.usefixtures("model")
def test_without_an_output_the_result_stands_beside_the_image(capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos").mkdir()
    Path("photo.png").rename("photos/photo.JPG")
    assert main(["upscale", "photos/photo.JPG"]) == 0
    assert "photos/photo-large.JPG" in capsys.readouterr().err
    assert main(["upscale", "photos"]) == 0
    assert {path.name for path in Path("photos-large").iterdir()} == {"photo.png", "photo-large.png"}


@pytest.mark.usefixtures("model")
def test_evaluate_knows_the_names() -> None:
    Path("set").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save("set/one.png")
    assert main(["evaluate", "psnr", "gan", "set", "--measures", "grid", "--json", "found.json"]) == 0
    assert [one["name"] for one in json.loads(Path("found.json").read_text())["models"]] == ["psnr", "gan"]


@pytest.mark.usefixtures("model")
def test_the_current_folder_and_the_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upscale", "."]) == 0
    assert (tmp_path.parent / f"{tmp_path.name}-large" / "photo.png").exists()
    assert main(["upscale", "/"]) == 2
    assert "/ has nothing beside it" in capsys.readouterr().err


@pytest.mark.usefixtures("model")
def test_a_file_that_nobody_named_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photo-large.png").write_text("mine")
    assert main(["upscale", "photo.png"]) == 2
    assert "photo-large.png is there already" in capsys.readouterr().err
    assert (tmp_path / "photo-large.png").read_text() == "mine"


@pytest.mark.parametrize("scale", ["0", "-4", "5"])
def test_a_scale_that_its_network_does_not_have_is_refused(model: Path, scale: str) -> None:
    save_weights(
        model / "odd.safetensors",
        build_generator(CONFIG, scale=4, merged=True).state_dict(),
        generator_metadata(CONFIG, scale=4) | {"scale": scale},
    )
    with pytest.raises(UserError, match=f"scale is {scale}, allowed are 1, 2, 3, 4 and 8"):
        SRGenerator.from_pretrained(model / "odd.safetensors")
