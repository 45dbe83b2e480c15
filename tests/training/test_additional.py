"""The additional losses of a run: their schedule, what they cost, and that a run which resumes has the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from srgan_dist.config.load import load_config
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.losses.additional import ldl_loss
from srgan_dist.training.build import build_rates
from srgan_dist.training.build_step import build_additional_losses
from srgan_dist.training.memory_estimate import estimate_step_memory
from srgan_dist.training.schedules import ramped
from tests.conftest import metrics, options
from tests.ranks.faults import on_ranks, train_and_die

ALL = "{kind: ldl, weight: 20, start: 1}, {kind: frequency, ramp_steps: 3}, {kind: wavelet, weight: 0.1}"


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime(threads=1)


def test_a_weight_joins_late_and_grows() -> None:
    assert [ramped(step, delay=2, ramp=4) for step in range(1, 9)] == [0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert [ramped(step, delay=1, ramp=0) for step in range(1, 4)] == [0, 1, 1]
    text = "{kind: ldl, start: 1, ramp_steps: 2}, {kind: wavelet}"
    rates = build_rates(load_config(None, ["--train.pretrain_steps=3", f"--loss.additional={text}"]))
    assert rates(3).additional == {}
    factors = [rates(step).additional for step in range(4, 8)]
    assert factors == [{"ldl": factor, "wavelet": 1.0} for factor in (0.0, 0.5, 1.0, 1.0)]


def test_what_has_no_weight_is_not_built(runtime: Runtime) -> None:
    text = "{kind: ldl, weight: 0}, {kind: wavelet, weight: 2}"
    config = load_config(None, [f"--loss.additional={text}"])
    (wavelet,) = build_additional_losses(config, runtime=runtime, average=torch.nn.Identity())
    assert (wavelet.kind, wavelet.weight, wavelet.uses_average) == ("wavelet", 2.0, False)


def test_ldl_compares_with_the_images_of_the_average(runtime: Runtime) -> None:
    class Average(torch.nn.Module):
        def forward(self, lr: torch.Tensor) -> torch.Tensor:
            return lr.repeat_interleave(4, -1).repeat_interleave(4, -2)

    sr, hr = torch.rand(2, 3, 3, 16, 16)
    lr = hr[..., ::4, ::4]
    config = load_config(None, ["--loss.additional={kind: ldl}"])
    (ldl,) = build_additional_losses(config, runtime=runtime, average=Average())
    assert ldl.uses_average
    assert ldl.distance(sr, hr, lr) == ldl_loss(sr, hr, Average()(lr))


def test_the_memory_of_additional_losses_is_predicted() -> None:
    def peak(text: str) -> int:
        config = load_config(None, [*options({}), "--loss.perceptual.weight=0", f"--loss.additional=[{text}]"])
        return estimate_step_memory(config, micro_batch=4, num_micro_batches=1, recompute="none").peak

    networks = "{kind: lpips, weights: nowhere.pth}, {kind: dists, weights: nowhere.pth}"  # nothing is read
    assert peak(f"{{kind: ldl}}, {{kind: wavelet, levels: 4}}, {networks}") > peak("{kind: ldl, weight: 0}") + 2 * 2**25


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_that_resumes_logs_the_same_additional_losses(shards: Path, tmp_path: Path, ranks: int) -> None:
    """On two ranks with BatchNorm as well, whose running statistics differ there: the average has those of rank 0."""

    def lines(name: str, *stops: int) -> list[dict[str, Any]]:
        for steps in stops:
            changes = {"run.dir": tmp_path / name, "data.train": shards, "train.steps": steps, "checkpoint.every": 100}
            changes |= {"loss.perceptual.weight": 0, "generator.norm": "batch", "loss.additional": ALL}
            done = on_ranks(train_and_die, options(changes), None, ranks=ranks)
            assert [rank.code for rank in done] == [0] * ranks, done
        return [
            {key: value for key, value in line.items() if not key.startswith(("perf/", "time", "hours"))}
            for line in metrics(tmp_path / name)
        ]

    whole = lines("whole", 7)
    assert lines("parts", 2, 4, 7) == whole
    assert [line.get("g/ldl") for line in whole[:3]] == [None, None, 0.0]  # two of pretraining, and its start
    for line in whole[2:]:
        terms = ("pixel", "adversarial", "ldl", "frequency", "wavelet")
        assert line["g/total"] == pytest.approx(sum(line[f"g/{term}"] for term in terms))
        assert line["step"] == 3 or line["g/ldl"] > 0
    assert whole[2]["g/frequency"] == pytest.approx(whole[4]["g/frequency"] / 3, rel=0.5)  # the ramp
