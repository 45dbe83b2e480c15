"""The folder that a pack grows in: locked, and with a journal of its finished shards, so that a killed one goes on."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from srgan_dist.errors import UserError
from srgan_dist.utils.files import lock, sync, sync_folder, write_whole

log = logging.getLogger("srgan_dist")

PLAN_NAME = "pack.json"
JOURNAL_NAME = "progress.jsonl"

Options = Mapping[str, str | float | None]


class PackPlan:
    """What is packed and how, and digests of it by which a later call knows the same work again.

    Args:
        options: everything that the shards' bytes depend on, beside the images.
        identities: for each image, a text that changes when the image does.
        aside: the same for what goes elsewhere.
    """

    def __init__(self, options: Options, identities: Sequence[str], aside: Sequence[str]) -> None:
        self.options = dict(options)
        begin = sha256(json.dumps(self.options, sort_keys=True).encode()).digest()
        parts = [*identities, "\n".join(["end", *aside])]
        self._digests = list(
            accumulate(parts, lambda digest, part: sha256(digest + part.encode()).digest(), initial=begin)
        )

    def until(self, image: int) -> str:
        """Digest the options and the images up to and with a number; their count stands for the end.

        A shard depends on the first image that it has no room for, too.
        """
        return self._digests[image + 1].hex()

    @property
    def whole(self) -> str:
        """Digest everything."""
        return self._digests[-1].hex()

    def to_json(self) -> str:
        """Write the plan as it is kept beside the shards."""
        return json.dumps({"inputs": self.whole, "options": self.options}, indent=1, sort_keys=True) + "\n"


def read_plan(folder: Path) -> dict[str, Any] | None:
    """Read the plan kept in a folder.

    Args:
        folder: packed, or partly packed.

    Returns:
        Its `inputs` and `options`, or None where there is none that can be read.
    """
    try:
        plan = json.loads((folder / PLAN_NAME).read_text(encoding="utf-8"))
        return plan if {"inputs", "options"} <= plan.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def other_option(kept: Mapping[str, Any], asked: Options) -> str | None:
    """Name the first option that differs.

    Args:
        kept: options of a plan that was read.
        asked: options of this call.

    Returns:
        `tile 480, not 240`, for example; None where all are the same.
    """
    for name in [*asked, *(set(kept) - set(asked))]:
        if kept.get(name) != asked.get(name):
            return f"{name} {kept.get(name)}, not {asked.get(name)}"
    return None


@dataclass(kw_only=True)
class Progress:
    """How far the images are packed, and what was met until there.

    Attributes:
        image: number of the image that the next sample is of.
        sample: number of that sample within its image.
        num_flat: tiles left out, of the images before.
        num_reencoded: images encoded as JPEG, of those before.
        skipped: (path, reason) of the images that could not be used, of those before.
    """

    image: int = 0
    sample: int = 0
    num_flat: int = 0
    num_reencoded: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)


class Partial:
    """A folder in the making. Leaving its `with` keeps what is finished, or nothing where nothing is.

    Args:
        folder: made where it is missing; what an earlier pack by the same options finished in it is kept as far as
            the images are the same.
        plan: of this pack.

    Attributes:
        shards: the finished shards, in order.
        progress: how far they go.

    Raises:
        UserError: another process is packing there, or one by other options has begun.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, plan: PackPlan) -> None:
        self.folder = folder
        self.shards: list[Path] = []
        self.progress = Progress()
        self._plan = plan
        there = folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        self._journal: IO[bytes] = open(folder / JOURNAL_NAME, "a+b")  # noqa: SIM115 - closed by __exit__
        try:
            self._lock()
            self._refuse_other_options()
            self._take_over()
            write_whole(folder / PLAN_NAME, plan.to_json())
        except BaseException:
            if not there:
                shutil.rmtree(folder, ignore_errors=True)
            self._journal.close()
            raise

    def __enter__(self) -> Partial:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is not None and self.shards:
            log.info("%s: keeps %d finished shards; the same command goes on there", self.folder, len(self.shards))
        elif kind is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._journal.close()

    def begin_shard(self) -> Path:
        """Name the file to write the next shard to."""
        return self.folder / f"shard-{len(self.shards):06d}.tar.writing"

    def finish_shard(self, written: Path, progress: Progress) -> None:
        """Give a shard its name and remember it.

        Args:
            written: what `begin_shard` named, synced to disk.
            progress: the sample that the next shard begins with.
        """
        shard = written.with_suffix("")
        written.rename(shard)
        sync_folder(self.folder)
        self.shards.append(shard)
        self.progress = replace(progress, skipped=list(progress.skipped))
        line = {"bytes": shard.stat().st_size, "until": self._plan.until(progress.image), **asdict(progress)}
        self._journal.write(json.dumps(line).encode() + b"\n")
        sync(self._journal)

    def publish(self, final: Path) -> None:
        """Move the folder to its place, in one step."""
        sync_folder(self.folder)
        self.folder.rename(final)
        sync_folder(final.parent)
        (final / JOURNAL_NAME).unlink()

    def _lock(self) -> None:
        if not lock(self._journal.fileno(), wait=False):
            raise UserError(f"{self.folder}: another process is packing there: wait for it, or end it")

    def _refuse_other_options(self) -> None:
        kept = read_plan(self.folder)
        if kept and (difference := other_option(kept["options"], self._plan.options)):
            raise UserError(
                f"{self.folder}: a pack with {difference} was interrupted there: go on with the options of then, "
                "or delete that folder"
            )

    def _take_over(self) -> None:
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
            log.info("%s: goes on after %d of %d shards%s", self.folder, len(self.shards), len(lines), changed)
        for path in self.folder.iterdir():
            if path not in self.shards and path.name not in (PLAN_NAME, JOURNAL_NAME):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _checked(self, line: bytes, shard: Path) -> Progress | None:
        try:
            kept = json.loads(line)
            size, until = kept.pop("bytes"), kept.pop("until")
            progress = Progress(**kept | {"skipped": [(path, reason) for path, reason in kept["skipped"]]})
            same = shard.stat().st_size == size and self._plan.until(progress.image) == until
        except (OSError, ValueError, KeyError, TypeError, IndexError):  # the last line of a killed packer, half
            return None
        return progress if same else None
