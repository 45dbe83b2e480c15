"""Whether a scheduler leaves the time to save between its signal and its kill."""

from __future__ import annotations

import logging
import time

log = logging.getLogger("srgan_dist")


class StopGracePeriod:
    """Measures how long a run may need to stop, and warns once where that is longer than it would be given.

    Args:
        seconds: From the signal to the kill, or None where nobody knows.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._step = self._save = 0.0
        self._boundary: float | None = None

    def look(self, *, save: float) -> None:
        """At every step boundary.

        Args:
            save: Seconds that the last save took; 0 before there was one.
        """
        now = time.monotonic()
        if self._boundary is not None:
            self._step = max(self._step, now - self._boundary)
        self._boundary, self._save = now, max(self._save, save)
        if self.seconds is not None and self._save and self._step + self._save > self.seconds:
            log.warning(
                "run.stop_lead is %g s, but to stop takes up to %.3g s (a step with what belongs to it %.3g s, a save "
                "%.3g s): let the scheduler give its signal earlier (Slurm: --signal=B:USR1@SECONDS)",
                self.seconds,
                self._step + self._save,
                self._step,
                self._save,
            )
            self.seconds = None  # told
