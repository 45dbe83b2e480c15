"""LPIPS and DISTS are torchmetrics' own with the same backbone, image by image, and differentiable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchmetrics.functional.image.dists as their_dists
import torchmetrics.functional.image.lpips as their_lpips
import torchvision
from torch import Tensor, nn

from srgan_dist.models import perceptual
from srgan_dist.models.perceptual import DISTS, LPIPS
from srgan_dist.models.pretrained import WeightsUnavailable, hed_file, torchvision_file, vgg16_is_here
from srgan_dist.training.without_memory import without_memory

BOTH = pytest.mark.parametrize("measure", [LPIPS, DISTS])


@pytest.fixture(scope="module")
def vgg16() -> nn.Module:
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole: nn.Module = torchvision.models.vgg16(weights=None)
    return whole


@pytest.fixture(scope="module")
def weights(vgg16: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole VGG16 as torchvision saves it, without its 500 MB of dense layers."""
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save({key: value for key, value in vgg16.state_dict().items() if key.startswith("features.")}, path)
    return path


@pytest.fixture
def pairs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    hr = torch.rand(3, 3, 32, 48, generator=generator)
    return (hr + 0.1 * torch.randn(hr.shape, generator=generator)).clamp(0, 1), hr


def test_lpips_is_torchmetrics_own(vgg16: nn.Module, weights: Path, pairs: tuple[Tensor, Tensor]) -> None:
    theirs = their_lpips._LPIPS(pretrained=True, net="vgg", pnet_rand=True)
    state = vgg16.get_submodule("features").state_dict()
    theirs.net.load_state_dict({key: state[key.partition(".")[2]] for key in theirs.net.state_dict()})
    expected = theirs(*pairs, normalize=True).flatten()
    found = LPIPS(weights=weights)(*pairs)
    assert found.shape == (3,)
    assert (expected > 1e-3).all()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_dists_is_torchmetrics_own(
    vgg16: nn.Module, weights: Path, pairs: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (their_dists, torchvision.models):  # where its versions look; theirs would download
        monkeypatch.setattr(module, "vgg16", lambda *_, **__: vgg16, raising=False)
    expected = their_dists.DISTSNetwork()(*pairs).detach()
    found = DISTS(weights=weights)(*pairs)
    assert (expected > 1e-3).all()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@BOTH
def test_each_image_is_measured_by_itself_and_nothing_is_no_distance(measure: Any) -> None:
    network = measure(weights="random").double()
    sr, hr = torch.rand(2, 3, 3, 16, 20, dtype=torch.float64)
    together = network(sr, hr)
    assert together.dtype == torch.float64
    alone = torch.cat([network(*pair) for pair in zip(sr.split(1), hr.split(1), strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(network(hr, sr), together, rtol=1e-12, atol=1e-14)
    assert not network(hr, hr).any()


@BOTH
@pytest.mark.parametrize("recompute", [False, True])
def test_the_gradient_reaches_sr_alone(measure: Any, recompute: bool) -> None:
    network = measure(weights="random", recompute=recompute)
    sr, hr = torch.rand(2, 1, 3, 16, 16).requires_grad_().unbind()
    sr.retain_grad()
    network(sr, hr).mean().backward()
    assert sr.grad is not None
    assert sr.grad.isfinite().all()
    assert sr.grad.any()
    assert not any(parameter.requires_grad for parameter in network.parameters())


@BOTH
def test_black_images_have_a_finite_gradient(measure: Any) -> None:
    sr = torch.zeros(1, 3, 16, 16, requires_grad=True)
    measure(weights="random")(sr, torch.zeros(1, 3, 16, 16)).sum().backward()
    assert sr.grad is not None
    assert sr.grad.isfinite().all()


@BOTH
def test_autocast_changes_little(measure: Any) -> None:
    network = measure(weights="random")
    hr = torch.rand(2, 3, 32, 32)
    sr = (hr + 0.2 * torch.randn_like(hr)).clamp(0, 1)
    expected = network(sr, hr)
    network.compute_in(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network(sr, hr)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.005)


@BOTH
def test_it_runs_without_memory(measure: Any) -> None:
    with without_memory():
        sr = torch.rand(2, 3, 32, 32, requires_grad=True)
        assert measure(weights="random")(sr, torch.rand(2, 3, 32, 32)).shape == (2,)


@BOTH
def test_without_the_heads_one_line_says_which_package_has_them(
    measure: Any, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)  # noqa: ARG005
    with pytest.raises(WeightsUnavailable, match=r"pip install 'torchmetrics>=1.7'") as caught:
        measure(weights=weights)
    assert "\n" not in str(caught.value)


def test_whether_weights_are_here_is_asked_without_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert not vgg16_is_here("auto")
    assert not vgg16_is_here("hed")
    with pytest.raises(WeightsUnavailable, match="srgan-dist fetch hed"):
        LPIPS(weights="hed")
    for path in (torchvision_file("vgg16"), hed_file()):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert vgg16_is_here("auto")
    assert vgg16_is_here("hed")
