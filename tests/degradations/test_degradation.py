from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from srgan_dist.data.loading.loader import to_device
from srgan_dist.data.loading.pairs import PairDataset
from srgan_dist.data.shards.shard_set import open_shards
from srgan_dist.degradations.degradation import Bicubic, Degradation, Noise
from srgan_dist.degradations.jpeg import jpeg, jpeg_constants
from srgan_dist.degradations.realesrgan import RealESRGAN
from srgan_dist.degradations.recipe import draw_plan
from srgan_dist.utils.hashing import hash64
from tests.degradations.stages import first_stage, real_esrgan, second_stage

Make = Callable[..., Degradation]

# Named, so that a failure says which; margin 16 of 96 pixels.
MAKERS: dict[str, Make] = {
    "bicubic": lambda **_: Bicubic(scale=4),
    "noise": lambda **k: Noise(gaussian_probability=0.5, grey_probability=0.5, **k),
    "realesrgan": lambda **k: real_esrgan(scale=4, margin=16, **k),
    "realesrgan sharpened": lambda **k: real_esrgan(scale=4, margin=0, sharpen=True, **k),
}
QUIET: dict[str, Any] = {
    "blur_probability": 0.0,
    "resize_probabilities": (0.0, 0.0, 1.0),
    "gaussian_probability": 1.0,
    "gaussian_sigma": (0.0, 0.0),
    "jpeg_quality": (100, 100),
}
KEYS = torch.from_numpy(hash64(5, np.arange(8)).view(np.int64))


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Make:
    return MAKERS[request.param]


@pytest.fixture(scope="module")
def hr(make_image: Callable[..., NDArray[np.uint8]]) -> Tensor:
    """Eight patches, as `to_device` gives them: channels last."""
    images = torch.from_numpy(np.stack([make_image(96, 96, seed) for seed in range(8)])).permute(0, 3, 1, 2)
    return images.float() / 255


@pytest.fixture
def quiet() -> RealESRGAN:
    stage = first_stage(**QUIET)
    return real_esrgan(scale=1, margin=32, first=stage, second=stage, ringing_probability=0.0)


def levels(image: Tensor) -> Tensor:
    return (image * 255).round()


def test_the_same_sample_gets_the_same_bits_in_any_batch(make: Make, hr: Tensor) -> None:
    degrade = make()
    lr, target = degrade(hr, KEYS)
    turned = torch.tensor([5, 2, 7, 0, 3, 1, 6, 4])
    cases = {
        "alone": [degrade(hr[i : i + 1], KEYS[i : i + 1]) for i in range(8)],
        "contiguous": [degrade(hr.contiguous(), KEYS)],
        "in threes": [degrade(part, key) for part, key in zip(hr.split(3), KEYS.split(3), strict=True)],
        "by another instance": [make()(hr, KEYS)],
    }
    for name, parts in cases.items():
        assert torch.equal(torch.cat([part[0] for part in parts]), lr), name
        assert torch.equal(torch.cat([part[1] for part in parts]), target), name
    shuffled = degrade(hr[turned], KEYS[turned])
    assert torch.equal(shuffled[0], lr[turned])
    assert torch.equal(shuffled[1], target[turned])


def test_another_key_gives_another_image(make: Make, hr: Tensor) -> None:
    degrade = make()
    same = hr[:1].expand(8, -1, -1, -1)
    lr, _ = degrade(same, KEYS)
    distinct = {image.numpy().tobytes() for image in lr}
    assert len(distinct) == (1 if isinstance(degrade, Bicubic) else 8)


def test_samples_of_one_batch_are_degraded_independently(packed: Path) -> None:
    dataset = PairDataset(open_shards([packed]), patch_size=32, seed=1)
    batch = dataset.at(range(64))
    ranges: dict[str, Any] = {"first": first_stage(), "second": second_stage(), "ringing_probability": 0.8}
    plan = draw_plan(batch.key.numpy(), height=256, width=256, scale=4, **ranges)
    # What holds for a whole batch in the published code, and is why that mixes batches in a pool.
    for stage in (plan.first, plan.second):
        assert len(set(stage.sizes)) > 16
        assert set(stage.modes) == {"area", "bilinear", "bicubic"}
        assert set(stage.gaussian) == {True, False}
    assert set(plan.jpeg_last) == {True, False}
    # Neighbours share nothing, and neither do the same crops in another epoch.
    later = dataset.at(range(dataset.num_patches, 2 * dataset.num_patches))
    keys = torch.cat([dataset.at(range(dataset.num_patches)).key, later.key])
    assert len(keys.unique()) == 2 * dataset.num_patches
    factors = np.array(
        [height for height, _ in draw_plan(keys.numpy(), height=10**6, width=8, scale=4, **ranges).first.sizes]
    )
    assert abs(np.corrcoef(factors[:-1], factors[1:])[0, 1]) < 4 / np.sqrt(len(factors))


