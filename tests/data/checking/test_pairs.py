"""LR that is not the downscale of HR: the cause is found, and sound pairs pass."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from srgan_dist.data.checking.pairs import Verdict, compare, is_rotated, phase_shift
from srgan_dist.imaging.resize import downscale

Pixels = NDArray[np.uint8]


def photograph(height: int, width: int, seed: int = 0) -> Pixels:
    """Noise whose amplitude falls with the frequency, as in photographs, with some edges."""
    random = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None, None], np.fft.fftfreq(width)[None, :, None]
    spectrum = np.fft.fft2(random.normal(size=(height, width, 3)), axes=(0, 1)) / np.maximum(np.hypot(fy, fx), 0.01)
    image = np.fft.ifft2(spectrum, axes=(0, 1)).real
    image = 128 + 35 * image / image.std()
    for top, left, level in zip(*random.integers(0, (height, width, 60), (12, 3)).T, strict=True):
        image[top : top + 30, left : left + 40] += level - 30
    return np.asarray(image.round().clip(0, 255), dtype=np.uint8)


def verdict(hr: Pixels, lr: Pixels, *, scale: int = 4, lossless: bool = True, any_kernel: bool = False) -> Verdict:
    found = compare(hr, np.ascontiguousarray(lr), scale=scale, lossless=lossless, any_kernel=any_kernel)
    assert found is not None
    return found


def resized(hr: Pixels, scale: int, mode: str) -> Pixels:
    """Downscale with kernels of common libraries."""
    size = (hr.shape[0] // scale, hr.shape[1] // scale)
    if mode.startswith("pillow"):
        return np.asarray(Image.fromarray(hr).resize(size[::-1], getattr(Image.Resampling, mode.split()[1])))
    image = torch.from_numpy(hr).permute(2, 0, 1)[None].float()
    corners = None if mode == "nearest" else False
    small = F.interpolate(image, size=size, mode=mode, align_corners=corners)
    return small[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def jpeg(image: Pixels, quality: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_sound_pairs_have_no_fault_whole_or_as_tiles(scale: int) -> None:
    hr = photograph(240, 288)
    lr = downscale(hr, scale)
    assert verdict(hr, lr, scale=scale) == Verdict(float("inf"))
    # A tile out of the middle has borders that its own downscale does not have.
    tile = verdict(hr[48:216, 48:216], lr[48 // scale : 216 // scale, 48 // scale : 216 // scale], scale=scale)
    assert tile == Verdict(float("inf"))
    assert verdict(hr, resized(hr, scale, "pillow BICUBIC"), scale=scale)[1:] == ("", "")
    assert verdict(hr, downscale(hr, scale), scale=scale, lossless=False)[1:] == ("", "")


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("quality", [75, 95])
def test_sound_jpeg_pairs_have_no_fault(scale: int, quality: int) -> None:
    hr = photograph(240, 288)
    assert not verdict(jpeg(hr, 95), jpeg(downscale(hr, scale), quality), scale=scale, lossless=False).fault


ALIASING = {
    "nearest": "the nearest pixel (top left of each square)",
    "pillow NEAREST": "the nearest pixel (centre)",
    "bilinear": "bilinear without antialiasing",
    "bicubic": "bicubic without antialiasing",
}


@pytest.mark.parametrize(
    ("scale", "mode", "words"),
    [
        (scale, mode, words)
        for scale in (2, 3, 4)
        for mode, words in ALIASING.items()
        if (scale, mode) != (2, "bilinear")  # the mean of 2x2 then, which does not alias
    ],
)
def test_kernels_that_alias_are_faults(scale: int, mode: str, words: str) -> None:
    if mode in ("bilinear", "bicubic") and scale == 3:
        words = "the nearest pixel (centre)"  # both are that pixel at the centre of 3x3
    hr = photograph(240, 288)
    found = verdict(hr, resized(hr, scale, mode), scale=scale)
    assert found.fault.endswith(f"most likely {words}"), found
    assert f"LR has {found.psnr:.1f} dB to the antialiased bicubic downscale of HR" in found.fault
    assert found.psnr < 40
    assert not verdict(hr, resized(hr, scale, mode), scale=scale, any_kernel=True).fault


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize(
    ("mode", "words"),
    [("BOX", "the mean of each square"), ("LANCZOS", "Lanczos with antialiasing"), ("BILINEAR", "bilinear with")],
)
def test_other_kernels_that_do_not_alias_are_noted(scale: int, mode: str, words: str) -> None:
    hr = photograph(240, 288)
    found = verdict(hr, resized(hr, scale, f"pillow {mode}"), scale=scale)
    assert not found.fault
    assert words in found.note


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("shift", [(1, 0), (0, -1), (2, 1), (-5, 3), (8, 12)])
@pytest.mark.parametrize("lossless", [True, False])
def test_shifts_are_measured(scale: int, shift: tuple[int, int], lossless: bool) -> None:
    hr = photograph(288, 336)
    lr = downscale(np.roll(hr, shift, (0, 1)), scale)
    found = verdict(hr, lr, scale=scale, lossless=lossless)
    down, right = (pixels / scale for pixels in shift)
    assert phase_shift(downscale(hr, scale), lr) == pytest.approx((down, right), abs=0.08)
    assert "most likely HR shifted by (" in found.fault, found
    measured = found.fault.rpartition("(down")[0].rpartition("(")[2].removesuffix(") LR pixels ").split(", ")
    assert [float(number) for number in measured] == pytest.approx([down, right], abs=0.08)
    assert verdict(hr, lr, scale=scale, any_kernel=True).fault == verdict(hr, lr, scale=scale).fault


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (lambda x: np.rot90(x, 1), "rotated by 90 degrees to the left"),
        (lambda x: np.rot90(x, 3), "rotated by 90 degrees to the right"),
        (lambda x: x[::-1, ::-1], "rotated by 180 degrees"),
        (lambda x: x[:, ::-1], "mirrored left-right"),
        (lambda x: x[::-1], "mirrored up-down"),
        (lambda x: x.transpose(1, 0, 2), "transposed"),
        (lambda x: x[..., ::-1], "with red and blue swapped"),
    ],
    ids=["left", "right", "half", "mirror-x", "mirror-y", "transpose", "channels"],
)
def test_turned_mirrored_and_swapped_pairs_are_named_so(turn: Callable[[Pixels], Pixels], words: str) -> None:
    hr = photograph(192, 192)
    lr = turn(downscale(hr, 4))
    assert verdict(hr, lr).fault.endswith(f"most likely HR {words}")
    noisy = np.clip(lr + np.random.default_rng(0).normal(0, 5, lr.shape), 0, 255).astype(np.uint8)
    assert verdict(hr, noisy, any_kernel=True).fault.endswith(f"most likely HR {words}")


def test_quarter_turns_of_oblong_images_are_found() -> None:
    hr = photograph(192, 240)
    lr = downscale(hr, 4)
    assert is_rotated(hr, np.rot90(lr), scale=4)
    assert is_rotated(hr, lr.transpose(1, 0, 2), scale=4)
    assert not is_rotated(hr, photograph(60, 48, 5), scale=4)


def test_other_images_and_unknown_degradations_are_faults() -> None:
    hr = photograph(192, 192)
    assert "most likely LR of another image" in verdict(hr, downscale(photograph(192, 192, 7), 4)).fault
    lr = downscale(hr, 4)
    noisy = np.clip(lr + np.random.default_rng(0).normal(0, 12, lr.shape), 0, 255).astype(np.uint8)
    assert "expected 48 or more: no known kernel fits" in verdict(hr, noisy).fault
    assert verdict(hr, noisy, any_kernel=True)[1:] == ("", "")


@pytest.mark.parametrize("side", [96, 240])
def test_one_damaged_byte_is_found(side: int) -> None:
    hr = photograph(side, side)
    lr = downscale(hr, 4)
    hr[side // 2 + 1, 41, 1] ^= 0x80
    found = verdict(hr, lr)
    assert f"LR pixel ({(side // 2 + 1) // 4}, 10) is" in found.fault
    assert "a damaged byte in HR or LR" in found.fault
    lr[7, 9, 2] ^= 0x20
    assert "levels off" in verdict(photograph(side, side), lr).fault


def test_small_and_flat_pairs_are_judged_only_where_possible() -> None:
    hr = photograph(40, 40)
    assert compare(hr, downscale(hr, 4)[::-1], scale=4, lossless=True) is None
    flat = np.full((96, 96, 3), 77, dtype=np.uint8)
    assert verdict(flat, flat[::4, ::4]) == Verdict(float("inf"))
    assert "expected 48 or more" in verdict(flat, flat[::4, ::4] + 20).fault
