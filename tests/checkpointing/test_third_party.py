"""Weights of other trainers: found in what they save, brought to our names, loaded as far as they fit."""

from __future__ import annotations

import logging
import re
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm as former_spectral_norm

from srgan_dist.checkpointing.weights import initialise, load_weights
from srgan_dist.errors import UserError
from srgan_dist.inference.generator import SRGenerator
from srgan_dist.models.discriminator import UNetDiscriminator, VGGDiscriminator
from srgan_dist.models.msrresnet import MSRResNet
from srgan_dist.models.rrdb import RRDBNet
from srgan_dist.models.srresnet import SRResNet

Weights = dict[str, Tensor]


def rrdb(scale: int = 4, *, channels: int = 8, blocks: int = 2) -> RRDBNet:
    torch.manual_seed(3)
    return RRDBNet(scale=scale, channels=channels, blocks=blocks, growth=4).eval()


def zeros(weights: Weights) -> Weights:
    return {name: torch.zeros_like(value) for name, value in weights.items()}


def under(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: value for name, value in weights.items()}


def of_the_first_paper(weights: Weights) -> Weights:
    """ESRGAN's own names."""
    names = {"conv_body": "trunk_conv", "conv_up1": "upconv1", "conv_up2": "upconv2", "conv_hr": "HRconv"}

    def name(ours: str) -> str:
        layer, _, rest = ours.partition(".")
        return re.sub(r"^body\.(\d+)\.rdb(\d)\.", r"RRDB_trunk.\1.RDB\2.", f"{names.get(layer, layer)}.{rest}")

    return {name(ours): value for ours, value in weights.items()}


def of_the_first_release(weights: Weights) -> Weights:
    """ESRGAN's numbered layers, of a network of two blocks."""
    numbers = {"conv_first": "0", "conv_body": "1.sub.2", "conv_up1": "3", "conv_up2": "6", "conv_hr": "8"}
    numbers |= {"conv_last": "10"}

    def name(ours: str) -> str:
        layer, _, rest = ours.partition(".")
        inner = re.sub(r"^body\.(\d+)\.rdb(\d)\.(conv\d)\.", r"1.sub.\1.RDB\2.\3.0.", ours)
        return f"model.{f'{numbers[layer]}.{rest}' if layer in numbers else inner}"

    return {name(ours): value for ours, value in weights.items()}


def of_a_lightning_module(weights: Weights) -> dict[str, Any]:
    others = {"discriminator.conv0.weight": torch.zeros(3), "vgg.features.0.weight": torch.zeros(3)}
    return {"epoch": 3, "state_dict": under("generator._orig_mod.", weights) | others, "hyper_parameters": {"lr": 1.0}}


def of_mmagic(weights: Weights) -> dict[str, Any]:
    averaged = under("generator_ema.module.", weights) | {"generator_ema.steps": torch.zeros(1)}
    return {"meta": {"iter": 5}, "state_dict": under("generator.", zeros(weights)) | averaged}


FILES: dict[str, Callable[[Weights], Any]] = {
    "bare": lambda weights: weights,
    "model": lambda weights: {"model": weights, "optimizer": {"state": {}}, "epoch": 7},
    "generator": lambda weights: {"generator": weights, "discriminator": zeros(weights)},
    "model_state_dict": lambda weights: {"model_state_dict": weights, "loss": 0.5},
    "generator_state_dict": lambda weights: {
        "generator_state_dict": weights,
        "discriminator_state_dict": zeros(weights),
    },
    "params": lambda weights: {"params": weights},
    "params_ema": lambda weights: {"params": zeros(weights), "params_ema": weights},
    "an empty average": lambda weights: {"ema": {}, "model": weights},
    "within each other": lambda weights: {"model": {"netG": under("module.", weights), "netD": zeros(weights)}},
    "DistributedDataParallel": lambda weights: under("module.", weights),
    "torch.compile": lambda weights: under("_orig_mod.", weights),
    "both": lambda weights: under("_orig_mod.module.", weights),
    "a module with its loss": lambda weights: under("model.", weights) | {"loss.features.0.weight": torch.zeros(3)},
    "averaged by torch": lambda weights: under("module.", weights) | {"n_averaged": torch.tensor(9)},
    "Lightning": of_a_lightning_module,
    "MMagic": of_mmagic,
    "ESRGAN's paper": of_the_first_paper,
    "ESRGAN's first release": of_the_first_release,
}


