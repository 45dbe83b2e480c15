"""How a collapse of the GAN is detected, and what follows from one."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from srgan_dist.data.loading.loader import Patches
from srgan_dist.errors import Failure
from srgan_dist.imaging.resize import upscale_bicubic_tensor
from srgan_dist.losses import functional as losses
from srgan_dist.training.discriminator_schedule import DiscriminatorSchedule

log = logging.getLogger("srgan_dist")

Action = Literal["warn", "pause_d", "rollback", "stop"]

MOST_ROLLBACKS = 3
_SATURATED = 0.52  # from the middle of [0, 1]: 5 of 255 levels beyond its ends, which good networks overshoot by less


class Collapsed(Failure):
    """The GAN collapsed, and what was to be done about it was to stop."""

    on_every_rank = True


@dataclass(frozen=True)
class Limits:
    """What a healthy GAN stays within; None is not looked at.

    Attributes:
        d_accuracy: Most that the discriminator is right on real *and* on generated images, a share.
        grad_ratio: Least and greatest ratio of the gradients' norms, discriminator to generator.
        saturated: Most of the generated values outside of the image range, a share.
        psnr_drop: Most that PSNR's gain over bicubic is below its best, in dB: that of a window alone says more about
            its photographs than about the generator.
    """

    d_accuracy: float | None
    grad_ratio: tuple[float, float] | None
    saturated: float | None
    psnr_drop: float | None


class CollapseMonitor:
    """Tells a collapse from the records of metrics, which are equal on all ranks.

    Args:
        limits: What is healthy.
        patience: Records in a row outside of them that make a collapse. The best gain is one that was held for as many.
        start: Steps before the generator hears of the discriminator; only the best gain is learnt from them.
    """

    def __init__(self, limits: Limits, *, patience: int, start: int) -> None:
        self.limits, self.patience, self.start = limits, patience, start
        self.best: float | None = None
        self.is_collapsed = False
        self.since: int | None = None
        self._recent: list[float] = []
        self._bad = 0

    def look(self, step: int, record: Mapping[str, Any]) -> str | None:
        """Look at one record.

        Args:
            step: Its step.
            record: Numbers by logged name.

        Returns:
            What is wrong, in one line with the numbers, at the record that makes it a collapse; else None.
        """
        self._learn(record)
        faults = list(self._faults(record)) if step > self.start else []
        if not faults:
            self._bad, self.since, self.is_collapsed = 0, None, False
            return None
        self._bad += 1
        self.since = self.since or step
        if self._bad < self.patience or self.is_collapsed:
            return None
        self.is_collapsed = True
        return f"the GAN collapses since step {self.since}: {'; '.join(faults)}"

    def _learn(self, record: Mapping[str, Any]) -> None:
        if "g/psnr_gain" in record:
            self._recent = [*self._recent, record["g/psnr_gain"]][-self.patience :]
            if len(self._recent) == self.patience:
                held = min(self._recent)
                self.best = held if self.best is None else max(held, self.best)

    def _faults(self, record: Mapping[str, Any]) -> Iterable[str]:
        limits = self.limits
        real, fake = record.get("d/real_accuracy", 0.0), record.get("d/fake_accuracy", 0.0)
        if limits.d_accuracy is not None and min(real, fake) > limits.d_accuracy:
            yield f"D is right on {real:.3f} of real and {fake:.3f} of generated images (limit {limits.d_accuracy:g})"
        ratio = record.get("grad_norm/ratio")
        if limits.grad_ratio and ratio is not None and not limits.grad_ratio[0] <= ratio <= limits.grad_ratio[1]:
            low, high = limits.grad_ratio
            yield f"D's gradient is {ratio:.3g} times as large as G's (limits {low:g} and {high:g})"
        saturated = record.get("g/saturated", 0.0)
        if limits.saturated is not None and saturated > limits.saturated:
            yield f"{saturated:.3f} of G's values are outside of the image range (limit {limits.saturated:g})"
        gain = record.get("g/psnr_gain")
        if limits.psnr_drop is not None and self.best is not None and gain is not None:
            drop = self.best - gain
            if drop > limits.psnr_drop:
                told = f"PSNR is {gain:+.2f} dB beside bicubic's, {drop:.2f} below its best"
                yield f"{told} (limit {limits.psnr_drop:g})"

    def start_over(self) -> None:
        """Forget the collapse: the weights are those of before."""
        self._recent, self._bad, self.since, self.is_collapsed = [], 0, None, False

    def state(self) -> dict[str, Any]:
        """What it goes on from, for JSON."""
        return {
            "best": self.best,
            "is_collapsed": self.is_collapsed,
            "since": self.since,
            "recent": self._recent,
            "bad": self._bad,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.best, self.is_collapsed, self.since = state["best"], state["is_collapsed"], state["since"]
        self._recent, self._bad = state["recent"], state["bad"]


class CollapseResponse:
    """What follows from a collapse.

    Args:
        schedule: When the discriminator is updated.
        monitor: Detects a collapse.
        action: ``warn``: only report it, as the others do too; ``pause_d``: the discriminator waits until its accuracy
            is below the band; ``rollback``: continue from the newest checkpoint from before the collapse, with
            half the discriminator's learning rate; ``stop``: end the run.
        is_main: Whether this rank is the one that logs.

    Attributes:
        d_rate: Factor on the discriminator's learning rate.
    """

    def __init__(
        self, *, schedule: DiscriminatorSchedule, monitor: CollapseMonitor, action: Action, is_main: bool
    ) -> None:
        self.schedule, self.monitor, self.action, self.is_main = schedule, monitor, action, is_main
        self.rollbacks, self.d_rate = 0, 1.0
        self._reason: str | None = None

    def look(self, step: int, record: Mapping[str, Any]) -> dict[str, Any]:
        """Look at a record of metrics, equal on all ranks.

        Args:
            step: Its step.
            record: Numbers by logged name.

        Returns:
            The record with what is `derived` from it and, at the record that makes it a collapse, with ``alert``: why.
        """
        record = derived(record)
        was_collapsed = self.monitor.is_collapsed
        self._reason = self.monitor.look(step, record)
        if self._reason:
            self._warn("step %d: %s", step, self._reason)
            return record | {"alert": self._reason}
        if was_collapsed and not self.monitor.is_collapsed:
            self._warn("step %d: the GAN has recovered", step)
        return record

    def respond(self, step: int, roll_back: Callable[[int], Path | None]) -> None:
        """Do what is to be done where a collapse was just found; else nothing. Equal on all ranks.

        Args:
            step: The training step.
            roll_back: Takes weights, optimizers and average from the newest checkpoint of an earlier step than the
                given one and returns it, or returns None where there is none.

        Raises:
            Collapsed: The run ends here; checkpoints are as they were.
        """
        reason, self._reason = self._reason, None
        if reason is None or self.action == "warn":
            return
        if self.action == "pause_d":
            self.schedule.pause()
            self._warn("step %d: D waits until its accuracy is below %g", step, self.schedule.low)
            return
        since = self.monitor.since or step
        how = f"go on from a checkpoint of before step {since} by run.resume=PATH, with a weaker discriminator"
        if self.action == "stop":
            raise Collapsed(f"step {step}: {reason}; stopped as by stability.on_collapse: {how}")
        if self.rollbacks == MOST_ROLLBACKS:
            raise Collapsed(f"step {step}: {reason}; stopped after {MOST_ROLLBACKS} rollbacks: {how}")
        source = roll_back(since)
        if source is None:
            raise Collapsed(f"step {step}: {reason}; no checkpoint of before step {since} to go back to: {how}")
        self.rollbacks += 1
        self.d_rate /= 2
        self.monitor.start_over()
        self._warn(
            "step %d: weights and optimizers are those of %s again, D's learning rate is %g of what it was",
            step,
            source,
            self.d_rate,
        )

    def _warn(self, message: str, *values: object) -> None:
        if self.is_main:
            log.warning(message, *values)

    def state(self) -> dict[str, Any]:
        """What it goes on from, for JSON."""
        return {
            "pace": self.schedule.state(),
            "monitor": self.monitor.state(),
            "rollbacks": self.rollbacks,
            "d_rate": self.d_rate,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.schedule.load(state["pace"])
        self.monitor.load(state["monitor"])
        self.rollbacks, self.d_rate = state["rollbacks"], state["d_rate"]


def batch_quality(generated: Sequence[Tensor], window: Sequence[Patches]) -> dict[str, Tensor]:
    """How good a window's images are; nothing here waits for the device.

    Args:
        generated: [N, 3, H, W] each, one a micro-batch.
        window: The micro-batches.

    Returns:
        Means over the images: ``g/mse`` and ``g/mse_bicubic``, the squared errors of the images and of bicubic
        enlargements, both clamped to [0, 1]; ``g/saturated``, the share of values that are more than 5 of 255
        levels outside of [0, 1].
    """
    columns = []
    for sr, pair in zip(map(losses.full, generated), window, strict=True):
        hr, scale = losses.full(pair.hr), pair.hr.shape[-1] // pair.lr.shape[-1]
        bicubic = upscale_bicubic_tensor(losses.full(pair.lr), scale)
        values = ((sr.clamp(0, 1) - hr).square(), (bicubic.clamp(0, 1) - hr).square(), (sr - 0.5).abs() > _SATURATED)
        columns.append(torch.stack([value.to(sr.dtype).mean(dim=(1, 2, 3)) for value in values]))
    return dict(zip(("g/mse", "g/mse_bicubic", "g/saturated"), torch.cat(columns, dim=1).mean(dim=1), strict=True))


def derived(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of metrics with what follows from its numbers.

    Args:
        record: Numbers by logged name.

    Returns:
        The record with, instead of the squared errors, ``g/psnr`` on RGB in dB (at most 100) and ``g/psnr_gain``, how
        far it is above bicubic's; and with ``grad_norm/ratio``, discriminator to generator.
    """
    record = dict(record)
    if "g/mse" in record:
        psnr, bicubic = (-10 * math.log10(max(record.pop(name), 1e-10)) for name in ("g/mse", "g/mse_bicubic"))
        record |= {"g/psnr": psnr, "g/psnr_gain": psnr - bicubic}
    if record.get("grad_norm/g") and "grad_norm/d" in record:
        record["grad_norm/ratio"] = record["grad_norm/d"] / record["grad_norm/g"]
    return record
