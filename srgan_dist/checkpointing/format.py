"""The state of a run, and the files of one checkpoint: written, sealed, verified, read without running code."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from srgan_dist.checkpointing.weights import WeightsFile
from srgan_dist.errors import UserError
from srgan_dist.utils.files import file_sha256, sync_file, sync_folder

T = TypeVar("T")

_VERSION = 2
_MANIFEST = "manifest.json"
_STATE = "state.json"


class CheckpointError(Exception):
    """A checkpoint that is incomplete or damaged; the message names the file."""


@dataclass(frozen=True)
class TrainingState:
    """Everything that the rest of a run depends on.

    Attributes:
        counters: JSON values: the step, the samples consumed, the tracker's id, the configuration.
        weights: State dicts of networks by name.
        optimizers: State dicts of optimizers by name.
        rng: Random state of this rank.
    """

    counters: dict[str, Any]
    weights: dict[str, dict[str, Tensor]]
    optimizers: dict[str, dict[str, Any]]
    rng: dict[str, Tensor]

    def files(self, *, rank: int) -> dict[str, Callable[[Path], None]]:
        """What a rank writes: by name, a function of the path. Rank 0 writes what is equal on all."""
        files: dict[str, Callable[[Path], None]] = {f"rng-{rank:05d}.pt": partial(_write_tensors, self.rng)}
        if rank == 0:
            for name, weights in self.weights.items():
                files[f"{name}.safetensors"] = partial(_write_weights, weights)
            for name, state in self.optimizers.items():
                files[f"optimizer_{name}.pt"] = partial(_write_tensors, state)
            files[_STATE] = partial(_write_json, self.counters)
        return files


def on_host(tree: T) -> T:
    """Copy everything to the host's memory, so that training can continue: one wait for the GPU.

    Args:
        tree: A tensor, or dictionaries, lists, tuples, snapshots and files of weights with tensors in them.
    """
    copied: T = _copied(tree)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.current_stream().synchronize()
    return copied


def _copied(tree: Any) -> Any:
    match tree:
        case Tensor(is_cuda=True):
            return torch.empty_like(tree, device="cpu", pin_memory=True).copy_(tree.detach(), non_blocking=True)
        case Tensor():
            return tree.detach().clone()
        case dict():
            return {key: _copied(value) for key, value in tree.items()}
        case list() | tuple():
            return type(tree)(_copied(value) for value in tree)
        case TrainingState() | WeightsFile():
            return replace(tree, **{field.name: _copied(getattr(tree, field.name)) for field in fields(tree)})
        case _:
            return tree


def _write_tensors(content: Mapping[str, Any], path: Path) -> None:
    with path.open("wb") as file:  # given the path instead, torch.save does not report a full disk
        torch.save(content, file)


def _write_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    save_file({key: value.contiguous() for key, value in weights.items()}, path)


def _write_json(content: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def read(path: Path, *, rank: int) -> TrainingState:
    """Read a sound checkpoint.

    Args:
        path: Its folder.
        rank: Whose random state; rank 0's where there were fewer ranks.

    Raises:
        UserError: It is not one of tensors, numbers and texts alone.
    """
    rng = path / f"rng-{rank:05d}.pt"
    try:
        return TrainingState(
            counters=json.loads((path / _STATE).read_text(encoding="utf-8")),
            weights={file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))},
            optimizers={
                file.stem.removeprefix("optimizer_"): torch.load(file, map_location="cpu", weights_only=True)
                for file in sorted(path.glob("optimizer_*.pt"))
            },
            rng=torch.load(rng if rng.exists() else path / "rng-00000.pt", weights_only=True),
        )
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: cannot be loaded ({reason}): choose another checkpoint by run.resume") from None


def seal(folder: Path) -> None:
    """Write the manifest, which makes the files a checkpoint."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in sorted(folder.iterdir())
    }
    manifest = folder / _MANIFEST
    _write_json({"version": _VERSION, "files": files}, manifest)
    sync_file(manifest)
    sync_folder(folder)


def verify(path: Path) -> None:
    """Compare every file of a checkpoint with its manifest.

    Raises:
        CheckpointError: A file is missing, of another size, or of other content; it is named.
    """
    manifest = path / _MANIFEST
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        version: int = content["version"]
        entries: Mapping[str, Any] = content["files"]
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(f"{manifest} is missing or damaged, so {path} is not a complete checkpoint") from None
    if version != _VERSION:
        raise CheckpointError(f"{manifest} has version {version}, but this srgan-dist reads version {_VERSION}")
    for name, entry in entries.items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing")
        if file.stat().st_size != entry["bytes"]:
            raise CheckpointError(f"{file} has {file.stat().st_size} bytes, its manifest says {entry['bytes']}")
        if file_sha256(file) != entry["sha256"]:
            raise CheckpointError(f"{file} does not match the SHA-256 in its manifest")
