"""Detects a collapse of the GAN and responds to it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from srgan_dist.errors import Failure
from srgan_dist.training.discriminator_schedule import DiscriminatorSchedule

log = logging.getLogger("srgan_dist")

Action = Literal["warn", "pause_d", "rollback", "stop"]

MOST_ROLLBACKS = 3


class Collapsed(Failure):
    """The GAN collapsed, and the configured response was to stop, or no rollback was possible."""

    on_every_rank = True


@dataclass(frozen=True)
class Limits:
    """The limits of a healthy GAN; None disables a check.

    Attributes:
        d_accuracy: Largest accuracy of the discriminator on real *and* on generated images, a fraction.
        grad_ratio: Least and greatest ratio of the gradients' norms, discriminator to generator.
        saturated: Largest fraction of generated values outside of the image range.
        psnr_drop: Largest drop of PSNR's gain over bicubic below its best, in dB. (PSNR itself says more about the
            photographs of a batch than about the generator.)
    """

    d_accuracy: float | None
    grad_ratio: tuple[float, float] | None
    saturated: float | None
    psnr_drop: float | None


class CollapseMonitor:
    """Detects a collapse in the records of metrics, which are equal on all ranks.

    Args:
        limits: The limits of a healthy GAN.
        patience: Number of consecutive records outside of the limits that make a collapse. A gain counts as the best if
            it was held for as many records.
        start: Steps before the discriminator influences the generator; they only contribute to the best gain.
    """

    def __init__(self, limits: Limits, *, patience: int, start: int) -> None:
        self.limits, self.patience, self.start = limits, patience, start
        self.best: float | None = None
        self.is_collapsed = False
        self.since: int | None = None
        self._recent: list[float] = []
        self._bad = 0

    def observe(self, step: int, record: Mapping[str, Any]) -> str | None:
        """Check one record.

        Args:
            step: The step of the record.
            record: Numbers by logged name.

        Returns:
            One line with the numbers at the record that makes it a collapse, else None.
        """
        self._update_best(record)
        faults = list(self._faults(record)) if step > self.start else []
        if not faults:
            self._bad, self.since, self.is_collapsed = 0, None, False
            return None
        self._bad += 1
        self.since = self.since or step
        if self._bad < self.patience or self.is_collapsed:
            return None
        self.is_collapsed = True
        return f"the GAN has been collapsing since step {self.since}: {'; '.join(faults)}"

    def _update_best(self, record: Mapping[str, Any]) -> None:
        if math.isfinite(record.get("g/psnr_gain", math.nan)):  # not so where fp16 overflowed in a whole interval
            self._recent = [*self._recent, record["g/psnr_gain"]][-self.patience :]
            if len(self._recent) == self.patience:
                held = min(self._recent)
                self.best = held if self.best is None else max(held, self.best)

    def _faults(self, record: Mapping[str, Any]) -> Iterable[str]:
        limits = self.limits
        real, fake = record.get("d/real_accuracy", 0.0), record.get("d/fake_accuracy", 0.0)
        if limits.d_accuracy is not None and min(real, fake) > limits.d_accuracy:
            yield f"D is right on {real:.3f} of real and {fake:.3f} of generated images (limit {limits.d_accuracy:g})"
        ratio = record.get("grad_norm/ratio", math.nan)  # NaN compares as neither below nor above
        if limits.grad_ratio and (ratio < limits.grad_ratio[0] or ratio > limits.grad_ratio[1]):
            low, high = limits.grad_ratio
            yield f"D's gradient is {ratio:.3g} times as large as G's (limits {low:g} and {high:g})"
        saturated = record.get("g/saturated", 0.0)
        if limits.saturated is not None and saturated > limits.saturated:
            yield f"{saturated:.3f} of G's values are outside of the image range (limit {limits.saturated:g})"
        gain = record.get("g/psnr_gain")
        if limits.psnr_drop is not None and self.best is not None and gain is not None:
            drop = self.best - gain
            if drop > limits.psnr_drop:
                difference = f"PSNR is {gain:+.2f} dB relative to bicubic's, {drop:.2f} below its best"
                yield f"{difference} (limit {limits.psnr_drop:g})"

    def start_over(self) -> None:
        """Forget the collapse, after the weights were rolled back to before it."""
        self._recent, self._bad, self.since, self.is_collapsed = [], 0, None, False

    def state(self) -> dict[str, Any]:
        """The state that a resumed run restores, for JSON."""
        return {
            "best": self.best,
            "is_collapsed": self.is_collapsed,
            "since": self.since,
            "recent": self._recent,
            "bad": self._bad,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore a `state`."""
        self.best, self.is_collapsed, self.since = state["best"], state["is_collapsed"], state["since"]
        self._recent, self._bad = state["recent"], state["bad"]


