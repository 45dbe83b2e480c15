"""Upscaling files and folders: what comes out, what is refused before, what a bad image does to the others."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from srgan_dist.checkpointing.weights import save_weights
from srgan_dist.config.models import SRResNetConfig
from srgan_dist.errors import Failure, UserError
from srgan_dist.imaging.picture import Picture, read_picture
from srgan_dist.imaging.write import write_picture
from srgan_dist.inference.generator import SRGenerator
from srgan_dist.inference.upscale_files import upscale_file, upscale_folder, upscale_jobs
from srgan_dist.models.build import build_generator, generator_metadata
from tests.conftest import ROOT, call, photo, run

CONFIG = SRResNetConfig(channels=8, blocks=1, norm="none", skip="bicubic", upsampler="pixelshuffledirect", end_kernel=3)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network that is bicubic interpolation."""
    path = tmp_path_factory.mktemp("weights") / "bicubic.safetensors"
    save_weights(path, build_generator(CONFIG, scale=4).state_dict(), generator_metadata(CONFIG, scale=4))
    return path


@contextlib.contextmanager
def silent(_: str) -> Iterator[Callable[[int, int | None], None]]:
    """No progress bar."""
    yield lambda *_: None


class Counting(nn.Module):
    """Enlarges x2 by repetition, and counts its tiles."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.tiles = nn.Parameter(torch.zeros(())), 0

    def forward(self, lr: Tensor) -> Tensor:
        self.tiles += 1
        return lr.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2) + self.weight


def counting() -> tuple[SRGenerator, Counting]:
    network = Counting()
    return SRGenerator(network, scale=2, metadata={}), network


# --- what comes out ---


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_mode_and_depth_stay(tmp_path: Path, channels: int, deep: bool, alpha: bool) -> None:
    pixels: NDArray[Any] = photo(40, 52)[..., :channels]
    pixels = pixels.astype(np.uint16) * 256 + pixels[::-1] if deep else pixels
    picture = Picture(pixels, np.full_like(pixels[..., 0], np.iinfo(pixels.dtype).max) if alpha else None)
    write_picture(picture, tmp_path / "a.png")
    upscale_file(counting()[0], tmp_path / "a.png", tmp_path / "b.png", tile=48)
    sr = read_picture(tmp_path / "b.png")
    expected = pixels.repeat(2, axis=0).repeat(2, axis=1)
    assert np.abs(sr.pixels.astype(int) - expected).max() <= (1 if channels == 1 else 0)  # luma of equal channels
    assert (sr.alpha is not None) == alpha
    assert sr.alpha is None or (sr.alpha == np.iinfo(sr.alpha.dtype).max).all()


def test_the_command_and_python_make_the_same_picture(weights: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    colour = Image.fromarray(photo(40, 52))
    see_through = colour.copy()
    see_through.putalpha(Image.fromarray(np.linspace(0, 255, 2080).reshape(40, 52).astype(np.uint8)))
    sources: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "grey16.png": (Image.fromarray(photo(40, 52)[..., 0].astype(np.uint16) * 250), {}),
        "la.png": (see_through.convert("LA"), {}),
        "palette.png": (colour.quantize(16), {"transparency": 3}),
        "key.png": (colour, {"transparency": colour.getpixel((5, 5))}),
        "alpha.webp": (see_through, {"lossless": True}),
        "turned.jpg": (colour, {"exif": exif, "dpi": (300, 300)}),
        "turned.tif": (colour, {"exif": exif}),
    }
    generator = SRGenerator.from_pretrained(weights)
    modes = {}
    for name, (image, options) in sources.items():
        source, target = tmp_path / name, tmp_path / "out" / f"{name}.png"
        image.save(source, **options)
        upscale_file(generator, source, target, tile=48)
        with Image.open(source) as opened, Image.open(target) as written:
            sr = generator.upscale(opened, tile=48)
            modes[name] = sr.mode
            assert (sr.mode, sr.size) == (written.mode, written.size)
            np.testing.assert_array_equal(np.asarray(sr), np.asarray(written))
            assert sr.size == ((160, 208) if name.startswith("turned") else (208, 160))
    assert list(modes.values()) == ["I;16", "LA", "RGBA", "RGBA", "RGBA", "RGB", "RGB"]


@pytest.mark.parametrize("hidden", [0, 255])
def test_what_is_transparent_does_not_bleed(hidden: int) -> None:
    """A disc of one colour on transparent black, or white, stays of that colour to its edge: no halo."""
    torch.manual_seed(0)
    network = build_generator(CONFIG.model_copy(update={"end_kernel": 9}), scale=4)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.02)
    generator = SRGenerator(network, scale=4, metadata={}).eval()
    y, x = np.mgrid[:48, :48] - 23.5
    inside = y**2 + x**2 < 18**2
    pixels = np.where(inside[..., None], np.array([200, 90, 30]), hidden).astype(np.uint8)
    alpha = (inside * 255).astype(np.uint8)
    sr = generator.upscale_picture(Picture(pixels, alpha))
    flat = np.broadcast_to(np.array([200, 90, 30], dtype=np.uint8), pixels.shape).copy()
    expected = generator.upscale_picture(Picture(flat))
    assert sr.alpha is not None
    seen = sr.alpha > 0
    assert np.abs(sr.pixels.astype(int) - expected.pixels)[seen].max() <= 1


# --- before anything is computed ---


@pytest.mark.parametrize(
    ("name", "target", "told"),
    [
        ("a.png", "b.psd", "b.psd: cannot be written as .psd, allowed are names in .png .jpg"),
        ("a.png", "b.ico", "b.ico: cannot be written as .ico"),
        ("see-through.png", "b.jpg", "b.jpg: would have transparent pixels, JPEG holds none: write .png .webp"),
        ("deep.png", "b.webp", "b.webp: would have 16 bits a channel, WEBP holds 8: write .png"),
        ("deep-colour.png", "b.tif", "b.tif: would have 16 bits a channel, TIFF holds 8 of colour"),
        ("long.png", "b.webp", "b.webp: would be 18000x40 pixels, WEBP holds at most 16383 a side"),
        ("animated.png", "b.png", "animated.png: is animated or has pages (2 frames)"),
    ],
)
def test_what_cannot_be_written_is_refused_before_it_is_computed(
    tmp_path: Path, name: str, target: str, told: str
) -> None:
    colour = photo(40, 52)
    image = Image.fromarray(colour)
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "animated.png", save_all=True, append_images=[image.rotate(90)])
    Image.new("L", (9000, 20)).save(tmp_path / "long.png")
    write_picture(Picture(colour, colour[..., 0]), tmp_path / "see-through.png")
    write_picture(Picture(colour[..., :1].astype(np.uint16)), tmp_path / "deep.png")
    write_picture(Picture(colour.astype(np.uint16)), tmp_path / "deep-colour.png")
    generator, network = counting()
    with pytest.raises(UserError) as caught:
        upscale_file(generator, tmp_path / name, tmp_path / target, tile=48)
    assert told in str(caught.value)
    assert network.tiles == 0
    assert not (tmp_path / target).exists()


def test_a_result_that_does_not_fit_into_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path, "a.png")
    generator, network = counting()
    size = 64 * 48 * 3
    for free, fits in ((2 * size, True), (2 * size - 1, False)):
        monkeypatch.setattr("srgan_dist.inference.upscale_files.available_ram", lambda free=free: free)
        if fits:
            upscale_file(generator, tmp_path / "a.png", tmp_path / "b.png", tile=48)
            continue
        with pytest.raises(
            UserError, match=r"a\.png: the result, 64x48 pixels, needs 0\.0 GiB of memory, and there are"
        ):
            upscale_file(generator, tmp_path / "a.png", tmp_path / "c.png", tile=48)
    assert network.tiles == 1


def test_a_place_that_cannot_be_written_is_told_before(tmp_path: Path) -> None:
    folder_of(tmp_path, "in/a.png")
    (tmp_path / "file").touch()
    for target in (tmp_path / "file", tmp_path / "file/out", Path("/proc/out")):
        with pytest.raises(UserError, match=f"{target}: results cannot be written there"):
            upscale_jobs(tmp_path / "in", target)
    with pytest.raises(UserError, match="results cannot be written there"):
        upscale_jobs(tmp_path / "in/a.png", tmp_path / "file/out.png")


def test_opaque_alpha_is_no_obstacle_for_a_jpeg(tmp_path: Path) -> None:
    Image.fromarray(photo(40, 52)).convert("RGBA").save(tmp_path / "a.png")
    upscale_file(counting()[0], tmp_path / "a.png", tmp_path / "b.jpg", tile=48)
    with Image.open(tmp_path / "b.jpg") as image:
        assert (image.mode, image.size) == ("RGB", (104, 80))


def folder_of(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(24, 32)).save(folder / name)
    return folder


def test_results_of_the_same_name_are_seen_before(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", "a.png", "b.png", "sub/b.png")
    assert len(upscale_jobs(folder, tmp_path / "out")) == 3
    folder_of(folder, "a.jpg")
    with pytest.raises(UserError, match=r"out/a\.png: would be the result of both .*a\.jpg and .*a\.png; rename one"):
        upscale_jobs(folder, tmp_path / "out")


def test_no_input_is_ever_overwritten(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", "a.png", "b.png")
    for target in (folder / "a.png", tmp_path / "in/../in/a.png"):
        with pytest.raises(UserError, match="would overwrite an image that is to be upscaled"):
            upscale_jobs(folder / "a.png", target)
    os.link(folder / "a.png", tmp_path / "hard.png")
    (tmp_path / "soft.png").symlink_to(folder / "a.png")
    for name in ("hard.png", "soft.png"):
        with pytest.raises(UserError, match=f"{name}: would overwrite an image"):
            upscale_jobs(folder / "a.png", tmp_path / name)
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    for target in (folder, tmp_path / "link"):
        with pytest.raises(UserError, match="is the folder of the images to upscale; choose another output"):
            upscale_jobs(folder, target)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/b.png").symlink_to(folder / "a.png")  # another image of the folder
    with pytest.raises(UserError, match=r"out/b\.png: would overwrite"):
        upscale_jobs(folder, tmp_path / "out")


def test_an_output_inside_the_input_is_no_input_the_next_time(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", "a.png", "x4/a.png")
    assert upscale_jobs(folder, folder / "x4") == [(folder / "a.png", folder / "x4/a.png")]
    with pytest.raises(UserError, match="holds no images but those in the output"):
        upscale_jobs(folder_of(tmp_path / "other", "x4/a.png"), tmp_path / "other/x4")


def test_one_image_into_a_folder_keeps_its_name(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.jpg")
    (tmp_path / "out").mkdir()
    jobs = upscale_jobs(tmp_path / "a.jpg", tmp_path / "out", suffix=".webp")
    assert jobs == [(tmp_path / "a.jpg", tmp_path / "out/a.webp")]


# --- a folder with bad files ---


def bad_folder(folder: Path) -> Path:
    folder_of(folder, "a.png", "sub/z.jpg")
    image = Image.fromarray(photo(24, 32))
    for name in ("c.png", "d.png"):
        image.save(folder / name, save_all=True, append_images=[image.rotate(180)])
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:200])
    (folder / "e.png").touch()
    return folder


def test_a_folder_goes_on_after_bad_files_and_fails_at_the_end(weights: Path, tmp_path: Path) -> None:
    folder = bad_folder(tmp_path / "in")
    done = call("upscale", folder, tmp_path / "out", "--weights", weights)
    assert done.code == 1, done.err
    assert done.lines[-1] == (
        "srgan-dist: 2 of 6 images upscaled, 4 failed: "
        "is animated or has pages (2), is empty (1), cannot be read as an image (1)"
    )
    for name in "bcde":
        assert sum(f"{folder}/{name}.png: " in line for line in done.lines) == 1
    assert sorted(path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.*")) == [
        Path("a.png"),
        Path("sub/z.png"),
    ]


def test_on_error_stop_computes_nothing_where_a_header_is_bad(tmp_path: Path) -> None:
    folder = bad_folder(tmp_path / "in")
    generator, network = counting()
    with pytest.raises(UserError, match=r"c\.png: is animated"):
        upscale_folder(
            generator, upscale_jobs(folder, tmp_path / "out"), tile=48, quality=None, on_error="stop", progress=silent
        )
    assert network.tiles == 0
    assert not (tmp_path / "out").exists()


def test_a_format_that_holds_some_of_a_folder_takes_those(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", "a.png")
    write_picture(Picture(photo(24, 32), photo(24, 32)[..., 0]), folder / "b.png")
    jobs = upscale_jobs(folder, tmp_path / "out", suffix=".jpg")
    with pytest.raises(Failure, match=r"^1 of 2 images upscaled, 1 failed: would have transparent pixels \(1\)$"):
        upscale_folder(counting()[0], jobs, tile=48, quality=None, on_error="skip", progress=silent)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.jpg"]


def test_format_and_quality_of_the_command(weights: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", "a.png", "b.png")
    options: list[str | Path] = ["--weights", weights]
    done = call("upscale", folder, tmp_path / "fine", *options, "--format", "jpg")
    assert done.code == 0, done.err
    assert "fine: 2 of 2 images upscaled" in done.err
    assert call("upscale", folder, tmp_path / "coarse", *options, "--format", ".jpg", "--quality", "20").code == 0
    assert (tmp_path / "coarse/a.jpg").stat().st_size < (tmp_path / "fine/a.jpg").stat().st_size / 2
    for more, told in (
        (["--format", "psd"], "--format is psd, allowed are png jpg jpeg webp tif tiff bmp"),
        (["--format", "."], "--format is ., allowed are png"),
        (["--quality", "0"], "--quality is 0, allowed are whole numbers from 1 to 100"),
        (["--quality", "90"], "--quality is 90, but PNG is lossless"),
    ):
        done = call("upscale", folder, tmp_path / "none", *options, *more)
        assert (done.code, len(done.lines)) == (2, 1), done.err
        assert told in done.err
    done = call("upscale", folder / "a.png", tmp_path / "b.jpg", *options, "--format", "jpg")
    assert done.code == 2
    assert "--format is for folders" in done.err
    assert not (tmp_path / "none").exists()


# --- memory ---


@pytest.mark.parametrize(
    "name", ["a.png", *(pytest.param(name, marks=pytest.mark.slow) for name in ("a.jpg", "alpha.png"))]
)
def test_a_large_image_takes_three_times_its_output_at_most(weights: Path, tmp_path: Path, name: str) -> None:
    """35 bytes an output pixel once; the output is 24 MB, with alpha 32."""
    script = """
import resource, sys
from pathlib import Path
from srgan_dist.inference.generator import SRGenerator
from srgan_dist.inference.upscale_files import upscale_file
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
generator = SRGenerator.from_pretrained(sys.argv[1])
small, large, out = map(Path, sys.argv[2:])
upscale_file(generator, small, out, tile=128)
before = peak()
upscale_file(generator, large, out, tile=128)
print(peak() - before)
"""
    pixels = np.tile(photo(100, 100), (7, 8, 1))
    size = 16 * pixels.nbytes
    if name == "alpha.png":
        pixels = np.dstack([pixels, np.tile(np.arange(200, dtype=np.uint8), (700, 4))])
        size = 16 * pixels.nbytes
    Image.fromarray(pixels).save(tmp_path / "large.png")
    Image.fromarray(pixels[:140, :140]).save(tmp_path / "small.png")
    paths = [weights, tmp_path / "small.png", tmp_path / "large.png", tmp_path / name]
    done = run(sys.executable, "-c", script, *paths, PYTHONPATH=str(ROOT))
    assert done.code == 0, done.err
    assert int(done.out) < 3 * size, f"{int(done.out) / size:.2f} output sizes"
