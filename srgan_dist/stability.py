"""Keeping the game between the networks alive: when the discriminator learns, and what tells a collapse."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from srgan_dist import losses
from srgan_dist.errors import Failure
from srgan_dist.runtime import Runtime

log = logging.getLogger("srgan_dist")

Response = Literal["warn", "pause_d", "rollback", "stop"]

SMOOTHING = 0.9  # of D's accuracy: about the last ten generator updates
MOST_ROLLBACKS = 3
SATURATED = 0.02  # five of 255 levels beyond [0, 1]: next to white and black a good network overshoots by less


class Collapsed(Failure):
    """The GAN collapsed, and what was to be done about it was to stop."""

    on_every_rank = True


class Pace:
    """When the discriminator learns.

    With a fixed n, at every n-th generator update. Without one, within a band of its accuracy on generated images: it
    pauses above the band, and below the band it learns again, at every step.

    Args:
        g_per_d: n of n:1, or None to keep to the band.
        warmup: Steps at the start of the adversarial phase at which it learns in any case.
        band: Low and high end, shares in [0, 1] of the smoothed accuracy.
        runtime: The ranks, which decide alike: the accuracy is the mean over them.

    Attributes:
        paused: Whether the discriminator waits for the generator.
    """

    def __init__(self, *, g_per_d: int | None, warmup: int, band: tuple[float, float], runtime: Runtime) -> None:
        self.g_per_d, self.warmup, self.runtime = g_per_d, warmup, runtime
        self.low, self.high = band
        self.paused = False
        self._accuracy: float | None = None
        self._coming: Callable[[], float] | None = None

    def lets_learn(self, step: int, fooled: Callable[[], Tensor]) -> bool:
        """Decide about one step, from what is known of the steps before: nothing here waits for the device.

        Args:
            step: Number of the generator update in the adversarial phase, from 1.
            fooled: Gives the share of this rank's generated images that the discriminator just got wrong.
        """
        self._settle()
        if self.g_per_d is None or self.paused:
            accuracy = 1 - self.runtime.mean_over_ranks(fooled())
            self._coming = self.runtime.read_later(accuracy)
        if step <= self.warmup:
            return True
        return not self.paused and (self.g_per_d is None or step % self.g_per_d == 0)

    def pause(self) -> None:
        """Let the discriminator wait until its accuracy, from now on, has fallen below the band."""
        self.paused, self._accuracy = True, 1.0

    def _settle(self) -> None:
        if self._coming is None:
            return
        value, self._coming = self._coming(), None
        before = value if self._accuracy is None else self._accuracy
        self._accuracy = SMOOTHING * before + (1 - SMOOTHING) * value
        if self.g_per_d is None and self._accuracy > self.high:
            self.paused = True
        elif self._accuracy < self.low:
            self.paused = False

    def state(self) -> dict[str, Any]:
        """What it goes on from, for JSON."""
        self._settle()
        return {"accuracy": self._accuracy, "paused": self.paused}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self._accuracy, self.paused = state["accuracy"], state["paused"]

    def __str__(self) -> str:
        if self.g_per_d is None:
            return f"D learns while its accuracy is within {self.low:g} to {self.high:g}"
        return f"{self.g_per_d}:1"


@dataclass(frozen=True)
class Limits:
    """What a healthy GAN stays within; None is not looked at.

    Attributes:
        d_accuracy: Most that the discriminator is right on real *and* on generated images, a share.
        grad_ratio: Least and greatest ratio of the gradients' norms, discriminator to generator.
        saturated: Most of the generated values outside of the image range, a share.
        psnr_drop: Most that PSNR is below its best, in dB.
    """

    d_accuracy: float | None
    grad_ratio: tuple[float, float] | None
    saturated: float | None
    psnr_drop: float | None


class CollapseMonitor:
    """Tells a collapse from the records of metrics, which are equal on all ranks.

    Args:
        limits: What is healthy.
        patience: Records in a row outside of them that make a collapse. PSNR's best is one that was held for as many.
        start: Steps before the generator hears of the discriminator; only PSNR's best is learnt from them.
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
        if "g/psnr" in record:
            self._recent = [*self._recent, record["g/psnr"]][-self.patience :]
            if len(self._recent) == self.patience:
                self.best = max(min(self._recent), self.best or 0.0)

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
        if limits.psnr_drop is not None and self.best is not None and "g/psnr" in record:
            psnr = record["g/psnr"]
            if psnr < self.best - limits.psnr_drop:
                yield f"PSNR is {psnr:.2f} dB, {self.best - psnr:.2f} below its best (limit {limits.psnr_drop:g})"

    def begin_again(self) -> None:
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


