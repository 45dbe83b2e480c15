"""The folder of an unfinished pack: locked, with a journal of its finished shards, so that a killed pack resumes."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from srgan_dist.errors import UserError
from srgan_dist.utils.files import sync, sync_folder, write_whole
from srgan_dist.utils.locks import LOCK_NAME, FolderLock

log = logging.getLogger("srgan_dist")

PLAN_NAME = "pack.json"
JOURNAL_NAME = "progress.jsonl"

PackOptions = Mapping[str, str | float | None]
"""The options of a pack that the shards' bytes depend on, by name, as pack.json stores them."""


class PackPlan:
    """What is packed and how, with digests by which a later call recognizes the same work.

    Args:
        options: Everything that the shards' bytes depend on, apart from the images.
        identities: For each image, a text that changes when the image does.
        held_out: The same for the images held out for validation.
    """

    def __init__(self, options: PackOptions, identities: Sequence[str], held_out: Sequence[str]) -> None:
        self.options = dict(options)
        begin = sha256(json.dumps(self.options, sort_keys=True).encode()).digest()
        parts = [*identities, "\n".join(["end", *held_out])]
        self._digests = list(
            accumulate(parts, lambda digest, part: sha256(digest + part.encode()).digest(), initial=begin)
        )

    def digest_until(self, image: int) -> str:
        """Return the digest of the options and of the images up to and including one.

        A shard also depends on the first image that it has no room for.

        Args:
            image: Number of the image; the number of images stands for the end, with the images held out.
        """
        return self._digests[image + 1].hex()

    @property
    def digest(self) -> str:
        """Digest of the options and all images."""
        return self._digests[-1].hex()

    def to_json(self) -> str:
        """Format the plan as JSON, as pack.json stores it."""
        return json.dumps({"inputs": self.digest, "options": self.options}, indent=1, sort_keys=True) + "\n"


class Plan(TypedDict):
    """The content of pack.json; the options' values may be of any type."""

    inputs: str
    options: dict[str, Any]


_PLAN = TypeAdapter(Plan)


def read_plan(folder: Path) -> Plan | None:
    """Read the plan of a folder.

    Args:
        folder: A folder that is packed, or partly packed.

    Returns:
        Its `inputs` and `options`; None where pack.json is missing or unreadable.
    """
    try:
        return _PLAN.validate_json((folder / PLAN_NAME).read_bytes())
    except (OSError, ValidationError):
        return None


def other_option(kept: Mapping[str, Any], requested: PackOptions) -> str | None:
    """Describe the first option that differs.

    Args:
        kept: Options of a plan that was read.
        requested: Options of this call.

    Returns:
        For example `tile 480, not 240`; None where all are equal.
    """
    for name in [*requested, *(set(kept) - set(requested))]:
        if kept.get(name) != requested.get(name):
            return f"{name} {kept.get(name)}, not {requested.get(name)}"
    return None


@dataclass(kw_only=True)
class Progress:
    """How far the images are packed, and the counts up to there.

    Attributes:
        image: Number of the image that the next sample belongs to.
        sample: Number of that sample within its image.
        num_flat: Tiles of the previous images that were left out.
        num_reencoded: Previous images that were encoded as JPEG.
        skipped: (path, reason) of the previous images that could not be used.
    """

    image: int = 0
    sample: int = 0
    num_flat: int = 0
    num_reencoded: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)


_JOURNALLED, _PROGRESS = TypeAdapter(dict[str, Any]), TypeAdapter(Progress)


