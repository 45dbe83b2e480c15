"""Checkpoints that are complete or absent, and that cannot run code when they are loaded.

A checkpoint is a folder ``step-000500/`` of safetensors, tensor-only ``.pt`` files, ``state.json`` and
``manifest.json`` (size and SHA-256 of every other file). It is written under a temporary name, made durable by
every rank, agreed upon, and only then renamed; older ones are removed last.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from srgan_dist.errors import Failure, UserError
from srgan_dist.runtime import Runtime
from srgan_dist.weights import sync_file

log = logging.getLogger("srgan_dist")

_MANIFEST = "manifest.json"
_STATE = "state.json"


@dataclass
class Snapshot:
    """Everything that the rest of a run depends on.

    Attributes:
        counters: JSON values: the step, the samples consumed, the tracker's id, facts about the data.
        weights: State dicts of networks by name.
        optimizers: State dicts of optimizers by name.
        rng: Random state of this rank.
    """

    counters: dict[str, Any]
    weights: dict[str, dict[str, Tensor]]
    optimizers: dict[str, dict[str, Any]]
    rng: dict[str, Tensor]


class CheckpointNotSaved(Failure):
    """Some rank could not write its part; earlier checkpoints are untouched."""

    on_every_rank = True


class CheckpointError(Exception):
    """A checkpoint that is incomplete or damaged; the message names the file."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: Where they lie.
        keep: Number of newest ones to keep.
        runtime: The ranks that write together.
    """

    def __init__(self, folder: Path, *, keep: int, runtime: Runtime) -> None:
        self.folder, self.keep, self.runtime = folder, keep, runtime

    def path(self, step: int) -> Path:
        """The folder of the checkpoint of a step."""
        return self.folder / f"step-{step:06d}"

    def save(self, step: int, snapshot: Snapshot) -> None:
        """Write a checkpoint; on return it is complete on disk, and too old ones are gone.

        Args:
            step: The training step.
            snapshot: Every rank passes its own; networks and optimizers are equal on all, and rank 0 writes them.

        Raises:
            CheckpointNotSaved: Some rank could not write; earlier checkpoints are untouched.
        """
        temporary = self.folder / f".tmp-step-{step:06d}"
        self._together(step, lambda: self._prepare(temporary))
        self._together(step, lambda: self._write(temporary, snapshot))
        self._together(step, lambda: self._publish(temporary, self.path(step)))

    def _together(self, step: int, action: Callable[[], None]) -> None:
        """Run one part of the protocol on every rank; none goes on unless all could."""
        ok = True
        try:
            action()
        except (OSError, RuntimeError, SafetensorError) as error:  # torch.save tells a full disk by a RuntimeError
            log.error("checkpoint of step %d: %s", step, error)
            ok = False
        if not self.runtime.all_agree(ok):
            raise CheckpointNotSaved(f"the checkpoint of step {step} could not be written; earlier ones are untouched")

    def _prepare(self, temporary: Path) -> None:
        if self.runtime.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)

    def _publish(self, temporary: Path, final: Path) -> None:
        if not self.runtime.is_main:
            return
        _seal(temporary)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        _sync_folder(self.folder)
        for old in self.found()[self.keep :]:
            shutil.rmtree(old)

    def _write(self, folder: Path, snapshot: Snapshot) -> None:
        rng = folder / f"rng-{self.runtime.rank:05d}.pt"
        torch.save(snapshot.rng, rng)
        sync_file(rng)
        if not self.runtime.is_main:
            return
        for name, weights in snapshot.weights.items():
            save_file(
                {key: value.detach().contiguous() for key, value in weights.items()},
                folder / f"{name}.safetensors",
            )
        for name, state in snapshot.optimizers.items():
            torch.save(state, folder / f"optimizer_{name}.pt")
        counters = snapshot.counters | {"world_size": self.runtime.world_size}
        (folder / _STATE).write_text(json.dumps(counters, indent=2), encoding="utf-8")
        for path in folder.iterdir():
            sync_file(path)

    def found(self) -> list[Path]:
        """Folders of finished checkpoints, newest first."""
        if not self.folder.is_dir():
            return []
        return sorted(
            (p for p in self.folder.iterdir() if re.fullmatch(r"step-\d{6,}", p.name)),
            key=_step,
            reverse=True,
        )

    def set_aside_after(self, step: int) -> list[Path]:
        """Rename checkpoints of later steps, which a run that goes on from ``step`` does not lead to.

        Returns:
            Their new names, which no longer count as checkpoints.
        """
        moved = []
        if self.runtime.is_main:
            for path in self.found():
                if _step(path) > step:
                    moved.append(path.rename(path.with_name(f"abandoned-{path.name}-{int(time.time())}")))
        self.runtime.barrier()
        return moved

    def newest(self) -> Path | None:
        """The newest sound checkpoint, or None; the same on every rank. Damaged ones are named in the log."""
        chosen: Path | None = None
        if self.runtime.is_main:
            for path in self.found():
                try:
                    verify(path)
                except CheckpointError as error:
                    log.warning("%s: trying an older checkpoint", error)
                else:
                    chosen = path
                    break
        return self.runtime.broadcast(chosen)

    def load(self, path: Path) -> Snapshot:
        """Read a checkpoint on every rank.

        Args:
            path: Folder of the checkpoint.

        Returns:
            The snapshot; the random state is this rank's, or rank 0's where there were fewer ranks.

        Raises:
            UserError: It is not a sound checkpoint; the file is named.
        """
        problem = None
        if self.runtime.is_main:
            try:
                verify(path)
            except CheckpointError as error:
                problem = str(error)
        problem = self.runtime.broadcast(problem)
        if problem:
            raise UserError(f"{problem}: choose another checkpoint by run.resume")
        try:
            rng = path / f"rng-{self.runtime.rank:05d}.pt"
            return Snapshot(
                counters=json.loads((path / _STATE).read_text(encoding="utf-8")),
                weights={file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))},
                optimizers={
                    file.stem.removeprefix("optimizer_"): torch.load(file, map_location="cpu", weights_only=True)
                    for file in sorted(path.glob("optimizer_*.pt"))
                },
                rng=torch.load(rng if rng.exists() else path / "rng-00000.pt", weights_only=True),
            )
        except (pickle.UnpicklingError, SafetensorError, ValueError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{path}: cannot be loaded ({reason}): choose another checkpoint by run.resume") from None


def verify(path: Path) -> None:
    """Compare every file of a checkpoint with its manifest.

    Raises:
        CheckpointError: A file is missing, of another size, or of other content; it is named.
    """
    manifest = path / _MANIFEST
    try:
        entries: Mapping[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(f"{manifest} is missing or damaged, so {path} is not a complete checkpoint") from None
    for name, entry in entries.items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing")
        if file.stat().st_size != entry["bytes"]:
            raise CheckpointError(f"{file} has {file.stat().st_size} bytes, its manifest says {entry['bytes']}")
        if _sha256(file) != entry["sha256"]:
            raise CheckpointError(f"{file} does not match the SHA-256 in its manifest")


def _seal(folder: Path) -> None:
    files = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in sorted(folder.iterdir())}
    manifest = folder / _MANIFEST
    manifest.write_text(json.dumps({"version": 1, "files": files}, indent=2), encoding="utf-8")
    sync_file(manifest)
    _sync_folder(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))
