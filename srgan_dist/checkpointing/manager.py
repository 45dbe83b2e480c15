"""Checkpoints that are complete or absent, and that cannot run code when they are loaded.

A checkpoint is a folder ``step-000500/`` of safetensors, tensor-only ``.pt`` files, ``state.json`` and
``manifest.json`` (size and SHA-256 of every other file). Its content is copied to the host's memory; then, in the
background, it is written under a temporary name, made durable by every rank, agreed upon, and only then renamed. Older
ones are removed last, and under another name, so that no half of one is ever found.
"""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from srgan_dist.checkpointing.async_writer import NOT_WRITTEN, AsyncWriter
from srgan_dist.checkpointing.format import CheckpointError, TrainingState, on_host, read, seal, verify
from srgan_dist.checkpointing.weights import WeightsFile, save_weights
from srgan_dist.distributed.runtime import Runtime
from srgan_dist.distributed.signals import StopGracePeriod
from srgan_dist.errors import Failure, UserError
from srgan_dist.utils.files import sync_file, sync_folder

log = logging.getLogger("srgan_dist")

Writes = dict[Path, Callable[[Path], None]]


class NotSaved(Failure):
    """Some rank could not write its part; what was saved earlier is untouched."""

    on_every_rank = True


class Checkpoints:
    """The checkpoints of one run, and the weights for use that are saved with them.

    Saving happens in the background. Every rank calls each method, at the same step boundary.

    Args:
        folder: Where they lie.
        keep: Number of newest ones to keep.
        runtime: The ranks that write together.
        stop_grace: Notes how long steps and saves take, or None.
    """

    def __init__(self, folder: Path, *, keep: int, runtime: Runtime, stop_grace: StopGracePeriod | None = None) -> None:
        self.folder, self.keep, self.runtime, self._stop_grace = folder, keep, runtime, stop_grace
        self._background = AsyncWriter(runtime)

    def path(self, step: int) -> Path:
        """The folder of the checkpoint of a step."""
        return self.folder / f"step-{step:06d}"

    def save(
        self,
        step: int,
        state: TrainingState,
        weights: Sequence[WeightsFile] = (),
        *,
        sync_records: Callable[[], None] = lambda: None,
        then: Callable[[list[int]], None] = lambda _: None,
    ) -> None:
        """Copy everything and begin to write it, after the end of the last save.

        Args:
            step: The training step.
            state: Every rank passes its own; networks and optimizers are equal on all, and rank 0 writes them.
            weights: Written by rank 0, too.
            sync_records: Waits, in the background, until what the run logged up to this step is on the disk: a
                checkpoint that is found after a crash must not be ahead of it.
            then: Called on rank 0 when all is written, in the background, with the steps of the checkpoints that are
                kept.

        Raises:
            NotSaved: Some rank could not begin, or end the last save; earlier checkpoints are untouched.
        """
        temporary = self.folder / f".tmp-step-{step:06d}"
        counters = {**state.counters, "world_size": self.runtime.world_size}
        is_main = self.runtime.is_main
        mine = replace(state, counters=counters) if is_main else TrainingState({}, {}, {}, state.rng)
        writes: Writes = {}

        def begin() -> None:
            self._prepare(temporary)
            copy, export = on_host((mine, list(weights) if is_main else []))
            writes.update({temporary / name: write for name, write in copy.files(rank=self.runtime.rank).items()})
            writes.update(_export(export))

        def write() -> None:
            self._write(writes)
            sync_records()

        self._background.start(
            begin,
            [write, lambda: self._publish(temporary, self.path(step)), lambda: self._end(then)],
            failure=NotSaved(f"the checkpoint of step {step} could not be written; earlier ones are untouched"),
            clean=lambda: self._discard(temporary),
        )

    def save_weights(
        self, weights: Sequence[WeightsFile], *, then: Callable[[list[int]], None] = lambda _: None
    ) -> None:
        """Copy weights and begin to write them alone, after the end of the last save.

        Args:
            weights: Written by rank 0.
            then: As of `save`.

        Raises:
            NotSaved: Some rank could not begin, or end the last save.
        """
        writes: Writes = {}
        names = " and ".join(str(file.path) for file in weights)
        self._background.start(
            lambda: writes.update(_export(on_host(list(weights) if self.runtime.is_main else []))),
            [lambda: self._write(writes), lambda: self._end(then)],
            failure=NotSaved(f"{names} could not be written; checkpoints are untouched"),
            clean=lambda: None,
        )

    def poll(self) -> None:
        """At every step boundary: publish what has been written on all ranks by now.

        Raises:
            NotSaved: It could not be written.
        """
        self._background.poll()
        if self._stop_grace:
            self._stop_grace.look(save=self._background.seconds)

    def wait(self) -> None:
        """Wait until what was saved is complete on disk, and too old checkpoints are gone.

        Raises:
            NotSaved: It could not be written.
        """
        self._background.wait()

    def give_up(self) -> None:
        """Leave a save that is under way unfinished, without the other ranks."""
        self._background.give_up()

    def clear_leftovers(self) -> None:
        """Remove what processes left that died while saving; no save may be under way."""
        if self.runtime.is_main:
            for pattern in (".tmp-step-*", ".old-step-*"):
                for leftover in self.folder.glob(pattern):
                    _remove(leftover)

    def _prepare(self, temporary: Path) -> None:
        self.clear_leftovers()
        if self.runtime.is_main:
            temporary.mkdir(parents=True)

    def _write(self, writes: Writes) -> None:
        for path, write in writes.items():
            if not self._background.given_up.is_set():
                with _naming(path):
                    write(path)
                    sync_file(path)

    def _publish(self, temporary: Path, final: Path) -> None:
        if not self.runtime.is_main:
            return
        with _naming(temporary):
            seal(temporary)
        if final.exists():  # damaged: otherwise the run would not have come by here again
            self._put_away(final)
        temporary.rename(final)
        sync_folder(self.folder)
        for old in self.found()[self.keep :]:
            self._put_away(old)
        for old in self.folder.glob(".old-step-*"):
            _remove(old)

    def _end(self, then: Callable[[list[int]], None]) -> None:
        if self.runtime.is_main:
            then([step_of(path) for path in self.found()])

    def _put_away(self, path: Path) -> None:
        path.rename(path.with_name(f".old-{path.name}"))

    def _discard(self, temporary: Path) -> None:
        if self.runtime.is_main and temporary.exists():
            _remove(temporary)

    def found(self) -> list[Path]:
        """Folders of finished checkpoints, newest first."""
        return finished(self.folder)

    def set_aside_after(self, step: int) -> list[Path]:
        """Rename checkpoints of later steps, which a run that resumes from ``step`` does not lead to.

        Returns:
            Their new names, which no longer count as checkpoints.
        """
        moved = []
        if self.runtime.is_main:
            for path in self.found():
                if step_of(path) > step:
                    moved.append(path.rename(path.with_name(f"abandoned-{path.name}-{int(time.time())}")))
        self.runtime.barrier()
        return moved

    def newest(self, *, before: int | None = None) -> Path | None:
        """The newest sound checkpoint, the same on every rank, or None; damaged ones are named in the log.

        Args:
            before: Only of an earlier step than this one.

        Raises:
            UserError: There are checkpoints, but none is sound.
        """
        self.wait()
        chosen: Path | None = None
        found = self.found() if self.runtime.is_main else []
        found = [path for path in found if before is None or step_of(path) < before]
        for path in found:
            try:
                verify(path)
            except CheckpointError as error:
                log.warning("%s: trying an older checkpoint", error)
            else:
                chosen = path
                break
        chosen, all_lost = self.runtime.broadcast((chosen, bool(found) and chosen is None))
        if all_lost:
            raise UserError(
                f"{self.folder}: none of the checkpoints there is sound; restore one, or start over by run.resume=never"
            )
        return chosen

    def load(self, path: Path) -> TrainingState:
        """Read a checkpoint on every rank.

        Args:
            path: Folder of the checkpoint.

        Returns:
            The state; the random state is this rank's, or rank 0's where there were fewer ranks.

        Raises:
            UserError: It is not a sound checkpoint; the file is named.
        """
        self.wait()
        problem, state = None, None
        if self.runtime.is_main:
            try:
                verify(path)
            except CheckpointError as error:
                problem = str(error)
        problem = self.runtime.broadcast(problem)
        if not problem:
            try:
                state = read(path, rank=self.runtime.rank, rng=self.runtime.rng_state())
            except CheckpointError as error:
                problem = f"{path}: cannot be loaded ({error})"
            # A rank's own random state may be the damaged file: all stop, instead of waiting for the one that did.
            problem = next(filter(None, self.runtime.all_gather_object(problem)), None)
        if problem or not state:
            raise UserError(f"{problem}: choose another checkpoint by run.resume")
        return state


def _export(files: Sequence[WeightsFile]) -> Writes:
    return {file.path: partial(save_weights, weights=file.weights, metadata=file.metadata) for file in files}


def _remove(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except OSError as error:  # such as a file that is still open on another node: not worth the run
        log.warning("%s: cannot be removed (%s)", path, error.strerror)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an error that only says what failed say of which file."""
    try:
        yield
    except NOT_WRITTEN as error:
        cause: BaseException | None = error
        while cause and not (isinstance(cause, OSError) and cause.strerror):
            cause = cause.__context__
        reason = cause.strerror if isinstance(cause, OSError) else str(error).splitlines()[0]
        raise OSError(f"{path}: cannot be written ({reason})") from error


def finished(folder: Path) -> list[Path]:
    """Folders of finished checkpoints within a folder, newest first."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in found if re.fullmatch(r"step-\d{6,}", path.name)), key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """The step of a checkpoint, by its folder's name."""
    return int(path.name.removeprefix("step-"))