def test_shapes_types_and_levels(make: Make, hr: Tensor) -> None:
    degrade = make()
    before = hr.clone()
    lr, target = degrade(hr, KEYS)
    side = 96 - degrade.margin
    scale = 1 if isinstance(degrade, Noise) else 4
    assert target.shape == (8, 3, side, side)
    assert lr.shape == (8, 3, side // scale, side // scale)
    assert lr.dtype == target.dtype == torch.float32
    assert (lr.min() >= 0) & (lr.max() <= 1)
    assert (lr * 255 - levels(lr)).abs().max() < 1e-4
    assert torch.equal(hr, before)


def test_torchs_generator_is_not_touched_and_no_gradient_flows(make: Make, hr: Tensor) -> None:
    degrade = make()
    state, numpy_state = torch.random.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()
    lr, target = degrade(hr.clone().requires_grad_(), KEYS)
    assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state(legacy=False)["state"]["key"], numpy_state)
    assert not lr.requires_grad
    assert not target.requires_grad


def test_the_host_never_waits_for_the_device(make: Make, hr: Tensor) -> None:
    # Tensors of this device have no values: whatever asks for one raises, and so does mixing it with the CPU.
    lr, target = make(device="meta")(hr.to("meta"), KEYS)
    assert lr.device.type == target.device.type == "meta"


