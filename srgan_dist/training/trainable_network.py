"""A network with its optimizer, and the guard that stops updates once a loss is not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from srgan_dist.checkpointing.tensors import UnusableTensors, check_tensor
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.errors import Failure

Part = TypeVar("Part")

MOMENTS = {"step", "exp_avg", "exp_avg_sq"}
"""What AdamW keeps for each parameter."""


class NonFiniteLoss(Failure):
    """A loss was infinite or NaN; no weights have changed since."""

    on_every_rank = True


class FiniteGuard:
    """Records on the device which loss first was not finite, and disables every optimizer from then on.

    Nothing here waits for the device except `first_fault`. A rank whose loss is not finite makes its gradient
    NaN (see `TrainableNetwork._backward`) and DDP's averaging propagates that to every rank, so that all ranks decide
    alike without an additional collective.

    Args:
        runtime: The ranks and the device.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.tripped = torch.zeros((), dtype=torch.float32, device=runtime.device)
        self._first: dict[tuple[str, ...], Tensor] = {}

    def watch(self, step: int, values: Mapping[str, Tensor], *, broken: Tensor) -> None:
        """Check the values of an update before its optimizer changes the weights.

        Args:
            step: The training step.
            values: Scalars by logged name.
            broken: Whether the run must end; a boolean scalar on the device, equal on all ranks.
        """
        names = tuple(values)
        bad = ~torch.stack([value.detach().float() for value in values.values()]).isfinite()
        first = self._first.setdefault(names, torch.zeros(len(names), dtype=torch.int64, device=bad.device))
        first.add_((bad & broken & (first == 0) & (self.tripped == 0)) * step)
        torch.maximum(self.tripped, broken.float(), out=self.tripped)

    def first_fault(self) -> tuple[int, list[str]] | None:
        """The step at which values first were not finite on any rank, and their names; None if there was no such step.

        Synchronises with the device. All ranks must call it, as it is a collective after a fault.
        """
        if not self.tripped.item():
            return None
        found: dict[int, list[str]] = {}
        for names, first in self._first.items():
            per_rank = self.runtime.gather(first)
            for column, name in enumerate(names):
                steps = [int(row[column]) for row in per_rank if row[column] > 0]
                if steps:
                    found.setdefault(min(steps), []).append(name)
        step = min(found)
        # The most specific of the values at that step: a term, else the sum, else the gradient.
        sums = [name for name in found[step] if not name.startswith("grad_norm")]
        return step, [name for name in sums if name != "g/total"] or sums or found[step]

    def stop_if_tripped(self) -> None:
        """Stop the run, on all ranks together, if a value was not finite.

        Raises:
            NonFiniteLoss: Names the step and the term.
        """
        fault = self.first_fault()
        if fault:
            step, terms = fault
            raise NonFiniteLoss(
                f"step {step}: {', '.join(terms)} is not finite; no optimizer has moved since. "
                "Lower the learning rate, set train.clip_grad_norm, or use train.precision=fp32"
            )


