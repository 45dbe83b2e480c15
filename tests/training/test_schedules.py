"""Learning rates against closed forms and torch's own schedulers."""

from __future__ import annotations

import pytest
import torch

from srgan_dist.training.schedules import learning_rate


def rates(num_steps: int, **options: object) -> list[float]:
    return [learning_rate(step, num_steps=num_steps, base=0.1, **options) for step in range(1, num_steps + 1)]  # type: ignore[arg-type]


def torch_rates(num_steps: int, make: object) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = make(optimizer)  # type: ignore[operator]
    found = []
    for _ in range(num_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_cosine_is_torchs() -> None:
    expected = torch_rates(20, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20, eta_min=0.01))
    assert rates(20, schedule="cosine", minimum=0.01) == pytest.approx(expected)


def test_multistep_is_torchs() -> None:
    expected = torch_rates(20, lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [5, 12], gamma=0.3))
    assert rates(20, schedule="multistep", milestones=(5, 12), gamma=0.3) == pytest.approx(expected)


def test_warmup_rises_linearly_to_the_schedule() -> None:
    assert rates(6, schedule="constant", warmup_steps=4) == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_it_depends_on_the_step_alone() -> None:
    forward = rates(50, schedule="cosine", warmup_steps=5)
    backward = [
        learning_rate(step, num_steps=50, base=0.1, schedule="cosine", warmup_steps=5) for step in range(50, 0, -1)
    ]
    assert forward == backward[::-1]