class Stability:
    """When the discriminator learns, and what follows from a collapse.

    Args:
        pace: When it learns.
        monitor: Tells a collapse.
        response: ``warn``: only tell it, as the others do too; ``pause_d``: the discriminator waits until its accuracy
            has fallen below the band; ``rollback``: go on from the newest checkpoint from before the collapse, with
            half the discriminator's learning rate; ``stop``: end the run.
        is_main: Whether this rank is the one that tells.

    Attributes:
        d_rate: Factor on the discriminator's learning rate.
    """

    def __init__(self, *, pace: Pace, monitor: CollapseMonitor, response: Response, is_main: bool) -> None:
        self.pace, self.monitor, self.response, self.is_main = pace, monitor, response, is_main
        self.rollbacks, self.d_rate = 0, 1.0
        self._reason: str | None = None

    def look(self, step: int, record: Mapping[str, Any]) -> dict[str, Any]:
        """Look at a record of metrics, equal on all ranks.

        Args:
            step: Its step.
            record: Numbers by logged name.

        Returns:
            What the record should say besides: the ratio of the gradients' norms, and the alert at a collapse.
        """
        more: dict[str, Any] = {}
        if record.get("grad_norm/g") and "grad_norm/d" in record:
            more["grad_norm/ratio"] = record["grad_norm/d"] / record["grad_norm/g"]
        was_collapsed = self.monitor.is_collapsed
        self._reason = self.monitor.look(step, {**record, **more})
        if self._reason:
            more["alert"] = self._reason
            self._tell("step %d: %s", step, self._reason)
        elif was_collapsed and not self.monitor.is_collapsed:
            self._tell("step %d: the GAN has recovered", step)
        return more

    def respond(self, step: int, rewind: Callable[[int], Path | None]) -> None:
        """Do what is to be done where a collapse was just found; else nothing. Equal on all ranks.

        Args:
            step: The training step.
            rewind: Takes weights, optimizers and average from the newest checkpoint of an earlier step than the given
                one and returns it, or returns None where there is none.

        Raises:
            Collapsed: The run ends here; checkpoints are as they were.
        """
        reason, self._reason = self._reason, None
        if reason is None or self.response == "warn":
            return
        if self.response == "pause_d":
            self.pace.pause()
            self._tell("step %d: D waits until its accuracy is below %g", step, self.pace.low)
            return
        since = self.monitor.since or step
        how = f"go on from a checkpoint of before step {since} by run.resume=PATH, with a weaker discriminator"
        if self.response == "stop":
            raise Collapsed(f"step {step}: {reason}; stopped as by stability.on_collapse: {how}")
        if self.rollbacks == MOST_ROLLBACKS:
            raise Collapsed(f"step {step}: {reason}; stopped after {MOST_ROLLBACKS} rollbacks: {how}")
        source = rewind(since)
        if source is None:
            raise Collapsed(f"step {step}: {reason}; no checkpoint of before step {since} to go back to: {how}")
        self.rollbacks += 1
        self.d_rate /= 2
        self.monitor.begin_again()
        self._tell(
            "step %d: weights and optimizers are those of %s again, D's learning rate is %g of what it was",
            step,
            source,
            self.d_rate,
        )

    def _tell(self, message: str, *values: object) -> None:
        if self.is_main:
            log.warning(message, *values)

    def state(self) -> dict[str, Any]:
        """What it goes on from, for JSON."""
        return {
            "pace": self.pace.state(),
            "monitor": self.monitor.state(),
            "rollbacks": self.rollbacks,
            "d_rate": self.d_rate,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.pace.load(state["pace"])
        self.monitor.load(state["monitor"])
        self.rollbacks, self.d_rate = state["rollbacks"], state["d_rate"]


def quality(generated: Sequence[Tensor], targets: Sequence[Tensor]) -> dict[str, Tensor]:
    """How good a window's images are; nothing here waits for the device.

    Args:
        generated: [N, 3, H, W] each, one a micro-batch.
        targets: Like ``generated``, in [0, 1].

    Returns:
        Scalars: ``g/psnr``, the mean over images of the PSNR on RGB in dB (at most 100), and ``g/saturated``, the
        share of values that are more than `SATURATED` outside of [0, 1].
    """
    psnr, saturated = [], []
    for sr, hr in zip(map(losses.full, generated), map(losses.full, targets), strict=True):
        error = (sr.clamp(0, 1) - hr).square().mean(dim=(1, 2, 3))
        psnr.append(-10 * error.clamp(min=1e-10).log10())
        saturated.append(((sr < -SATURATED) | (sr > 1 + SATURATED)).float().mean(dim=(1, 2, 3)))
    return {"g/psnr": torch.cat(psnr).mean(), "g/saturated": torch.cat(saturated).mean()}
