"""When the discriminator learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from srgan_dist.distributed.runtime import Runtime

SMOOTHING = 0.9  # of the accuracies: about the last ten updates


class DiscriminatorSchedule:
    """When the discriminator learns.

    With a fixed n, at every n-th generator update. Without one, within a band of its accuracy: it pauses above the
    band, and below the band it learns again, at every step. The accuracy is the mean of that on real and of that on
    generated images, since a discriminator that takes all images for generated ones has not won. On real images it is
    known from its updates alone; between them it cannot change.

    Args:
        g_per_d: n of n:1, or None to keep to the band.
        warmup: Steps at the start of the adversarial phase at which it learns in any case.
        band: Low and high end, in [0, 1].
        watches: Whether the accuracy is looked at with a fixed n, too, so that `pause` can end.
        runtime: The ranks, which decide alike: accuracies are means over them.

    Attributes:
        paused: Whether the discriminator waits for the generator.
    """

    def __init__(
        self, *, g_per_d: int | None, warmup: int, band: tuple[float, float], watches: bool, runtime: Runtime
    ) -> None:
        self.g_per_d, self.warmup, self.runtime = g_per_d, warmup, runtime
        self.low, self.high = band
        self.watches = watches or g_per_d is None
        self.paused = False
        self._learned = False
        self._smoothed: dict[str, float] = {}
        self._coming: tuple[list[str], Callable[[], list[float]]] | None = None

    def should_update(self, step: int, *, fooling_rate: Callable[[], Tensor], real_accuracy: Tensor | None) -> bool:
        """Decide about one step, from what is known of the steps before: nothing here waits for the device.

        Args:
            step: Number of the generator update in the adversarial phase, from 1.
            fooling_rate: Gives the share of this rank's generated images that the discriminator just got wrong.
            real_accuracy: Its accuracy on this rank's real images at its last update.
        """
        self._settle()
        if self.watches:
            values = {"fake": 1 - fooling_rate()}
            if real_accuracy is not None and self._learned:
                values["real"] = real_accuracy
            mean = self.runtime.mean_over_ranks(torch.stack([value.double() for value in values.values()]))
            self._coming = list(values), self.runtime.read_later(mean)
        on_time = self.g_per_d is None or step % self.g_per_d == 0
        self._learned = step <= self.warmup or (on_time and not self.paused)
        return self._learned

    def pause(self) -> None:
        """Let the discriminator wait until its accuracy is below the band."""
        self.paused = True

    def _settle(self) -> None:
        if self._coming is None:
            return
        (names, read), self._coming = self._coming, None
        for name, value in zip(names, read(), strict=True):
            self._smoothed[name] = SMOOTHING * self._smoothed.get(name, value) + (1 - SMOOTHING) * value
        if len(self._smoothed) < 2:  # it has not learned yet
            return
        accuracy = sum(self._smoothed.values()) / 2
        if accuracy < self.low:
            self.paused = False
        elif accuracy > self.high and self.g_per_d is None:
            self.paused = True

    def state(self) -> dict[str, Any]:
        """What it goes on from, for JSON."""
        self._settle()
        return {"smoothed": self._smoothed, "paused": self.paused, "learned": self._learned}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self._smoothed, self.paused, self._learned = dict(state["smoothed"]), state["paused"], state["learned"]

    def __str__(self) -> str:
        if self.g_per_d is None:
            return f"D learns until its accuracy is above {self.high:g}, and again when it is below {self.low:g}"
        return f"{self.g_per_d}:1"
