"""Finds the shards to check: in packed folders, folders of tars, single tars, and globs of any of them."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from srgan_dist.data.shard_format.manifest import MANIFEST_NAME, Manifest, read_manifest
from srgan_dist.errors import UserError
from srgan_dist.utils.names import expand_home
from srgan_dist.utils.secrets import shown

_EXPECTED = f"expected packed folders (with {MANIFEST_NAME}), folders of .tar files, .tar files, or globs of them"


class ShardFolder(NamedTuple):
    """Shards to check that are in the same folder.

    Attributes:
        path: The folder.
        shards: The tars to check, in order.
        manifest: Manifest of the folder; None where it is missing or unusable.
        problem: What is wrong with its manifest, or "".
    """

    path: Path
    shards: tuple[Path, ...]
    manifest: Manifest | None = None
    problem: str = ""


def find_shards(paths: Sequence[str | Path]) -> list[ShardFolder]:
    """Find shards and the manifests beside them.

    Args:
        paths: Packed folders or their manifest.json, folders of tars, tars, or globs of them.

    Returns:
        Folders in the order in which they are first named; one that is named itself has all its shards, including.
        missing ones that its manifest lists.

    Raises:
        UserError: A path does not exist, a glob matches nothing, or a folder contains no tar.
    """
    whole: dict[Path, bool] = {}
    named: dict[Path, list[Path]] = {}
    for path in (found for given in paths for found in _expand(given)):
        if path.is_dir() or path.name == MANIFEST_NAME:
            whole[path if path.is_dir() else path.parent] = True
            named.setdefault(path if path.is_dir() else path.parent, [])
        else:
            named.setdefault(path.parent, []).append(path)
    return [_folder(path, None if path in whole else list(dict.fromkeys(shards))) for path, shards in named.items()]


def _expand(given: str | Path) -> list[Path]:
    if (local := expand_home(given)).exists():
        return [local]
    if "://" in str(given) or str(given).startswith("pipe:"):
        raise UserError(f"{shown(str(given))}: is not on this machine, {_EXPECTED}: fetch it first")
    found = sorted(glob.glob(str(local)))  # noqa: PTH207 - Path.glob takes no absolute pattern
    if not found:
        problem = "matches nothing" if glob.has_magic(str(given)) else "does not exist"
        raise UserError(f"{given}: {problem}, {_EXPECTED}")
    return [Path(path) for path in found]


def _folder(path: Path, named: list[Path] | None) -> ShardFolder:
    manifest, problem = None, ""
    if (path / MANIFEST_NAME).is_file():
        try:
            manifest = read_manifest(path)
        except UserError as error:
            problem = str(error).removeprefix(f"{path / MANIFEST_NAME}: ")
    there = sorted(path.glob("*.tar"))
    if named is None:
        listed = [path / entry.name for entry in manifest.shards] if manifest else []
        named = listed + [shard for shard in there if shard not in listed]
    if not named:
        raise UserError(f"{path}: holds no .tar files, {_EXPECTED}")
    return ShardFolder(path, tuple(named), manifest, problem)