class LossScale:
    """The loss scale of one network in fp16, kept on the device.

    It is halved when a gradient overflows and doubled after 2,000 updates without an overflow. Each network has its
    own, so that an overflow of one never delays the other.

    Args:
        device: The network's device.

    Source:
        Micikevicius et al. 2018, section 3.2.
    """

    START, PATIENCE = 2.0**16, 2000

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.full((), self.START, device=device)
        self.good = torch.zeros((), dtype=torch.int64, device=device)

    @property
    def is_exhausted(self) -> Tensor:
        """Whether the scale is below 1: an overflow is then not due to the scale."""
        return self.scale < 1

    def unscale(self, gradients: list[Tensor]) -> None:
        """Divide gradients by the scale, in place."""
        torch._foreach_mul_(gradients, self.scale.reciprocal())

    def update(self, overflow: Tensor) -> None:
        """Adapt to one update's gradients.

        Args:
            overflow: Whether they were not finite; a boolean scalar on the device, equal on all ranks.
        """
        good = torch.where(overflow, 0, self.good + 1)
        grows = good == self.PATIENCE
        self.scale.mul_(torch.where(overflow, 0.5, torch.where(grows, 2.0, 1.0)))
        self.good.copy_(torch.where(grows, 0, good))

    def state(self) -> dict[str, Tensor]:
        """The state that a resumed run restores."""
        return {"scale": self.scale, "good": self.good}

    def check(self, state: object) -> None:
        """Compare a `state` from a file with this one.

        Raises:
            UnusableTensors: It is no state of a loss scale.
        """
        if not isinstance(state, Mapping):
            raise UnusableTensors("loss_scale is no state of one")
        for name, like in self.state().items():
            check_tensor(f"loss_scale.{name}", state.get(name), like)
            if state[name].lt(0):
                raise UnusableTensors(f"loss_scale.{name} is negative")

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore a `state`."""
        self.scale.copy_(state["scale"])
        self.good.copy_(state["good"])


class TrainableNetwork:
    """A network, its wrapper for distributed training, and its AdamW optimizer.

    Args:
        network: The network; it is moved to the device.
        runtime: Prepares network and optimizer.
        guard: Disables the optimizer after a fault.
        name: ``g`` or ``d``, for the names of metrics.
        betas: AdamW's decay rates of the moments.
        weight_decay: AdamW's decoupled weight decay.
        clip: Largest L2 norm of the gradient, or None to leave it as it is.
        loss_scale: Loss scale for fp16, or None.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        runtime: Runtime,
        guard: FiniteGuard,
        name: str,
        betas: tuple[float, float],
        weight_decay: float,
        clip: float | None,
        loss_scale: LossScale | None = None,
    ) -> None:
        self.network = runtime.place(network)
        self.runtime, self.guard, self.name, self.clip, self.loss_scale = runtime, guard, name, clip, loss_scale
        # Fused: one kernel, which evaluates `found_inf` on the device.
        optimizer = AdamW(self.network.parameters(), lr=0.0, betas=betas, weight_decay=weight_decay, fused=True)
        self._held = torch.zeros((), device=runtime.device, dtype=torch.float32)
        optimizer.found_inf = self._held  # type: ignore[attr-defined]
        self._adamw = optimizer
        self.wrapped: nn.Module
        self.optimizer: Optimizer
        self.wrapped, self.optimizer = runtime.prepare(self.network, optimizer)

    def build_ddp_buckets(self, example: Tensor) -> None:
        """Make DDP arrange its gradient buckets now, by a backward pass that changes nothing.

        By itself, DDP rearranges them after the first update of every process. The position of a gradient in its bucket
        determines the order in which more than two ranks sum it, and a resumed run must round as if it had never been
        interrupted.

        Args:
            example: An input of the network.
        """
        if self.runtime.world_size == 1:
            return
        self.network.eval()  # no buffer changes
        (self.wrapped(example).sum() * 0).backward()
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)

    def update(
        self,
        parts: Sequence[Part],
        losses: Callable[[Part], dict[str, Tensor]],
        minimised: str,
        *,
        weight: float,
        rate: float,
        step: int,
    ) -> dict[str, Tensor]:
        """Update the weights on a global batch: accumulate the gradients of its parts, then run the optimizer.

        Args:
            parts: The inputs of the passes through the network, processed in order.
            losses: Returns a part's scalars by logged name, each a mean over the part.
            minimised: The name of the scalar to minimise.
            weight: Weight of each part in the mean over the batch.
            rate: Learning rate.
            step: The training step.

        Returns:
            For each scalar its weighted sum over the parts, and the norm of the gradient before clipping.
        """
        self.optimizer.zero_grad(set_to_none=True)
        for group in self._adamw.param_groups:
            group["lr"] = rate
        means: dict[str, Tensor] = {}
        for number, part in enumerate(parts, start=1):
            last = number == len(parts)
            # Gradients are averaged over the ranks once, in the last backward pass.
            with self.runtime.accumulating(self.wrapped, sync=last):
                terms = losses(part)
                self._backward(terms[minimised], weight=weight, last=last)
            for name, value in terms.items():
                mean = value.detach() * weight
                means[name] = means[name] + mean if name in means else mean
        return self.move(step, means)

    @contextmanager
    def frozen(self) -> Iterator[nn.Module]:
        """Freeze the network: gradients flow through it, but none are computed for its parameters."""
        self.network.requires_grad_(False)
        try:
            yield self.network
        finally:
            self.network.requires_grad_(True)

    def _backward(self, loss: Tensor, *, weight: float, last: bool) -> None:
        """Accumulate the gradient of one part.

        Args:
            loss: Scalar, the mean over the part.
            weight: The part's weight in the mean over the batch.
            last: Whether the gradients are averaged over the ranks in this pass.

        Raises:
            OutOfMemory: Another rank ran out of memory and will not take part in the averaging.
        """
        if last:
            self.runtime.check_room()
        # Times 1 where the loss is finite and NaN where it is not, since an infinite loss can have a finite gradient.
        loss = loss * (1 + 0 * loss.detach()) * weight
        self.runtime.backward(loss * self.loss_scale.scale if self.loss_scale else loss)

    def move(self, step: int, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the optimizer, unless the gradient overflowed or any value so far was not finite.

        Args:
            step: The training step.
            terms: The batch's losses by logged name.

        Returns:
            ``terms`` and the norm of the gradient before clipping.
        """
        parameters = list(self.network.parameters())
        if self.loss_scale:
            self.loss_scale.unscale([parameter.grad for parameter in parameters if parameter.grad is not None])
        norm = grad_norm(parameters, clip=self.clip)
        broken = overflow = ~norm.isfinite()
        stats = {**terms, f"grad_norm/{self.name}": norm}
        if self.loss_scale:
            broken = overflow & self.loss_scale.is_exhausted
            self.loss_scale.update(overflow)
            stats[f"loss_scale/{self.name}"] = self.loss_scale.scale.clone()
        self.guard.watch(step, stats, broken=broken)
        # In place, since the fused optimizer holds this very tensor.
        torch.maximum(self.guard.tripped, overflow.float(), out=self._held)
        self.optimizer.step()
        return stats

    def optimizer_state(self) -> dict[str, Any]:
        """AdamW's state, and the loss scale's."""
        state: dict[str, Any] = self._adamw.state_dict()
        return state | {"loss_scale": self.loss_scale.state()} if self.loss_scale else state

    def check_optimizer_state(self, state: object) -> None:
        """Compare an `optimizer_state` from a file with the parameters.

        Raises:
            UnusableTensors: A value is missing, or not of its parameter's shape and dtype, or out of its range.
        """
        if not (isinstance(state, Mapping) and isinstance(state.get("state"), Mapping)):
            raise UnusableTensors("no state of an optimizer")
        named = dict(enumerate(self.network.named_parameters()))
        for index, values in state["state"].items():
            if index not in named or not isinstance(values, Mapping) or values.keys() != MOMENTS:
                raise UnusableTensors(f"the state of parameter {index!r:.20} is not AdamW's of this network")
            _check_moments(values, *named[index])
        if self.loss_scale and state.get("loss_scale"):
            self.loss_scale.check(state["loss_scale"])

    def load_optimizer_state(self, state: Mapping[str, Any]) -> None:
        """Restore an `optimizer_state` that was checked."""
        if self.loss_scale and state.get("loss_scale"):  # only present if the run was in fp16
            self.loss_scale.load(state["loss_scale"])
        # The current configuration decides on the options, not that of the checkpoint.
        options = self._adamw.state_dict()["param_groups"]
        self._adamw.load_state_dict({"state": state["state"], "param_groups": options})
        for parameter, values in self._adamw.state.items():
            for key, value in values.items():
                if value.shape == parameter.shape:
                    # The fused kernels traverse weights and moments in memory order, so both must have the same layout.
                    values[key] = torch.empty_like(parameter).copy_(value.detach())


def _check_moments(values: Mapping[str, object], name: str, parameter: Tensor) -> None:
    """Compare AdamW's state of one parameter with it: the fused kernel trusts shapes and dtypes, and would not look."""
    for moment in ("exp_avg", "exp_avg_sq"):
        check_tensor(f"{moment} of {name}", values[moment], parameter)
    squared, step = values["exp_avg_sq"], values["step"]
    if cast("Tensor", squared).lt(0).any():
        raise UnusableTensors(f"exp_avg_sq of {name} is negative")
    check_tensor(f"step of {name}", step, torch.zeros((), dtype=torch.float32))
    if (count := cast("Tensor", step).item()) < 0 or count % 1:
        raise UnusableTensors(f"step of {name} is {count:g}, and must be a count")


def grad_norm(parameters: Iterable[Tensor], *, clip: float | None) -> Tensor:
    """Compute the global L2 norm of the gradients, and clip them if ``clip`` is given, without a host synchronisation.

    Args:
        parameters: Parameters; those without a gradient are skipped.
        clip: Largest norm, or None.

    Returns:
        The norm before clipping, a scalar on the device.

    Source:
        Pascanu et al. 2013, algorithm 1.
    """
    parameters = list(parameters)
    if clip is not None:
        return nn.utils.clip_grad_norm_(parameters, clip, foreach=True)
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return nn.utils.get_total_norm(grads, foreach=True)
