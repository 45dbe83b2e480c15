"""The optimizer step: equal to plain Adam, and skipped once a loss is not finite."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from srgan_dist.distributed.runtime import Runtime
from srgan_dist.training.trainable_network import FiniteGuard, LossScale, TrainableNetwork, grad_norm


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime(threads=1)


def make(runtime: Runtime, guard: FiniteGuard, name: str = "g", clip: float | None = None) -> TrainableNetwork:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(), nn.Conv2d(8, 3, 3))
    return TrainableNetwork(
        network, runtime=runtime, guard=guard, name=name, betas=(0.9, 0.99), weight_decay=0.0, clip=clip
    )


def images(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, 12, 12, generator=generator).contiguous(memory_format=torch.channels_last)


def update(trainable: TrainableNetwork, step: int, factor: float = 1.0) -> dict[str, Tensor]:
    def losses(batch: Tensor) -> dict[str, Tensor]:
        return {"g/total": trainable.wrapped(batch).square().mean() * factor}

    return trainable.update([images(step)], losses, "g/total", weight=1.0, rate=0.01, step=step)


def weights(trainable: TrainableNetwork) -> Tensor:
    return torch.cat([value.detach().flatten() for value in trainable.network.parameters()])


def test_fused_channels_last_is_plain_adam(runtime: Runtime) -> None:
    trainable = make(runtime, FiniteGuard(runtime))
    torch.manual_seed(1)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(), nn.Conv2d(8, 3, 3))
    adam = torch.optim.Adam(plain.parameters(), lr=0.01, betas=(0.9, 0.99), foreach=False, fused=False)
    for step in range(1, 6):
        update(trainable, step)
        adam.zero_grad()
        plain(images(step).contiguous()).square().mean().backward()
        adam.step()
    expected = torch.cat([value.detach().flatten() for value in plain.parameters()])
    torch.testing.assert_close(weights(trainable), expected, atol=1e-6, rtol=1e-5)


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
    for trainable in (whole, resumed):
        update(trainable, 3)
    assert torch.equal(weights(whole), weights(resumed))


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_moves_nothing(runtime: Runtime, factor: float) -> None:
    guard = FiniteGuard(runtime)
    generator, discriminator = make(runtime, guard), make(runtime, guard, "d")
    update(generator, 1)
    assert guard.first_fault() is None
    before, other = weights(generator).clone(), weights(discriminator).clone()
    update(generator, 2, factor)
    update(discriminator, 2)  # finite, but the run is over
    update(generator, 3)
    assert torch.equal(weights(generator), before)
    assert torch.equal(weights(discriminator), other)
    assert guard.first_fault() == (2, ["g/total"])
    state = generator.optimizer_state()["state"]
    assert all(values["step"].item() == 1 and values["exp_avg"].isfinite().all() for values in state.values())


def test_an_infinite_loss_with_a_finite_gradient_is_one_too(runtime: Runtime) -> None:
    guard = FiniteGuard(runtime)
    trainable = make(runtime, guard)
    before = weights(trainable).clone()

    def losses(batch: Tensor) -> dict[str, Tensor]:
        return {"g/pixel": trainable.wrapped(batch).mean() + torch.tensor(float("inf"))}

    trainable.update([images(1)], losses, "g/pixel", weight=1.0, rate=0.01, step=1)
    assert torch.equal(weights(trainable), before)
    assert guard.first_fault() == (1, ["g/pixel"])


def test_clipping_is_torchs() -> None:
    parameters = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2))]
    for parameter, values in zip(parameters, ([3.0, 0.0, 0.0], [0.0, 4.0]), strict=True):
        parameter.grad = torch.tensor(values)
    assert grad_norm(parameters, clip=None).item() == 5.0
    assert grad_norm(parameters, clip=1.0).item() == 5.0
    assert grad_norm(parameters, clip=None).item() == pytest.approx(1.0, abs=1e-5)


def test_frozen_lets_gradients_through_but_not_in(runtime: Runtime) -> None:
    trainable = make(runtime, FiniteGuard(runtime))
    batch, same = images(1).requires_grad_(True), images(1).requires_grad_(True)
    with trainable.frozen() as network:
        network(batch).sum().backward()
    assert all(parameter.grad is None for parameter in trainable.network.parameters())
    trainable.network(same).sum().backward()
    assert batch.grad is not None
    assert same.grad is not None
    assert torch.equal(batch.grad, same.grad)
    trainable.network.zero_grad()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in trainable.network.parameters())


def scaled(runtime: Runtime, guard: FiniteGuard, name: str = "g") -> TrainableNetwork:
    """A trainable with a loss scale, as in fp16."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(), nn.Conv2d(8, 3, 3))
    scale = LossScale(runtime.device)
    return TrainableNetwork(
        network,
        runtime=runtime,
        guard=guard,
        name=name,
        betas=(0.9, 0.99),
        weight_decay=0.0,
        clip=0.5,
        loss_scale=scale,
    )


def overflow(trainable: TrainableNetwork) -> None:
    """What fp16 does to a large gradient: the loss is finite, its gradient is not."""

    def spoil(gradient: Tensor) -> Tensor:
        return gradient * float("inf")

    handle = next(trainable.network.parameters()).register_hook(spoil)
    update(trainable, 1)
    handle.remove()


def test_a_scaled_update_is_the_plain_one(runtime: Runtime) -> None:
    plain, trainable = make(runtime, FiniteGuard(runtime), clip=0.5), scaled(runtime, FiniteGuard(runtime))
    for step in range(1, 5):
        norm, other = (update(one, step)["grad_norm/g"] for one in (plain, trainable))
        torch.testing.assert_close(norm, other)
    torch.testing.assert_close(weights(trainable), weights(plain), atol=1e-6, rtol=1e-5)


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
    update(discriminator, 1)  # finite, but the run is over
    assert torch.equal(weights(discriminator), before)


def test_the_loss_scale_grows_and_is_resumed(runtime: Runtime) -> None:
    trainable = scaled(runtime, FiniteGuard(runtime))
    assert trainable.loss_scale
    overflow(trainable)
    no = torch.tensor(False)
    for _ in range(LossScale.PATIENCE - 1):
        trainable.loss_scale.update(no)
    state = copy.deepcopy(trainable.optimizer_state())
    resumed = scaled(runtime, FiniteGuard(runtime))
    resumed.load_optimizer_state(state)
    assert resumed.loss_scale
    for one in (trainable.loss_scale, resumed.loss_scale):
        assert one.scale.item() == LossScale.START / 2
        one.update(no)
        assert one.scale.item() == LossScale.START