class PartialPack:
    """The folder of an unfinished pack, used in a `with` block.

    If the block is interrupted, finished shards are kept; where there are none, the folder is removed.

    Args:
        folder: Created where it is missing; shards of an earlier pack with the same options are kept as far as the
            images are the same.
        plan: Plan of this pack.

    Attributes:
        folder: The folder.
        shards: The finished shards, in order.
        progress: How far they go.

    Raises:
        UserError: Another process is packing there, or a pack with other options was interrupted there.
        OSError: The folder cannot be written.
    """

    def __init__(self, folder: Path, plan: PackPlan) -> None:
        self.folder = folder
        self.shards: list[Path] = []
        self.progress = Progress()
        self._plan = plan
        self._lock = FolderLock(folder)
        if holder := self._lock.acquire():
            raise UserError(f"{folder}: is being packed by {holder}: wait for it, or end it")
        try:
            is_new = [path.name for path in folder.iterdir()] == [LOCK_NAME]
            self._journal: IO[bytes] = open(folder / JOURNAL_NAME, "a+b")  # noqa: SIM115 - closed by __exit__
        except BaseException:
            self._lock.release()
            raise
        try:
            self._refuse_other_options()
            self._resume()
            write_whole(folder / PLAN_NAME, plan.to_json())
        except BaseException:
            self._end(discard=is_new)
            raise

    def __enter__(self) -> PartialPack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is not None and self.shards:
            log.info(
                "%s: keeps %d finished shards; run the same command again to resume", self.folder, len(self.shards)
            )
        self._end(discard=not self.shards)

    def begin_shard(self) -> Path:
        """Return the path to write the next shard to."""
        return self.folder / f"shard-{len(self.shards):06d}.tar.writing"

    def finish_shard(self, written: Path, progress: Progress) -> None:
        """Give a shard its final name and add it to the journal.

        Args:
            written: Path from `begin_shard`, synced to disk.
            progress: Position of the sample that the next shard starts with.
        """
        shard = written.with_suffix("")
        written.rename(shard)
        sync_folder(self.folder)
        self.shards.append(shard)
        self.progress = replace(progress, skipped=list(progress.skipped))
        line = {"bytes": shard.stat().st_size, "until": self._plan.digest_until(progress.image), **asdict(progress)}
        self._journal.write(json.dumps(line).encode() + b"\n")
        sync(self._journal)

    def publish(self, final: Path) -> None:
        """Rename the folder to its final name, atomically."""
        sync_folder(self.folder)
        self._lock.rename(final)
        sync_folder(final.parent)
        (final / JOURNAL_NAME).unlink()

    def _end(self, *, discard: bool) -> None:
        self._journal.close()
        if discard:
            self._empty(keep=[])
        self._lock.release()
        if discard:
            with contextlib.suppress(OSError):  # another process packs there by now
                self.folder.rmdir()

    def _empty(self, *, keep: Collection[str]) -> None:
        for path in self.folder.iterdir():
            if path.name not in (*keep, LOCK_NAME):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _refuse_other_options(self) -> None:
        kept = read_plan(self.folder)
        if kept and (difference := other_option(kept["options"], self._plan.options)):
            raise UserError(
                f"{self.folder}: a pack with {difference} was interrupted there: resume with the same options, "
                "or delete that folder"
            )

    def _resume(self) -> None:
        self._journal.seek(0)
        lines = self._journal.read().splitlines(keepends=True)
        length = 0
        for line in lines:
            shard = self.folder / f"shard-{len(self.shards):06d}.tar"
            if (progress := self._checked(line, shard)) is None:
                break
            self.shards.append(shard)
            self.progress = progress
            length += len(line)
        self._journal.truncate(length)
        if lines:
            changed = " (images or files changed since)" if len(self.shards) < len(lines) else ""
            log.info("%s: resumes after %d of %d shards%s", self.folder, len(self.shards), len(lines), changed)
        self._empty(keep=[PLAN_NAME, JOURNAL_NAME, *(shard.name for shard in self.shards)])

    def _checked(self, line: bytes, shard: Path) -> Progress | None:
        try:
            kept = _JOURNALLED.validate_json(line)
            size, until = kept.pop("bytes"), kept.pop("until")
            progress = _PROGRESS.validate_python(kept)
            same = shard.stat().st_size == size and self._plan.digest_until(progress.image) == until
        except (OSError, ValidationError, KeyError, IndexError):  # the last line of a killed process is incomplete
            return None
        return progress if same else None
