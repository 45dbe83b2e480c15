"""The protocol of the tables, against scikit-image and against published figures."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from srgan_dist.evaluation.metrics import luma, psnr_ssim_y
from srgan_dist.evaluation.test_sets import read_pairs
from srgan_dist.imaging.pixels import to_uint8
from srgan_dist.imaging.resize import upscale_bicubic_tensor
from tests.conftest import ROOT, SHARED, photo, run


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def test_luma_is_matlabs() -> None:
    image = photo(20, 30)
    np.testing.assert_allclose(luma(tensor(image))[0, 0].numpy(), rgb2ycbcr(image)[..., 0], atol=1e-9)


@pytest.mark.parametrize("size", [(60, 72), (82, 40), (83, 40), (211, 40)])  # one strip of windows, a full one, more
def test_psnr_and_ssim_against_scikit_image(size: tuple[int, int]) -> None:
    hr = photo(*size)
    sr = np.clip(hr.astype(int) + np.random.default_rng(0).integers(-9, 10, hr.shape), 0, 255).astype(np.uint8)
    psnr, ssim = psnr_ssim_y(tensor(sr), tensor(hr), border=4)
    y_sr, y_hr = (rgb2ycbcr(image)[4:-4, 4:-4, 0] for image in (sr, hr))
    expected = 10 * np.log10(255**2 / ((y_sr - y_hr) ** 2).mean())
    assert psnr == pytest.approx(expected, abs=1e-5)
    _, ssim_map = structural_similarity(
        y_sr, y_hr, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, full=True
    )
    assert ssim == pytest.approx(ssim_map[5:-5, 5:-5].mean(), abs=1e-6)


@pytest.mark.parametrize("size", [(19, 19), (136, 137), (146, 147), (147, 270), (300, 19)])
def test_tiles_measure_what_the_whole_image_has(size: tuple[int, int]) -> None:
    """Around multiples of a tile, and of a tile and its windows."""
    hr = tensor(photo(*size))
    sr = (hr + torch.randint(0, 9, hr.shape, generator=torch.manual_seed(0), dtype=torch.uint8)).clamp(max=250)
    y_sr, y_hr = (luma(image)[..., 4:-4, 4:-4] for image in (sr, hr))
    _, ssim_map = structural_similarity_index_measure(y_sr, y_hr, data_range=255.0, return_full_image=True)
    mse = (y_sr - y_hr).square().mean().item()
    expected = 10 * math.log10(255**2 / mse), ssim_map[..., 5:-5, 5:-5].mean().item()
    assert psnr_ssim_y(sr, hr, border=4) == pytest.approx(expected, abs=1e-9)


def test_a_large_image_takes_little_memory() -> None:
    script = (
        "import resource, torch\n"
        "from srgan_dist.evaluation.metrics import psnr_ssim_y\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "image = torch.zeros(1, 3, 768, 1024, dtype=torch.uint8)\n"
        "psnr_ssim_y(image[..., :32, :32], image[..., :32, :32], border=4)\n"
        "before = peak()\n"
        "psnr_ssim_y(image, image, border=4)\n"
        "print(peak() - before)\n"
    )
    done = run(sys.executable, "-c", script, PYTHONPATH=str(ROOT))
    assert done.code == 0, done.err
    assert int(done.out) < 200  # MiB; the whole map at once takes 3700


def test_the_border_does_not_count() -> None:
    hr = photo(40, 40)
    sr = hr.copy()
    sr[:4] = sr[-4:] = 0
    assert psnr_ssim_y(tensor(sr), tensor(hr), border=4)[0] == float("inf")
    assert psnr_ssim_y(tensor(sr), tensor(hr), border=3)[0] < 30


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="sr is"):
        psnr_ssim_y(tensor(photo(40, 40)), tensor(photo(40, 44)), border=4)
    with pytest.raises(ValueError, match="at least 19 pixels"):
        psnr_ssim_y(tensor(photo(18, 40)), tensor(photo(18, 40)), border=4)


def test_to_uint8_clamps_and_rounds() -> None:
    values = torch.tensor([-1.0, 0.0, 0.4 / 255, 0.6 / 255, 1.0, 2.0])
    assert to_uint8(values).tolist() == [0, 0, 0, 1, 255, 255]


@pytest.mark.parametrize(("name", "psnr", "ssim"), [("Set5", 28.431, 0.8113), ("Set14", 26.092, 0.7050)])
def test_bicubic_reaches_the_known_figures(name: str, psnr: float, ssim: float) -> None:
    folder = SHARED / "data/benchmark" / name
    if not folder.is_dir():
        pytest.skip("needs the benchmark images in ../shared")
    found = []
    for image in read_pairs(folder, scale=4):
        bicubic = to_uint8(upscale_bicubic_tensor(image.lr.float() / 255, 4))
        found.append(psnr_ssim_y(bicubic, image.hr, border=4))
    mean = np.array(found).mean(axis=0)
    assert mean == pytest.approx([psnr, ssim], abs=2e-3)