class CollapseResponse:
    """Responds to a collapse as configured.

    Args:
        schedule: When the discriminator is updated.
        monitor: Detects the collapse.
        action: All report the collapse. ``warn`` does nothing more; ``pause_d`` pauses the discriminator until its
            accuracy is below the band; ``rollback`` continues from the newest checkpoint from before the collapse,
            with half the discriminator's learning rate; ``stop`` ends the run.
        is_main: Whether this is the rank that logs.

    Attributes:
        d_rate: Factor on the discriminator's learning rate.
        rollbacks: Number of rollbacks so far.
    """

    def __init__(
        self, *, schedule: DiscriminatorSchedule, monitor: CollapseMonitor, action: Action, is_main: bool
    ) -> None:
        self.schedule, self.monitor, self.action, self.is_main = schedule, monitor, action, is_main
        self.rollbacks, self.d_rate = 0, 1.0
        self._reason: str | None = None

    def observe(self, step: int, record: Mapping[str, Any]) -> dict[str, Any]:
        """Check a record of metrics, which must be equal on all ranks.

        Args:
            step: The step of the record.
            record: Numbers by logged name.

        Returns:
            The record with the metrics `derived` from it and, if it makes a collapse, the reason as ``alert``.
        """
        record = derived(record)
        was_collapsed = self.monitor.is_collapsed
        self._reason = self.monitor.observe(step, record)
        if self._reason:
            self._warn("step %d: %s", step, self._reason)
            return record | {"alert": self._reason}
        if was_collapsed and not self.monitor.is_collapsed:
            self._warn("step %d: the GAN has recovered", step)
        return record

    def respond(self, step: int, roll_back: Callable[[int], Path | None]) -> None:
        """Respond if a collapse was just detected. All ranks decide alike.

        Args:
            step: The training step.
            roll_back: Loads weights, optimizers and EMA from the newest checkpoint before the given step and returns
                its path, or None if there is no such checkpoint.

        Raises:
            Collapsed: The run ends here; its checkpoints are unchanged.
        """
        reason, self._reason = self._reason, None
        if reason is None or self.action == "warn":
            return
        if self.action == "pause_d":
            self.schedule.pause()
            self._warn("step %d: D pauses until its accuracy is below %g", step, self.schedule.low)
            return
        since = self.monitor.since or step
        how = f"resume from a checkpoint before step {since} with run.resume=PATH and a weaker discriminator"
        if self.action == "stop":
            raise Collapsed(f"step {step}: {reason}; stopped because of stability.on_collapse: {how}")
        if self.rollbacks == MOST_ROLLBACKS:
            raise Collapsed(f"step {step}: {reason}; stopped after {MOST_ROLLBACKS} rollbacks: {how}")
        source = roll_back(since)
        if source is None:
            raise Collapsed(f"step {step}: {reason}; no checkpoint before step {since} to roll back to: {how}")
        self.rollbacks += 1
        self.d_rate /= 2
        self.monitor.start_over()
        self._warn(
            "step %d: rolled back weights and optimizers to %s, D's learning rate is now %g of the configured one",
            step,
            source,
            self.d_rate,
        )

    def _warn(self, message: str, *values: object) -> None:
        if self.is_main:
            log.warning(message, *values)

    def state(self) -> dict[str, Any]:
        """The state that a resumed run restores, for JSON."""
        return {
            "pace": self.schedule.state(),
            "monitor": self.monitor.state(),
            "rollbacks": self.rollbacks,
            "d_rate": self.d_rate,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore a `state`."""
        self.schedule.load(state["pace"])
        self.monitor.load(state["monitor"])
        self.rollbacks, self.d_rate = state["rollbacks"], state["d_rate"]


def derived(record: Mapping[str, Any]) -> dict[str, Any]:
    """Add to a record the metrics that are computed from others.

    Args:
        record: Numbers by logged name.

    Returns:
        The record with ``g/psnr`` on RGB in dB (at most 100) and ``g/psnr_gain``, its difference to bicubic's, in place
        of the squared errors; and with ``grad_norm/ratio``, discriminator to generator.
    """
    record = dict(record)
    if "g/mse" in record:
        psnr, bicubic = (-10 * math.log10(max(record.pop(name), 1e-10)) for name in ("g/mse", "g/mse_bicubic"))
        record |= {"g/psnr": psnr, "g/psnr_gain": psnr - bicubic}
    if record.get("grad_norm/g") and "grad_norm/d" in record:
        record["grad_norm/ratio"] = record["grad_norm/d"] / record["grad_norm/g"]
    return record
