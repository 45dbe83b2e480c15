"""Histograms of the discriminator's scores: every logit of its last update once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srgan_dist.data.loading.loader import Patches
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.training.adversarial import AdversarialObjective, AdversarialSettings, split_micro_batches
from srgan_dist.training.schedules import Rates
from tests.training.tiny_step import tiny_step


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime(threads=1)


def patches(count: int, size: int) -> Patches:
    hr = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    return Patches(hr[:, :, ::4, ::4].clone(), hr, torch.arange(count))


def test_scores_are_those_of_the_last_update(runtime: Runtime) -> None:
    step = tiny_step(runtime)
    assert step.score_histograms(bins=8) == {}
    assert step.gan
    step.gan([patches(4, 48)], Rates(step=3, phase_step=2, is_pretraining=False, generator=0.0, discriminator=0.0))
    found = step.score_histograms(bins=8)
    judged = {name: torch.cat([part.flatten() for part in parts]).numpy() for name, parts in step.gan.judged.items()}
    assert set(judged) == {"real", "fake"}
    for name, logits in judged.items():
        expected, _ = np.histogram(1 / (1 + np.exp(-logits.astype(np.float64))), bins=8, range=(0, 1))
        assert found[f"d/{name}_scores"] == expected.tolist()
        assert sum(expected) == logits.size > 0


def test_an_attempt_that_ran_out_of_memory_leaves_none(runtime: Runtime) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64, 1))
    settings = AdversarialSettings(kind="vanilla", weight=1.0)
    objective = AdversarialObjective(settings, network, [patches(4, 8)], runtime=runtime)
    objective.generator_loss(patches(4, 8).hr, 0)
    for size in (4, 2):
        objective.split(size)
        for part in objective.real_and_fake_batches():
            objective.discriminator_terms(part, network, r1_is_due=False)
    assert [len(part) for part in objective.judged["real"]] == [2, 2]
    assert len(split_micro_batches([patches(4, 8)], 2)) == len(objective.judged["fake"])
