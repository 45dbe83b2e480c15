from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from srgan_dist.degradations.kernels import sinc_kernels
from srgan_dist.degradations.recipe import DegradationPlan, draw_plan
from srgan_dist.utils.hashing import hash64
from tests.degradations.stages import first_stage, second_stage

N = 6000


def plan_of(count: int, start: int = 0, **first: Any) -> DegradationPlan:
    return draw_plan(
        hash64(3, np.arange(start, start + count)).view(np.int64),
        height=256,
        width=256,
        scale=4,
        first=first_stage(**first),
        second=second_stage(),
        ringing_probability=0.8,
    )


@pytest.fixture(scope="module")
def plan() -> DegradationPlan:
    return plan_of(N)


def test_kernels_have_sum_one_and_are_symmetric(plan: DegradationPlan) -> None:
    for kernels in (plan.first.kernels, plan.second.kernels, plan.kernels):
        torch.testing.assert_close(kernels.sum((1, 2)), torch.ones(N), atol=1e-5, rtol=0)
        torch.testing.assert_close(kernels, kernels.flip(1, 2), atol=1e-6, rtol=0)  # what `filter_image` relies on
        side = (kernels[:, 10] != 0).sum(1)
        assert side.max() <= 21
    size = (plan.kernels[:, 10].abs() > 0).sum(1)
    assert set(size.tolist()) == set(range(7, 22, 2))


