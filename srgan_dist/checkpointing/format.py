"""The state of a run, and the files of one checkpoint: written, sealed, verified, read without running code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from srgan_dist.checkpointing.tensors import (
    OtherNetwork,
    UnusableTensors,
    check_tensor,
    plain_tensors,
    read_pickled,
    read_safetensors,
    write_safetensors,
)
from srgan_dist.checkpointing.weights import WeightsFile
from srgan_dist.errors import UserError
from srgan_dist.utils import strict_json
from srgan_dist.utils.files import file_sha256, read_file, sync_file, sync_folder

T = TypeVar("T")

_VERSION = 2
_MANIFEST = "manifest.json"
_MAX_MANIFEST = 2**24  # bytes; one has some hundred for each file, and a file for each rank
_STATE = "state.json"
_RNG = "rng-00000.pt"
_OURS = re.compile(r"state\.json|rng-\d+\.pt|optimizer_\w+\.pt|\w+\.safetensors")
"""Names of files that are read."""


class CheckpointError(Exception):
    """A checkpoint that is incomplete, damaged, or cannot be used; the message names the file."""


class OtherConfiguration(CheckpointError):
    """A sound checkpoint of other networks than the configured ones."""


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """Around the use of a checkpoint: one that cannot be used is the user's to replace.

    Args:
        path: Its folder.

    Raises:
        UserError: In place of a `CheckpointError`; it says what to do.
    """
    try:
        yield
    except OtherConfiguration as error:
        raise UserError(
            f"{path}: does not fit this configuration ({error}); use that run's configuration or another run.dir"
        ) from None
    except CheckpointError as error:
        raise UserError(f"{path}: cannot be used ({error}); choose another checkpoint by run.resume") from None


@contextmanager
def of_file(name: str) -> Iterator[None]:
    """Around the use of a checkpoint's file: name it where its tensors cannot be used.

    Args:
        name: The file's name.

    Raises:
        CheckpointError: In place of `UnusableTensors`.
    """
    try:
        yield
    except OtherNetwork as error:
        raise OtherConfiguration(f"{name}: {error}") from None
    except UnusableTensors as error:
        raise CheckpointError(f"{name}: {error}") from None


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
    write_safetensors(path, weights)


def _write_json(content: Mapping[str, Any], path: Path) -> None:
    path.write_text(strict_json.dumps(content, indent=2), encoding="utf-8")


def read(path: Path, *, rank: int, rng: Mapping[str, Tensor]) -> TrainingState:
    """Read a sound checkpoint.

    Args:
        path: Its folder.
        rank: Whose random state; rank 0's where there were fewer ranks.
        rng: The random state in use, with which that of the checkpoint is compared.

    Raises:
        CheckpointError: It is not one of tensors, numbers and texts alone.
    """
    own = path / f"rng-{rank:05d}.pt"
    return TrainingState(
        counters=_read_counters(path / _STATE),
        weights={file.stem: _read_by(read_safetensors, file) for file in sorted(path.glob("*.safetensors"))},
        optimizers={
            file.stem.removeprefix("optimizer_"): _read_by(read_pickled, file)
            for file in sorted(path.glob("optimizer_*.pt"))
        },
        rng=_read_by(lambda file: _checked_rng(read_pickled(file), rng), own if own.exists() else path / _RNG),
    )


def _read_by(reader: Callable[[Path], T], file: Path) -> T:
    with of_file(file.name):
        return reader(file)


def _read_counters(file: Path) -> dict[str, Any]:
    try:
        counters = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file.name}: {str(error).splitlines()[0]}") from None
    if not isinstance(counters, dict):
        raise CheckpointError(f"{file.name}: no object of JSON")
    return counters


def _checked_rng(found: object, current: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state = plain_tensors(found)
    if "cpu" not in state:
        raise UnusableTensors("lacks 'cpu'")
    for name in state.keys() & current.keys():  # the state of a GPU, where there is none now, is left alone
        check_tensor(name, state[name], current[name])
    return state


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
    """Compare a checkpoint with its manifest: every file that the manifest lists, and every file that is read.

    Raises:
        CheckpointError: A file is missing, not listed, unreadable, of another size, or of other content; it is named.
    """
    entries = _read_manifest(path / _MANIFEST)
    with _readable(path):
        ours = {file.name for file in path.iterdir() if _OURS.fullmatch(file.name)} | {_STATE, _RNG}
    for name in sorted(ours - entries.keys()):
        raise CheckpointError(f"{path / _MANIFEST} does not list {name}")
    for name, entry in entries.items():
        with _readable(path / name):
            _compare(path / name, entry)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from None


def _compare(file: Path, entry: Mapping[str, Any]) -> None:
    if not file.is_file():
        raise CheckpointError(f"{file} is missing")
    if file.stat().st_size != entry["bytes"]:
        raise CheckpointError(f"{file} has {file.stat().st_size} bytes, its manifest says {entry['bytes']}")
    if file_sha256(file) != entry["sha256"]:
        raise CheckpointError(f"{file} does not match the SHA-256 in its manifest")


def _read_manifest(manifest: Path) -> dict[str, dict[str, Any]]:
    """The entries of the files by name: ``bytes`` and ``sha256``."""
    incomplete = CheckpointError(f"{manifest} is missing or damaged, so {manifest.parent} is not a complete checkpoint")
    try:
        with _readable(manifest):
            content = json.loads(read_file(manifest, max_bytes=_MAX_MANIFEST)) if manifest.exists() else None
    except (ValueError, RecursionError):
        raise incomplete from None
    match content:
        case {"version": int(version), "files": dict(files), **others} if not others:
            pass
        case _:
            raise incomplete
    if version != _VERSION:
        raise CheckpointError(f"{manifest} has version {version}, but this srgan-dist reads version {_VERSION}")
    for name, entry in files.items():
        match entry:
            case {"bytes": int(), "sha256": str(), **others} if not others and _is_plain_name(name):
                pass
            case _:
                raise incomplete
    return files


def _is_plain_name(name: str) -> bool:
    return name.isprintable() and Path(name).name == name