def test_autocast_and_double_precision_change_nothing(make: Make, hr: Tensor) -> None:
    degrade = make()
    lr, _ = degrade(hr, KEYS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(degrade(hr, KEYS)[0], lr)
    assert torch.equal(degrade(hr.double(), KEYS)[0], lr)


def test_bicubic_is_the_stored_lr_inside(packed: Path) -> None:
    batch = PairDataset(open_shards([packed]), patch_size=32, seed=1).at(range(64))
    pair = to_device(batch, "cpu")
    lr, target = Bicubic(scale=4)(pair.hr, KEYS.repeat(8))
    assert torch.equal(target, pair.hr)
    difference = (levels(lr) - levels(pair.lr)).abs()[..., 2:-2, 2:-2]  # the kernel reaches two LR pixels
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 2e-3
    assert (levels(lr) != levels(pair.lr)).float().mean() > 0.05  # at the borders they do differ


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_noise_of_a_range(hr: Tensor, probability: float) -> None:
    flat = torch.full((8, 3, 96, 96), 0.5)
    degrade = Noise(gaussian_probability=probability, gaussian_sigma=(4, 20), poisson_scale=(0.5, 1.0))
    image = flat if probability else hr
    lr, target = degrade(image, KEYS)
    assert torch.equal(target, image)
    sigma = ((lr - image) * 255).flatten(1).std(1)
    assert sigma.min() > (3.9 if probability else 3)
    assert sigma.max() < (20.2 if probability else 16)
    assert sigma.max() > 1.3 * sigma.min()


def test_noise_of_strength_zero_is_the_image(hr: Tensor) -> None:
    silent = Noise(gaussian_probability=0.5, gaussian_sigma=(0, 0), poisson_scale=(0, 0))
    lr, target = silent(hr, KEYS)
    assert torch.equal(lr, target)


def test_realesrgan_without_its_parts_is_the_crop(quiet: RealESRGAN, hr: Tensor) -> None:
    grey = hr[:, :1].expand(-1, 3, -1, -1)
    lr, target = quiet(grey, KEYS)
    assert target.shape[-1] == 64
    assert (levels(lr) - levels(target)).abs().max() <= 4  # two JPEGs of quality 100
    assert (levels(lr) - levels(target)).abs().mean() < 0.7


def test_realesrgan_cuts_both_images_at_one_place() -> None:
    stage = first_stage(**QUIET)
    degrade = real_esrgan(scale=4, margin=48, first=stage, second=stage, ringing_probability=0.0)
    y, x = torch.meshgrid(torch.linspace(0, 1, 96), torch.linspace(0, 1, 96), indexing="ij")
    places = torch.stack([y, x, (y + x) / 2])[None].expand(8, -1, -1, -1)
    lr, target = degrade(places, KEYS)
    means = torch.nn.functional.avg_pool2d(target, 4)
    assert (lr - means).abs().mean() < 0.01
    tops = {round(value * 95) for value in target[:, 0, 0, 0].tolist()}
    lefts = {round(value * 95) for value in target[:, 1, 0, 0].tolist()}
    assert all(place % 4 == 0 and 0 <= place <= 48 for place in tops | lefts)
    assert min(len(tops), len(lefts)) > 3


def without(hr: Tensor, *, second: dict[str, Any] | None = None, ringing: float = 0.0, **first: Any) -> Tensor:
    """Degrade at x1 with nothing but what is given."""
    stages = first_stage(**(QUIET | first)), first_stage(**(QUIET | (second or {})))
    return real_esrgan(scale=1, margin=0, first=stages[0], second=stages[1], ringing_probability=ringing)(hr, KEYS)[0]


def detail(image: Tensor) -> Tensor:
    return (image[..., 1:] - image[..., :-1]).square().flatten(1).mean(1)


@pytest.mark.parametrize("stage", [1, 2])
def test_each_part_of_realesrgan_acts(hr: Tensor, stage: int) -> None:
    def only(**changes: Any) -> Tensor:
        return without(hr, **changes) if stage == 1 else without(hr, second=changes)

    clean = without(hr)
    blurred = only(blur_probability=1.0, sinc_probability=0.0, blur_sigma=(1.5, 3.0))
    assert (detail(blurred) < 0.5 * detail(clean)).all()
    shrunk = only(resize_probabilities=(0.0, 1.0, 0.0), resize_range=(0.3, 1.0))
    assert ((shrunk - clean).abs().flatten(1).mean(1) > 0.002).all()
    noisy = only(gaussian_sigma=(20.0, 20.0))
    assert ((noisy - clean) * 255).std().item() == pytest.approx(18, abs=2.5)  # chroma is halved by JPEG
    photons = only(gaussian_probability=0.0, poisson_scale=(1.0, 1.0))
    assert 6 < ((photons - clean) * 255).std() < 13
    coarse = only(jpeg_quality=(5, 5))
    assert ((coarse - clean).abs().flatten(1).mean(1) > 0.02).all()


def test_the_final_filter_rings(hr: Tensor) -> None:
    assert (without(hr, ringing=1.0) - without(hr)).abs().mean() > 0.002


def test_the_last_jpeg_comes_at_either_place(hr: Tensor) -> None:
    # A grey image that comes out of a JPEG goes through the same one unharmed.
    coarse = first_stage(**(QUIET | {"jpeg_quality": (20, 20)}))
    keys = torch.from_numpy(hash64(7, np.arange(40)).view(np.int64))
    degrade = real_esrgan(scale=4, margin=0, first=first_stage(**QUIET), second=coarse, ringing_probability=1.0)
    grey = hr[:, :1].repeat(5, 3, 1, 1)
    lr, _ = degrade(grey, keys)
    again = jpeg(lr, torch.full((40,), 20), jpeg_constants("cpu"))
    is_last = ((again - lr).abs().flatten(1).mean(1) * 255 < 0.5).tolist()
    plan = draw_plan(
        keys.numpy(), height=96, width=96, scale=4, first=first_stage(), second=coarse, ringing_probability=1.0
    )
    assert is_last == plan.jpeg_last
    fine = first_stage(**QUIET)
    before, _ = real_esrgan(scale=4, margin=0, first=fine, second=fine, ringing_probability=1.0)(grey, keys)
    once = jpeg(before, torch.full((40,), 20), jpeg_constants("cpu"))
    error = (once - lr).abs().flatten(1).mean(1) * 255
    assert error[torch.tensor(is_last)].mean() < 0.6  # and not at both


def test_realesrgan_degrades(hr: Tensor) -> None:
    lr, target = real_esrgan(scale=4, margin=0)(hr, KEYS)
    clean, _ = Bicubic(scale=4)(target, KEYS)
    error = ((lr - clean) * 255).square().flatten(1).mean(1).sqrt()
    assert error.min() > 3
    assert error.max() < 90
    means = (lr - clean).flatten(1).mean(1) * 255  # nothing brightens or darkens
    assert means.abs().max() < 10


def test_the_smallest_patches_are_degraded_without_an_error(make_image: Callable[..., NDArray[np.uint8]]) -> None:
    tiny = torch.from_numpy(make_image(16, 8)).permute(2, 0, 1)[None].float().expand(40, -1, -1, -1) / 255
    keys = torch.from_numpy(hash64(6, np.arange(40)).view(np.int64))
    lr, _ = real_esrgan(scale=4, margin=0)(tiny, keys)
    assert lr.shape == (40, 3, 4, 2)


def test_what_does_not_fit_is_refused(hr: Tensor) -> None:
    with pytest.raises(ValueError, match="margin must be a multiple of the scale, got 10 and 4"):
        real_esrgan(scale=4, margin=10)
    with pytest.raises(ValueError, match=r"images of 96x96 must .* exceed the margin of 96"):
        real_esrgan(scale=4, margin=96)(hr, KEYS)
    with pytest.raises(ValueError, match="images of 94x96 must be multiples of the scale 4"):
        real_esrgan(scale=4, margin=0)(hr[..., :94, :], KEYS)
    with pytest.raises(ValueError, match="94x96 cannot be downscaled by 4"):
        Bicubic(scale=4)(hr[..., :94, :], KEYS)
    with pytest.raises(ValueError, match="ringing_probability must be from 0 to 1, got 2"):
        real_esrgan(scale=4, ringing_probability=2)
    with pytest.raises(ValueError, match="gaussian_sigma must be two ascending numbers from 0 to 255"):
        Noise(gaussian_sigma=(3, 2))
    with pytest.raises(ValueError, match="scale must be at least 1, got 0"):
        Bicubic(scale=0)
