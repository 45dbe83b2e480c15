"""One optimizer step: fused as plain, and never on a loss that is not a number."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from srgan_dist.distributed.runtime import Runtime
from srgan_dist.training.trainable_network import FiniteGuard, Learner, LossScale, grad_norm


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime(threads=1)


def make(runtime: Runtime, guard: FiniteGuard, name: str = "g", clip: float | None = None) -> Learner:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(), nn.Conv2d(8, 3, 3))
    return Learner(network, runtime=runtime, guard=guard, name=name, betas=(0.9, 0.99), weight_decay=0.0, clip=clip)


def images(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, 12, 12, generator=generator).contiguous(memory_format=torch.channels_last)


def update(learner: Learner, step: int, factor: float = 1.0) -> dict[str, Tensor]:
    learner.begin(rate=0.01)
    loss = learner.wrapped(images(step)).square().mean() * factor
    learner.backward(loss, share=1.0, last=True)
    return learner.step(step, {"g/total": loss.detach()})


def weights(learner: Learner) -> Tensor:
    return torch.cat([value.detach().flatten() for value in learner.network.parameters()])


def test_fused_channels_last_is_plain_adam(runtime: Runtime) -> None:
    learner = make(runtime, FiniteGuard(runtime))
    torch.manual_seed(1)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(), nn.Conv2d(8, 3, 3))
    adam = torch.optim.Adam(plain.parameters(), lr=0.01, betas=(0.9, 0.99), foreach=False, fused=False)
    for step in range(1, 6):
        update(learner, step)
        adam.zero_grad()
        plain(images(step).contiguous()).square().mean().backward()
        adam.step()
    expected = torch.cat([value.detach().flatten() for value in plain.parameters()])
    torch.testing.assert_close(weights(learner), expected, atol=1e-6, rtol=1e-5)


def test_the_optimizer_state_survives_another_memory_layout(runtime: Runtime) -> None:
    whole, resumed = make(runtime, FiniteGuard(runtime)), make(runtime, FiniteGuard(runtime))
    for step in (1, 2):
        update(whole, step)
    state = copy.deepcopy(whole.optimizer_state())
    for values in state["state"].values():
        for key in ("exp_avg", "exp_avg_sq"):
            values[key] = values[key].contiguous().clone()  # as a file of another run may hold it
    resumed.network.load_state_dict(whole.network.state_dict())
    resumed.load_optimizer_state(state)
    for learner in (whole, resumed):
        update(learner, 3)
    assert torch.equal(weights(whole), weights(resumed))


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_moves_nothing(runtime: Runtime, factor: float) -> None:
    guard = FiniteGuard(runtime)
    generator, discriminator = make(runtime, guard), make(runtime, guard, "d")
    update(generator, 1)
    assert guard.first_fault() is None
    before, other = weights(generator).clone(), weights(discriminator).clone()
    update(generator, 2, factor)
    update(discriminator, 2)  # sound, but the run is over
    update(generator, 3)
    assert torch.equal(weights(generator), before)
    assert torch.equal(weights(discriminator), other)
    assert guard.first_fault() == (2, ["g/total"])
    state = generator.optimizer_state()["state"]
    assert all(values["step"].item() == 1 and values["exp_avg"].isfinite().all() for values in state.values())


def test_an_infinite_loss_with_a_finite_gradient_is_one_too(runtime: Runtime) -> None:
    guard = FiniteGuard(runtime)
    learner = make(runtime, guard)
    before = weights(learner).clone()
    learner.begin(rate=0.01)
    loss = learner.wrapped(images(1)).mean() + torch.tensor(float("inf"))
    learner.backward(loss, share=1.0, last=True)
    learner.step(1, {"g/pixel": loss.detach()})
    assert torch.equal(weights(learner), before)
    assert guard.first_fault() == (1, ["g/pixel"])


def test_clipping_is_torchs() -> None:
    parameters = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2))]
    for parameter, values in zip(parameters, ([3.0, 0.0, 0.0], [0.0, 4.0]), strict=True):
        parameter.grad = torch.tensor(values)
    assert grad_norm(parameters, clip=None).item() == 5.0
    assert grad_norm(parameters, clip=1.0).item() == 5.0
    assert grad_norm(parameters, clip=None).item() == pytest.approx(1.0, abs=1e-5)


def test_frozen_lets_gradients_through_but_not_in(runtime: Runtime) -> None:
    learner = make(runtime, FiniteGuard(runtime))
    batch = images(1).requires_grad_(True)
    with learner.frozen() as network:
        network(batch).sum().backward()
    assert batch.grad is not None
    assert batch.grad.abs().sum() > 0
    assert all(parameter.grad is None and parameter.requires_grad for parameter in learner.network.parameters())


def scaled(runtime: Runtime, guard: FiniteGuard, name: str = "g") -> Learner:
    """A learner with a loss scale, as in fp16."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(), nn.Conv2d(8, 3, 3))
    scale = LossScale(runtime.device)
    return Learner(
        network,
        runtime=runtime,
        guard=guard,
        name=name,
        betas=(0.9, 0.99),
        weight_decay=0.0,
        clip=0.5,
        loss_scale=scale,
    )


