"""Checks that an LR image is the antialiased downscale of its HR image, and finds the likely cause if it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from srgan_dist.imaging.resize import downscale

_Pixels = NDArray[np.uint8]
_Floats = NDArray[np.float32]

# Packed tiles have their LR cut from the LR of the whole image, so that 2 pixels (half the kernel's width) at
# the borders, which a tile cut from the middle cannot reproduce, are left out.
_MARGIN = 2
_MIN_SIDE = 8  # LR pixels inside the margin: fewer are not enough to judge by
# Two 8-bit bicubic downscales that differ in rounding: Pillow has 58.8 dB to ours, one level everywhere is 48.1.
_EQUAL_DB = 57.0
_SOUND_DB = 48.0
_SOUND_LOSSY_DB = 25.0  # JPEG of quality 50 on small, detailed images
_GAIN_DB = 1.5  # another explanation has to fit this much better
_PLAUSIBLE_DB = 20.0  # below, an explanation is not plausible
_SPOT_LEVELS, _SPOT_SIDE = 4, 5  # a byte of HR affects 4x4 LR pixels; where all others agree, it is damaged
_MIN_SHIFT = 0.1  # LR pixels; one HR pixel at scale 8 is 0.125
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


class Verdict(NamedTuple):
    """The outcome of comparing a pair.

    Attributes:
        psnr: PSNR between LR and the standard downscale of HR, in dB; inf where they are equal.
        fault: What is wrong, or "".
        note: What is unusual, or "".
    """

    psnr: float
    fault: str = ""
    note: str = ""


class _Guess(NamedTuple):
    text: str
    psnr: float
    is_antialiased: bool = False  # another kernel, but one that does not alias


def compare(hr: _Pixels, lr: _Pixels, *, scale: int, lossless: bool, any_kernel: bool = False) -> Verdict | None:
    """Compare LR with the standard downscale of HR, and find the most likely cause of a difference.

    Possible causes: other kernels, a shift, also by a fraction of a pixel, rotated or mirrored images, BGR for RGB,
    single damaged pixels.

    Args:
        hr: uint8 [H, W, 3], sides multiples of `scale`.
        lr: uint8 [H / scale, W / scale, 3].
        scale: HR pixels per LR pixel.
        lossless: Whether both were stored losslessly, so that they should agree almost exactly.
        any_kernel: LR was degraded on purpose: report only shifts, rotations, swapped channels and other images.

    Returns:
        The verdict; None where the images are too small to judge.
    """
    if min(lr.shape[:2]) < _MIN_SIDE + 2 * _MARGIN:
        return None
    standard = downscale(hr, scale)
    reference, image = _inner(standard, lossless), _inner(lr, lossless)
    psnr = _psnr(reference, image)
    if lossless and (spot := _spot(reference, image)):
        return Verdict(psnr, spot)
    if psnr >= _EQUAL_DB:
        return Verdict(psnr)
    guesses = [*_turns(standard, image, lossless), *_shifts(standard, lr, lossless)]
    if not any_kernel:
        guesses += [_Guess(k.text, _psnr(_inner(k.make(hr, scale), lossless), image), k.soft) for k in _KERNELS]
    best = max(guesses, key=lambda guess: guess.psnr)
    measured = f"LR has {psnr:.1f} dB to the antialiased bicubic downscale of HR"
    if best.psnr >= max(psnr + _GAIN_DB, _PLAUSIBLE_DB):
        what = f"{measured}, {best.psnr:.1f} dB to {best.text}"
        if best.is_antialiased:
            return Verdict(psnr, note=what)
        return Verdict(psnr, fault=f"{what}: most likely {best.text}")
    if psnr < _PLAUSIBLE_DB and (alike := _correlation(reference, image)) < 0.5:
        return Verdict(psnr, f"{measured} and a correlation of {alike:.2f}: most likely LR of another image")
    floor = _SOUND_DB if lossless else _SOUND_LOSSY_DB
    if not any_kernel and psnr < floor:
        what = f"{measured}, expected {floor:.0f} or more: no known kernel fits, the closest is {best.text}"
        return Verdict(psnr, what)
    return Verdict(psnr)


def is_rotated(hr: _Pixels, lr: _Pixels, *, scale: int) -> bool:
    """Check whether an LR image with swapped sides is a quarter turn of HR's downscale.

    Args:
        hr: uint8 [H, W, 3], sides multiples of `scale`.
        lr: uint8 [W / scale, H / scale, 3].
        scale: HR pixels per LR pixel.

    Returns:
        Whether one of the four rotated or transposed images has 25 dB or more.
    """
    image, standard = _inner(lr, False), downscale(hr, scale)
    turned = (np.rot90(x, k) for x in (standard, standard[:, ::-1]) for k in (1, 3))
    return max(_psnr(_inner(x, False), image) for x in turned) >= _SOUND_LOSSY_DB


class _Kernel(NamedTuple):
    text: str
    make: Callable[[_Pixels, int], _Pixels]
    soft: bool  # antialiased, though not the standard kernel


def _torch(mode: str, *, antialias: bool) -> Callable[[_Pixels, int], _Pixels]:
    def make(hr: _Pixels, scale: int) -> _Pixels:
        image = torch.from_numpy(np.ascontiguousarray(hr)).permute(2, 0, 1)[None].float()
        size = (hr.shape[0] // scale, hr.shape[1] // scale)
        small = F.interpolate(image, size=size, mode=mode, align_corners=False, antialias=antialias)
        return small[0].add(0.5).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()

    return make


def _pillow(kernel: Image.Resampling) -> Callable[[_Pixels, int], _Pixels]:
    def make(hr: _Pixels, scale: int) -> _Pixels:
        return np.asarray(Image.fromarray(hr).resize((hr.shape[1] // scale, hr.shape[0] // scale), kernel))

    return make


_KERNELS = (
    # Where two are equal (the mean of 2x2 at scale 2), the first is reported.
    _Kernel("the mean of each square (area)", _pillow(Image.Resampling.BOX), True),
    _Kernel("bilinear with antialiasing", _torch("bilinear", antialias=True), True),
    _Kernel("Lanczos with antialiasing", _pillow(Image.Resampling.LANCZOS), True),
    _Kernel("the nearest pixel (top left of each square)", lambda hr, scale: hr[::scale, ::scale], False),
    _Kernel("the nearest pixel (centre)", lambda hr, scale: hr[scale // 2 :: scale, scale // 2 :: scale], False),
    _Kernel("bilinear without antialiasing", _torch("bilinear", antialias=False), False),
    _Kernel("bicubic without antialiasing", _torch("bicubic", antialias=False), False),
)


def _inner(image: _Pixels, lossless: bool) -> _Floats:
    inner = image[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN].astype(np.float32)
    # JPEG stores colour with less precision than brightness.
    return inner if lossless else (inner @ _LUMA)[..., None]


def _psnr(one: _Floats, other: _Floats) -> float:
    if one.shape != other.shape:
        return -np.inf
    error = float(np.square(one - other).mean())
    return 10 * float(np.log10(255**2 / error)) if error else float("inf")


def _correlation(one: _Floats, other: _Floats) -> float:
    a, b = (x.mean(axis=2).ravel() - x.mean() for x in (one, other))
    return float(a @ b / np.sqrt(max(float(a @ a) * float(b @ b), 1e-9)))


def _spot(reference: _Floats, image: _Floats) -> str:
    difference = np.abs(reference - image).max(axis=2)
    rows, columns = np.nonzero(difference > 1)
    if not rows.size or difference.max() < _SPOT_LEVELS:
        return ""
    if (
        max(np.ptp(rows), np.ptp(columns)) >= _SPOT_SIDE
        or (difference == 1).sum() > 0.01 * difference.size + _SPOT_SIDE**2
    ):
        return ""
    y, x = (int(i) + _MARGIN for i in np.unravel_index(int(difference.argmax()), difference.shape))
    return f"LR pixel ({y}, {x}) is {difference.max():.0f} levels off while the rest agrees: a damaged byte in HR or LR"


def _turns(standard: _Pixels, image: _Floats, lossless: bool) -> Iterator[_Guess]:
    for name, turned in (
        ("HR rotated by 90 degrees to the left", np.rot90(standard, 1)),
        ("HR rotated by 180 degrees", standard[::-1, ::-1]),
        ("HR rotated by 90 degrees to the right", np.rot90(standard, 3)),
        ("HR mirrored left-right", standard[:, ::-1]),
        ("HR mirrored up-down", standard[::-1]),
        ("HR transposed", standard.transpose(1, 0, 2)),
        ("HR mirrored on the other diagonal", standard[::-1, ::-1].transpose(1, 0, 2)),
        ("HR with red and blue swapped", standard[..., ::-1]),
    ):
        yield _Guess(name, _psnr(_inner(turned, lossless), image))


def _shifts(standard: _Pixels, lr: _Pixels, lossless: bool) -> Iterator[_Guess]:
    down, right = phase_shift(standard, lr)
    if max(abs(down), abs(right)) < _MIN_SHIFT or max(abs(down), abs(right)) > min(lr.shape[:2]) / 4:
        return
    # The shift also brings in pixels from beyond the borders, which ring.
    edge = 4 + int(np.ceil(max(abs(down), abs(right))))
    if min(lr.shape[:2]) < _MIN_SIDE + 2 * edge:
        return
    moved, image = _moved(standard, down, right)[edge:-edge, edge:-edge], lr[edge:-edge, edge:-edge].astype(np.float32)
    if not lossless:
        moved, image = (moved @ _LUMA)[..., None], (image @ _LUMA)[..., None]
    yield _Guess(f"HR shifted by ({down:+.2f}, {right:+.2f}) LR pixels (down, right)", _psnr(moved, image))


def phase_shift(reference: _Pixels, image: _Pixels) -> tuple[float, float]:
    """Measure how far an image is shifted against another one, by phase correlation.

    Args:
        reference: uint8 [h, w, 3].
        image: uint8 [h, w, 3], the same picture, shifted.

    Returns:
        (down, right) in pixels, to about 0.05; meaningless where the pictures differ.

    Source: Kuglin and Hines, "The phase correlation image alignment method", 1975; the peak refined by a
    discrete Fourier transform at finer steps as in Guizar-Sicairos et al., "Efficient subpixel image
    registration algorithms", 2008.
    """
    height, width = reference.shape[:2]
    window = np.outer(np.hanning(height), np.hanning(width))
    one, other = (
        np.fft.fft2((g - g.mean()) * window) for g in (x.astype(np.float32) @ _LUMA for x in (reference, image))
    )
    cross = other * one.conj()
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]
    cross = cross / (np.abs(cross) + 1e-9) * (np.hypot(fy, fx) < 0.3)  # beyond, aliasing changes the phases
    peak = np.unravel_index(int(np.fft.ifft2(cross).real.argmax()), cross.shape)
    down, right = (((int(p) + n // 2) % n) - n // 2 for p, n in zip(peak, cross.shape, strict=True))
    fine = np.arange(-1, 1.0001, 0.05)
    rows = np.exp(2j * np.pi * fy.T * (down + fine)[:, None])
    columns = np.exp(2j * np.pi * fx.T * (right + fine)[None, :])
    best = np.unravel_index(int((rows @ cross @ columns).real.argmax()), (len(fine), len(fine)))
    return float(down + fine[best[0]]), float(right + fine[best[1]])


def _moved(image: _Pixels, down: float, right: float) -> _Floats:
    pad = max(16, 2 * int(np.ceil(max(abs(down), abs(right)))))
    padded = np.pad(image.astype(np.float32), ((pad, pad), (pad, pad), (0, 0)), mode="symmetric")
    fy, fx = np.fft.fftfreq(padded.shape[0])[:, None, None], np.fft.fftfreq(padded.shape[1])[None, :, None]
    spectrum = np.fft.fft2(padded, axes=(0, 1)) * np.exp(-2j * np.pi * (fy * down + fx * right))
    moved: _Floats = np.fft.ifft2(spectrum, axes=(0, 1)).real.astype(np.float32)
    return moved[pad:-pad, pad:-pad]
