"""Decides when the discriminator is updated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from srgan_dist.distributed.runtime import Runtime

SMOOTHING = 0.9  # of the accuracies: about the last ten updates


class DiscriminatorSchedule:
    """Decides at each step whether the discriminator is updated.

    With a fixed n, it is updated at every n-th generator update. Otherwise a band of its accuracy decides: updates
    pause once the accuracy is above the band and resume, at every step, once it is below. The accuracy is the mean of
    those on real and on generated images, since a discriminator that takes all images for generated ones has not won.
    The accuracy on real images is only measured in its updates; between them it cannot change.

    Args:
        g_per_d: The n of n:1, or None to follow the band.
        warmup: Number of steps at the start of the adversarial phase that always update it.
        band: Low and high end, in [0, 1].
        watches: Whether the accuracy is tracked with a fixed n, too, so that `pause` can end.
        runtime: The ranks; they all decide alike, since accuracies are averaged over them.

    Attributes:
        paused: Whether updates are paused.
    """

    def __init__(
        self, *, g_per_d: int | None, warmup: int, band: tuple[float, float], watches: bool, runtime: Runtime
    ) -> None:
        self.g_per_d, self.warmup, self.runtime = g_per_d, warmup, runtime
        self.low, self.high = band
        self.watches = watches or g_per_d is None
        self.paused = False
        self._updated_last = False
        self._smoothed: dict[str, float] = {}
        self._pending: tuple[list[str], Callable[[], list[float]]] | None = None

    def should_update(self, step: int, *, fooling_rate: Callable[[], Tensor], real_accuracy: Tensor | None) -> bool:
        """Decide about one step from the accuracies of earlier steps; nothing here waits for the device.

        Args:
            step: Number of the generator update in the adversarial phase, from 1.
            fooling_rate: Returns the fraction of this rank's generated images that the discriminator just got wrong.
            real_accuracy: Its accuracy on this rank's real images at its last update, or None before the first.
        """
        self._read_pending()
        if self.watches:
            values = {"fake": 1 - fooling_rate()}
            if real_accuracy is not None and self._updated_last:
                values["real"] = real_accuracy
            mean = self.runtime.mean_over_ranks(torch.stack([value.double() for value in values.values()]))
            self._pending = list(values), self.runtime.read_later(mean)
        on_time = self.g_per_d is None or step % self.g_per_d == 0
        self._updated_last = step <= self.warmup or (on_time and not self.paused)
        return self._updated_last

    def pause(self) -> None:
        """Pause the discriminator until its accuracy is below the band."""
        self.paused = True

    def _read_pending(self) -> None:
        if self._pending is None:
            return
        (names, read), self._pending = self._pending, None
        for name, value in zip(names, read(), strict=True):
            self._smoothed[name] = SMOOTHING * self._smoothed.get(name, value) + (1 - SMOOTHING) * value
        if len(self._smoothed) < 2:  # it has not been updated yet
            return
        accuracy = sum(self._smoothed.values()) / 2
        if accuracy < self.low:
            self.paused = False
        elif accuracy > self.high and self.g_per_d is None:
            self.paused = True

    def state(self) -> dict[str, Any]:
        """The state that a resumed run restores, for JSON."""
        self._read_pending()
        return {"smoothed": self._smoothed, "paused": self.paused, "learned": self._updated_last}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore a `state`."""
        self._smoothed, self.paused, self._updated_last = dict(state["smoothed"]), state["paused"], state["learned"]

    def __str__(self) -> str:
        if self.g_per_d is None:
            return f"D is updated until its accuracy is above {self.high:g}, and again when it is below {self.low:g}"
        return f"{self.g_per_d}:1"