def overflow(learner: Learner) -> None:
    """What fp16 does to a large gradient: the loss is finite, its gradient is not."""

    def spoil(gradient: Tensor) -> Tensor:
        return gradient * float("inf")

    handle = next(learner.network.parameters()).register_hook(spoil)
    update(learner, 1)
    handle.remove()


def test_a_scaled_update_is_the_plain_one(runtime: Runtime) -> None:
    plain, learner = make(runtime, FiniteGuard(runtime), clip=0.5), scaled(runtime, FiniteGuard(runtime))
    for step in range(1, 5):
        norm, other = (update(one, step)["grad_norm/g"] for one in (plain, learner))
        torch.testing.assert_close(norm, other)
    torch.testing.assert_close(weights(learner), weights(plain), atol=1e-6, rtol=1e-5)


def test_an_overflow_skips_one_update_of_one_network(runtime: Runtime) -> None:
    guard = FiniteGuard(runtime)
    generator, discriminator = scaled(runtime, guard), scaled(runtime, guard, "d")
    before, other = weights(generator).clone(), weights(discriminator).clone()
    overflow(generator)
    update(discriminator, 1)
    assert torch.equal(weights(generator), before)
    assert not torch.equal(weights(discriminator), other)
    assert guard.first_fault() is None
    assert generator.loss_scale
    assert discriminator.loss_scale
    assert generator.loss_scale.scale.item() == LossScale.START / 2
    assert discriminator.loss_scale.scale.item() == LossScale.START
    assert all(values["step"].item() == 0 for values in generator.optimizer_state()["state"].values())
    update(generator, 2)
    assert not torch.equal(weights(generator), before)


def test_a_network_that_always_overflows_ends_the_run(runtime: Runtime) -> None:
    guard = FiniteGuard(runtime)
    generator, discriminator = scaled(runtime, guard), scaled(runtime, guard, "d")
    for _ in range(17):  # from 2^16 to 2^-1
        overflow(generator)
    assert guard.first_fault() is None
    overflow(generator)
    assert guard.first_fault() == (1, ["grad_norm/g"])
    before = weights(discriminator).clone()
    update(discriminator, 1)  # sound, but the run is over
    assert torch.equal(weights(discriminator), before)


def test_the_loss_scale_grows_and_is_resumed(runtime: Runtime) -> None:
    learner = scaled(runtime, FiniteGuard(runtime))
    assert learner.loss_scale
    overflow(learner)
    no = torch.tensor(False)
    for _ in range(LossScale.PATIENCE - 1):
        learner.loss_scale.update(no)
    state = copy.deepcopy(learner.optimizer_state())
    resumed = scaled(runtime, FiniteGuard(runtime))
    resumed.load_optimizer_state(state)
    assert resumed.loss_scale
    for one in (learner.loss_scale, resumed.loss_scale):
        assert one.scale.item() == LossScale.START / 2
        one.update(no)
        assert one.scale.item() == LossScale.START