@pytest.mark.parametrize("kind", range(6))
def test_kinds_of_kernels(kind: int) -> None:
    """Isotropic and anisotropic by turns; Gaussian, generalised, plateau-shaped by pairs."""
    one_of = tuple(float(kind == number) for number in range(6))
    sides: dict[str, Any] = {"kernel_sizes": (21, 21), "blur_sigma": (1.0, 3.0), "sinc_probability": 0.0}
    kernels = plan_of(200, kernel_probabilities=one_of, **sides).first.kernels.double()
    turned = (kernels - kernels.transpose(1, 2)).abs().amax((1, 2)) / kernels.amax((1, 2))
    assert (turned > 1e-3).float().mean() == (pytest.approx(1, abs=0.1) if kind % 2 else 0)
    # q of the formulas along a row, from the centre: x^2 times a number, to the power beta. q(2) / q(1) is 4^beta.
    ratio = kernels[:, 10, 10, None] / kernels[:, 10, 11:13]
    q = ratio - 1 if kind >= 4 else 2 * ratio.log()
    if kind >= 4:  # at the centre a plateau is 1 / (1 + 0)
        assert (q > 0).all()
    beta = (q[:, 1] / q[:, 0]).log() / np.log(4)
    low, high = ((1, 1), (0.5, 4), (1, 2))[kind // 2]
    seen = beta[(q[:, 0] > 1e-4) & (q[:, 1] < 20)]  # others drown in float32
    assert len(seen) > 80
    assert seen.min() > low - 0.02
    assert seen.max() < high + 0.1
    assert (seen.max() - seen.min() > 0.4) == (kind >= 2)


def test_cutoffs_of_sinc_kernels_follow_their_size() -> None:
    kernels = plan_of(400, sinc_probability=1.0).first.kernels.double()
    sizes = (kernels[:, 10].abs() > 0).sum(1)
    cutoffs = np.linspace(np.pi / 5, np.pi, 200)
    for size, lowest in ((11, np.pi / 3), (13, np.pi / 5)):
        known = torch.from_numpy(sinc_kernels(size=np.full(200, size), cutoff=cutoffs))
        distance = (kernels[sizes == size][:, None] - known).abs().amax((2, 3))
        assert distance.amin(1).max() < 0.01
        found = cutoffs[distance.argmin(1).numpy()]
        assert found.min() == pytest.approx(lowest, abs=0.25)
        assert found.min() >= lowest - 0.02
        assert found.max() == pytest.approx(np.pi, abs=0.25)


@pytest.mark.parametrize(("stage", "up", "keep", "low", "high"), [(0, 0.2, 0.1, 38, 384), (1, 0.3, 0.3, 19, 76)])
def test_sizes_follow_the_probabilities(
    plan: DegradationPlan, stage: int, up: float, keep: float, low: int, high: int
) -> None:
    sizes = np.array((plan.first, plan.second)[stage].sizes)
    kept = (256, 64)[stage]
    assert (sizes[:, 0] == sizes[:, 1]).all()
    assert sizes.min() == low
    assert sizes.max() in (high - 1, high)
    rounded_to_it = up / (high - kept)
    assert (sizes[:, 0] == kept).mean() == pytest.approx(keep + rounded_to_it, abs=0.025)
    assert (sizes[:, 0] > kept).mean() == pytest.approx(up - rounded_to_it, abs=0.025)


def test_choices_follow_the_probabilities(plan: DegradationPlan) -> None:
    assert all(plan.first.blurred)
    assert np.mean(plan.second.blurred) == pytest.approx(0.8, abs=0.025)
    assert np.mean(plan.ringing) == pytest.approx(0.8, abs=0.025)
    assert np.mean(plan.jpeg_last) == pytest.approx(0.5, abs=0.03)
    for stage in (plan.first, plan.second):
        assert np.mean(stage.gaussian) == pytest.approx(0.5, abs=0.03)
        assert stage.grey.float().mean() == pytest.approx(0.4, abs=0.03)
        assert (stage.quality.min().item(), stage.quality.max().item()) == (30, 95)
        assert {mode: pytest.approx(1 / 3, abs=0.03) for mode in ("area", "bilinear", "bicubic")} == {
            mode: stage.modes.count(mode) / N for mode in set(stage.modes)
        }
        ringing = (stage.kernels.amin((1, 2)) < 0).float().mean()
        assert ringing == pytest.approx(0.1, abs=0.015)  # the sinc kernels
    gaussian = torch.tensor(plan.first.gaussian)
    sigmas, scales = plan.first.strength[gaussian], plan.first.strength[~gaussian]
    assert sigmas.min() >= 1
    assert sigmas.max() <= 30
    assert sigmas.mean() == pytest.approx(15.5, abs=0.6)
    assert scales.min() >= 0.05
    assert scales.max() <= 3


def test_a_batch_is_as_varied_as_the_stream(plan: DegradationPlan) -> None:
    """What the published pool of pairs is for: nothing is shared by neighbours, or by the choices of one sample."""
    columns = {
        "size 1": [size[0] for size in plan.first.sizes],
        "size 2": [size[0] for size in plan.second.sizes],
        "gaussian 1": plan.first.gaussian,
        "gaussian 2": plan.second.gaussian,
        "quality 1": plan.first.quality.tolist(),
        "quality 2": plan.second.quality.tolist(),
        "mode": [mode == "area" for mode in plan.modes],
        "jpeg last": plan.jpeg_last,
        "centre": plan.first.kernels[:, 10, 10].tolist(),
    }
    values = np.array(list(columns.values()), dtype=float)
    limit = 4.5 / N**0.5
    together = np.corrcoef(values) - np.eye(len(values))
    assert np.abs(together).max() < limit
    neighbours = [np.corrcoef(row[1:], row[:-1])[0, 1] for row in values]
    assert np.abs(neighbours).max() < limit
    assert len(set(plan.first.sizes[:16])) >= 12


def test_a_plan_depends_on_its_key_alone(plan: DegradationPlan) -> None:
    alone = plan_of(1, start=17)
    for stage, single in ((plan.first, alone.first), (plan.second, alone.second)):
        for name, values in stage._asdict().items():
            ours, theirs = values[17], getattr(single, name)[0]
            assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs, name
    assert torch.equal(plan.kernels[17], alone.kernels[0])


def test_the_plan_of_a_sample_is_the_stored_one() -> None:
    # Another value means that every run with this degradation trains on other images.
    plan = plan_of(2)
    assert (plan.first.sizes, plan.second.sizes) == ([(343, 343), (100, 100)], [(51, 51), (58, 58)])
    assert plan.first.quality.tolist() + plan.second.quality.tolist() == [58, 74, 74, 94]
    assert plan.second.strength.tolist() == pytest.approx([1.639667, 1.487304], rel=1e-6)