@pytest.mark.parametrize("kind", FILES)
def test_a_generator_is_found_and_rebuilt_by_its_shapes(kind: str, tmp_path: Path) -> None:
    network, path = rrdb(), tmp_path / "weights.pth"
    torch.save(FILES[kind](network.state_dict()), path)
    generator = SRGenerator.from_pretrained(path, device="cpu")
    lr = torch.rand(1, 3, 9, 12)
    with torch.no_grad():
        torch.testing.assert_close(generator(lr), network(lr), atol=1e-6, rtol=0)
    fresh = RRDBNet(channels=8, blocks=2, growth=4)
    initialise(fresh, path)
    torch.testing.assert_close(dict(fresh.state_dict()), dict(network.state_dict()), atol=0, rtol=0)


def test_which_of_several_weights_are_used_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    torch.save(FILES["params_ema"](rrdb().state_dict()), tmp_path / "weights.pth")
    SRGenerator.from_pretrained(tmp_path / "weights.pth", device="cpu")
    said = [record.getMessage() for record in caplog.records]
    torch.save(FILES["Lightning"](rrdb().state_dict()), tmp_path / "other.pth")
    SRGenerator.from_pretrained(tmp_path / "other.pth", device="cpu")
    assert any("are used, not those of discriminator, vgg" in record.getMessage() for record in caplog.records)
    assert said == [
        f"{tmp_path}/weights.pth: the weights of params_ema are used, not those of params",
        f"{tmp_path}/weights.pth: no metadata; by its shapes rrdb x4: channels 8, blocks 2, growth 4",
    ]


