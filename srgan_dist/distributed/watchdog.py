"""Ends a run that hangs, and logs which rank was at which step in which function."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from srgan_dist.distributed.runtime import Runtime

log = logging.getLogger("srgan_dist")

_PACKAGE = Path(__file__).parents[1]
_EXIT_CODE = 1
_PATIENCE = 5.0  # seconds that another rank's answer may take


@contextmanager
def watchdog(runtime: Runtime, *, seconds: float, step: Callable[[], int]) -> Iterator[None]:
    """End the process when its step does not change for long, and say where every rank was.

    A rank that hangs makes all others wait for it in a collective, where no exception reaches them. So a thread of each
    rank looks at the main thread's stack: nothing has to be marked in the code that is watched.

    Args:
        runtime: The ranks, which publish where they are.
        seconds: Longest time of a step with all that belongs to it: validation, pictures, a checkpoint.
        step: The step that the main thread is at.
    """
    end = threading.Event()
    watcher = threading.Thread(
        target=_watch, args=(runtime, seconds, step, threading.get_ident(), end), name="watchdog", daemon=True
    )
    watcher.start()
    try:
        yield
    finally:
        end.set()
        watcher.join(_PATIENCE)


def _watch(runtime: Runtime, seconds: float, step: Callable[[], int], watched: int, end: threading.Event) -> None:
    interval = min(seconds / 10, 10.0)
    at, since = step(), time.monotonic()
    publishing: threading.Thread | None = None
    while not end.wait(interval):
        if step() != at:
            at, since = step(), time.monotonic()
        report = json.dumps({"step": at, "where": _where(sys._current_frames().get(watched))})
        if not (publishing and publishing.is_alive()):
            publishing = _in_background(functools.partial(runtime.publish, "watchdog", report))
        if time.monotonic() - since > seconds:
            if not end.wait(2 * interval):  # the others publish where they wait, too
                _give_up(runtime, seconds, report)
            return


def _in_background(call: Callable[[], object]) -> threading.Thread:
    """Call the ranks' store in a thread of its own, so that it cannot keep the watchdog from its work.

    A store whose process is frozen does not answer, and one whose process died makes every call raise.
    """

    def run() -> None:
        with contextlib.suppress(RuntimeError):  # torch's DistNetworkError and DistStoreError are ones
            call()

    thread = threading.Thread(target=run, name="watchdog store", daemon=True)
    thread.start()
    return thread


def _give_up(runtime: Runtime, seconds: float, own_report: str) -> None:
    # Whatever else blocks, such as a pipe that nobody reads, the process ends.
    last_resort = threading.Timer(3 * _PATIENCE, os._exit, [_EXIT_CODE])
    last_resort.daemon = True
    last_resort.start()
    reports: list[str | None] = [None] * runtime.world_size
    reports[runtime.rank] = own_report

    def read() -> None:
        for rank, report in enumerate(runtime.published("watchdog")):
            reports[rank] = report

    reading = _in_background(read)
    reading.join(_PATIENCE)
    if reading.is_alive():
        log.error("the ranks' store, in rank 0 or the launcher, does not answer")
    places: dict[str, list[int]] = {}
    for rank, report in enumerate(list(reports)):
        place = "has not been heard of"
        if report:
            place = "at step {step}: {where}".format(**json.loads(report))
        places.setdefault(place, []).append(rank)
    # The fewest are the likeliest cause; the others wait for them.
    for place, ranks in sorted(places.items(), key=lambda entry: len(entry[1])):
        log.error("no step ended within %g s: rank %s %s", seconds, ", ".join(map(str, ranks)), place)
    sys.stderr.flush()
    os._exit(_EXIT_CODE)  # the main thread would not hear of an exception


def _where(frame: FrameType | None) -> str:
    """The part of the step that a stack is in, and the innermost of our lines on it."""
    ours: list[FrameType] = []
    while frame:
        if Path(frame.f_code.co_filename).is_relative_to(_PACKAGE):
            ours.append(frame)
        frame = frame.f_back
    if not ours:
        return "outside of srgan_dist"
    # Of the loop and the step: `__call__` only leads on, and `losses` is what every update computes.
    parts = [
        one.f_code.co_name
        for one in ours
        if Path(one.f_code.co_filename).name in ("trainer.py", "gan_step.py")
        and one.f_code.co_name not in ("__call__", "losses")
    ]
    innermost = f"{Path(ours[0].f_code.co_filename).name}:{ours[0].f_lineno} ({ours[0].f_code.co_name})"
    # The outermost is Trainer.run; below it stands what the step is doing.
    return " ".join([*parts[:-1][-1:], innermost])