@pytest.mark.parametrize(
    "network",
    [
        RRDBNet(scale=1, channels=4, blocks=1, growth=2),
        RRDBNet(scale=2, channels=6, blocks=3, growth=5),
        MSRResNet(scale=2, channels=8, blocks=2),
        MSRResNet(scale=3, channels=8, blocks=1),
        MSRResNet(scale=4, channels=4, blocks=1),
    ],
    ids=lambda network: f"{type(network).__name__} x{network.scale}",
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".ckpt"])
def test_sizes_and_scale_are_read_off_the_shapes(network: Any, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(network.state_dict(), path)
    generator = SRGenerator.from_pretrained(path, device="cpu")
    assert generator.scale == network.scale == int(generator.metadata["scale"])
    lr = torch.rand(1, 3, 9, 12)
    with torch.no_grad():
        torch.testing.assert_close(generator(lr), network.eval()(lr), atol=1e-6, rtol=0)


def test_what_no_shape_tells_is_not_guessed(tmp_path: Path) -> None:
    torch.save(SRResNet(channels=8, blocks=1).state_dict(), tmp_path / "srresnet.pth")
    with pytest.raises(UserError, match=r"no shape tells its generator\.skip; use weights/generator\.safetensors"):
        SRGenerator.from_pretrained(tmp_path / "srresnet.pth")
    grey = rrdb().state_dict() | {"conv_first.weight": torch.zeros(8, 1, 3, 3)}
    torch.save(grey, tmp_path / "grey.pth")
    with pytest.raises(UserError, match=r"almost those of rrdb.*conv_first.weight is \[8, 1, 3, 3\], the network's"):
        SRGenerator.from_pretrained(tmp_path / "grey.pth")


# --- partly ---


@pytest.mark.parametrize(
    ("one", "other", "fresh"),
    [
        (rrdb(2), rrdb(4), "conv_first.weight"),
        (
            MSRResNet(scale=2, channels=8, blocks=1),
            MSRResNet(scale=4, channels=8, blocks=1),
            "upconv2.weight, upconv2.bias",
        ),
        (
            rrdb(blocks=1),
            rrdb(blocks=2),
            "body.1.rdb1.conv1.weight, body.1.rdb1.conv1.bias, body.1.rdb1.conv2.weight and 27 more",
        ),
    ],
    ids=["rrdb x2 to x4", "msrresnet x2 to x4", "deeper"],
)
def test_all_that_fits_is_loaded_and_the_rest_said(
    one: nn.Module, other: nn.Module, fresh: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    weights = {name: torch.full_like(value, 0.5) for name, value in one.state_dict().items()}
    before = {name: value.clone() for name, value in other.state_dict().items()}
    save_file(weights, tmp_path / "weights.safetensors")
    initialise(other, tmp_path / "weights.safetensors")
    fitting = [name for name in before if name in weights and weights[name].shape == before[name].shape]
    for name, value in other.state_dict().items():
        assert torch.equal(value, weights[name] if name in fitting else before[name]), name
    (said,) = [record.getMessage() for record in caplog.records]
    loaded = f"{len(fitting)} of the generator's {len(before)} tensors are loaded"
    assert said.startswith(
        f"{tmp_path}/weights.safetensors: {loaded}, all that fit; newly initialised: {fresh}; not used"
    )


@pytest.mark.parametrize(
    "other",
    [rrdb(channels=12), SRResNet(channels=8, blocks=1), UNetDiscriminator(channels=4)],
    ids=["wider", "another generator", "a discriminator"],
)
def test_where_next_to_nothing_fits_nothing_is_loaded(other: nn.Module, tmp_path: Path) -> None:
    torch.save(rrdb().state_dict(), tmp_path / "weights.pth")
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(UserError, match=r"weights\.pth: weights of another generator than the configured one"):
        initialise(other, tmp_path / "weights.pth")
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_a_weight_that_overflows_where_it_is_loaded_is_refused(tmp_path: Path) -> None:
    weights = rrdb().state_dict() | {"conv_hr.bias": torch.full((8,), 1e300, dtype=torch.float64)}
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"weights\.pth: weights that cannot be used \(conv_hr\.bias is not finite\)"):
        SRGenerator.from_pretrained(tmp_path / "weights.pth")


# --- discriminators ---


class BasicSRsUNet(nn.Module):
    """Its layers' names and its spectral norm, as in Real-ESRGAN's published discriminators."""

    def __init__(self, c: int) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is deprecated, and what the published files were saved from
            self.conv0 = nn.Conv2d(3, c, 3, padding=1)
            for number, (wide, narrow) in enumerate(((c, 2 * c), (2 * c, 4 * c), (4 * c, 8 * c)), start=1):
                down = nn.Conv2d(wide, narrow, 4, 2, 1, bias=False)
                self.add_module(f"conv{number}", former_spectral_norm(down))
            for number, (wide, narrow) in enumerate(((8, 4), (4, 2), (2, 1), (1, 1), (1, 1)), start=4):
                same = nn.Conv2d(wide * c, narrow * c, 3, 1, 1, bias=False)
                self.add_module(f"conv{number}", former_spectral_norm(same))
            self.conv9 = nn.Conv2d(c, 1, 3, padding=1)


class BasicSRsVGG(nn.Module):
    """BasicSR's VGGStyleDiscriminator for patches of 128 pixels."""

    def __init__(self, c: int) -> None:
        super().__init__()
        widths = [3, c, c, 2 * c, 2 * c, 4 * c, 4 * c, 8 * c, 8 * c, 8 * c, 8 * c]
        self.layers = []
        for index in range(10):
            stage, part = divmod(index, 2)
            conv = nn.Conv2d(widths[index], widths[index + 1], 4 if part else 3, 2 if part else 1, 1, bias=index == 0)
            self.add_module(f"conv{stage}_{part}", conv)
            if index:
                self.add_module(f"bn{stage}_{part}", norm := nn.BatchNorm2d(widths[index + 1]))
            self.layers.append(nn.Sequential(conv, norm) if index else conv)
        self.linear1, self.linear2 = nn.Linear(8 * c * 16, 100), nn.Linear(100, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
        logits: Tensor = self.linear2(F.leaky_relu(self.linear1(x.flatten(1)), 0.2))
        return logits


def test_basicsrs_vgg_discriminator_is_ours(tmp_path: Path) -> None:
    theirs, ours = BasicSRsVGG(2), VGGDiscriminator(channels=2, layout="basicsr")
    for name, weight in theirs.named_parameters():
        if name.startswith("bn"):
            nn.init.normal_(weight)
    torch.save({"params": theirs.state_dict()}, tmp_path / "net_d.pth")
    initialise(ours, tmp_path / "net_d.pth", role="discriminator")
    images = torch.rand(2, 3, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=1e-4)


def test_real_esrgans_unet_discriminator_is_ours(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    theirs, ours = BasicSRsUNet(4).eval(), UNetDiscriminator(channels=4).eval()
    torch.save({"params": theirs.state_dict()}, tmp_path / "net_d.pth")
    initialise(ours, tmp_path / "net_d.pth", role="discriminator")
    assert not caplog.records  # everything fitted
    for name in ("conv0", "conv1", "conv8"):
        x = torch.rand(1, getattr(ours, name).in_channels, 16, 16)
        with torch.no_grad():
            torch.testing.assert_close(getattr(ours, name)(x), getattr(theirs, name)(x))


# --- what is no file of weights ---


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("4x_net.pth", b"inside")


def tarball(path: Path) -> None:
    with tarfile.open(path, "w") as file:
        file.addfile(tarfile.TarInfo("4x_net.pth"))


def torch_script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Conv2d(3, 3, 1)).save(str(path))


def cut(path: Path, *, legacy: bool = False) -> None:
    if path.suffix == ".safetensors":
        save_file(rrdb().state_dict(), path)
    else:
        torch.save(rrdb().state_dict(), path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(path.read_bytes()[:-100])


class Bomb:
    """Runs code when it is unpickled by anything that lets it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (eval, (f"open({str(self.path)!r}, 'w').close()",))


def content(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


def bomb(path: Path, *, legacy: bool = False) -> None:
    inner = {"params": {"a": Bomb(path.with_name("executed"))}}
    torch.save(inner, path, _use_new_zipfile_serialization=not legacy)


LFS = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125\n"
)
NO_WEIGHTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty.pth": (content(b""), "an empty file, of 0 bytes"),
    "page.pth": (content(b"\n<!DOCTYPE html>\n<html><body>Sign in"), "a web page, not the file that it offers"),
    "denied.safetensors": (content(b"<?xml version='1.0'?><Error><Code>AccessDenied"), "a web page"),
    "json.pth": (content(b'{"error": "gated"}'), """a text that begins with '{"error": "gated"}'"""),
    "pointer.safetensors": (content(LFS), "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    "pointer.pth": (content(LFS), "a Git LFS pointer"),
    "zeros.safetensors": (content(bytes(4096)), "begins with zeros, like a download that was never finished"),
    "archive.pth": (archive, "a zip archive that torch.save did not write: extract the weights"),
    "tarball.pth": (tarball, "a tar archive: extract the weights"),
    "gzipped.pth": (content(b"\x1f\x8b\x08\0"), "compressed by gzip"),
    "net.onnx": (content(b"\x08\x0a\x12\x07pytorch\x1a\x052.9.0"), "an ONNX file, which is no state dict"),
    "onnx.pth": (content(b"\x08\x0a\x12\x07pytorch\x1a\x052.9.0"), "an ONNX file"),
    "script.pt": (torch_script, "a TorchScript program, whose code is never run: save its state dict instead"),
    "picture.pth": (content(b"\x89PNG\r\n\x1a\n"), "a PNG image"),
    "cut.safetensors": (cut, "cut short: 107"),
    "cut.pth": (cut, "a zip archive that is cut short"),
    "cut_legacy.pth": (lambda path: cut(path, legacy=True), ""),
    "noise.pth": (content(b"\xff\xfe\x01\x02" * 99), "neither safetensors nor a file of torch.save"),
    "list.pth": (lambda path: torch.save([1, 2], path), "holds no state dict of tensors"),
    "module.pth": (lambda path: torch.save(rrdb(), path), "holds srgan_dist.models.rrdb.RRDBNet, no plain value"),
    "bomb.pth": (bomb, "holds eval, no plain value; loading it could run code, which is never done"),
    "bomb_legacy.pth": (lambda path: bomb(path, legacy=True), "holds eval, no plain value; loading it could run code"),
    "repeated.pth": (
        lambda path: torch.save({"a": torch.zeros(1).expand(2**40)}, path),
        "its tensors claim 4398046511104",
    ),
}


@pytest.mark.parametrize("name", NO_WEIGHTS)
def test_what_is_no_file_of_weights_is_called_what_it_is(name: str, tmp_path: Path) -> None:
    write, what = NO_WEIGHTS[name]
    write(tmp_path / name)
    readers: list[Callable[[Path], Any]] = [SRGenerator.from_pretrained, load_weights]
    for reader in (*readers, lambda path: initialise(rrdb(), path)):
        with pytest.raises(UserError) as refusal:
            reader(tmp_path / name)
        said = str(refusal.value)
        assert said.startswith(f"{tmp_path / name}: not a file of weights ({what}")
        assert len(said.splitlines()) == 1
    assert not (tmp_path / "executed").exists()


def test_the_bomb_would_go_off(tmp_path: Path) -> None:
    bomb(tmp_path / "bomb.pth")
    torch.load(tmp_path / "bomb.pth", weights_only=False)
    assert (tmp_path / "executed").exists()


def test_a_folder_is_no_file_of_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder; name a file of weights, such as weights/generator\.safetensors"):
        SRGenerator.from_pretrained(tmp_path)


def test_dictionaries_that_hold_themselves_end(tmp_path: Path) -> None:
    inner: dict[str, Any] = {}
    inner["model"] = inner
    torch.save(inner, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="holds no state dict of tensors"):
        load_weights(tmp_path / "weights.pth")
