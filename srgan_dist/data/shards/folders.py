"""Opens packed folders, local or remote: their manifest and index are on local disk afterwards."""

from __future__ import annotations

import hashlib
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from srgan_dist.data.remote.cache import Cache, RemoteFile
from srgan_dist.data.remote.sources import PIPE, file_url, folder_url
from srgan_dist.data.shard_format.encodings import Encoding
from srgan_dist.data.shard_format.index_rows import INDEX_NAME, Rows, max_index_bytes
from srgan_dist.data.shard_format.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    Manifest,
    ShardEntry,
    manifest_path,
    read_manifest,
)
from srgan_dist.errors import UserError
from srgan_dist.utils.files import file_sha256, whole_file, write_whole
from srgan_dist.utils.locks import locked
from srgan_dist.utils.secrets import shown

_COMMAND_SHARD = "shard-000000.tar"
_FIRST_TRIES = 3  # at the start a user waits for the message; later an outage is waited out


@dataclass(frozen=True)
class Folder:
    """A packed folder.

    Attributes:
        name: Path or URL for use in messages.
        path: Local folder of manifest.json, index.npy, and the shards once they are fetched.
        manifest: Its manifest.
        url: Where shards are fetched from, a URL or `pipe:COMMAND`; None where they are in `path`.
    """

    name: str
    path: Path
    manifest: Manifest
    url: str | None = None

    def remote_file(self, shard: ShardEntry) -> RemoteFile | None:
        """Return what to fetch for a shard; None where it is local."""
        if self.url is None:
            return None
        url = self.url if self.url.startswith(PIPE) else file_url(self.url, shard.name)
        return RemoteFile(url, self.path / shard.name, shard.bytes, shard.sha256)


def open_local(path: str) -> Folder:
    """Open a folder on this machine, after comparing its shards' sizes with the manifest.

    Args:
        path: The folder or its manifest.json.

    Returns:
        The folder.

    Raises:
        UserError: The folder is not packed, or a shard is missing or has another size.
    """
    folder, manifest = manifest_path(path).parent, read_manifest(path)
    for shard in manifest.shards:
        shard_path = folder / shard.name
        try:
            status = shard_path.stat()
        except OSError as error:
            raise UserError(f"{shard_path}: shard cannot be found ({error.strerror}): copy it again") from error
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its writer
            raise UserError(f"{shard_path}: shard is no plain file: copy it again")
        if status.st_size != shard.bytes:
            raise UserError(
                f"{shard_path}: shard has {status.st_size} bytes, the manifest says {shard.bytes}: "
                "copy it again, or pack again"
            )
    return Folder(path, folder, manifest)


def open_url(source: str, cache: Cache) -> Folder:
    """Fetch the manifest and the index of a remote folder.

    Both are stored in a folder of the cache that is named by a hash of the URL, without its query, whose signature may
    change every day, and the index's digest, so that data that is packed again under its old name is never mixed with
    the old data.

    Args:
        source: URL of the folder or its manifest.json.
        cache: Cache that stores them.

    Returns:
        The folder; its shards are not fetched yet.

    Raises:
        UserError: The folder is missing, not packed, or access is refused.
        Failure: The server cannot be reached.
    """
    url = folder_url(source)
    manifest_url = file_url(url, MANIFEST_NAME)
    with _scratch(cache) as scratch:
        fetched = scratch / MANIFEST_NAME
        cache.fetch(RemoteFile(manifest_url, fetched, None, None, MAX_MANIFEST_BYTES), tries=_FIRST_TRIES)
        try:
            manifest = read_manifest(fetched)
        except UserError as error:
            raise UserError(str(error).replace(str(fetched), shown(manifest_url))) from error
        folder = _folder(cache, shown(url), manifest.index_sha256)
        fetched.replace(folder / MANIFEST_NAME)
    most = max_index_bytes(manifest.num_samples)
    index = RemoteFile(file_url(url, INDEX_NAME), folder / INDEX_NAME, None, manifest.index_sha256, most)
    cache.fetch(index, tries=_FIRST_TRIES)
    return Folder(shown(url), folder, manifest, url)


def open_command(
    source: str, cache: Cache, index_tar: Callable[[Path], tuple[Rows, Encoding]], *, scale: int
) -> Folder:
    """Open the tar that a command writes: run it once to index it, and again whenever the tar was evicted.

    Args:
        source: `pipe:COMMAND`.
        cache: Cache that stores the tar.
        index_tar: Returns the index of a tar and the encoding of its members.
        scale: HR pixels per LR pixel.

    Returns:
        A folder of one shard.

    Raises:
        UserError: The command failed, or did not write a tar of samples.
        Failure: The command stayed silent for too long.
    """
    folder = _folder(cache, source)
    shard = folder / _COMMAND_SHARD
    with locked(folder / ".lock", wait=True):  # one process runs the command, the others find the index
        if not (folder / MANIFEST_NAME).exists():
            cache.fetch(RemoteFile(source, shard, None, None), tries=1)
            try:
                _describe(folder, shard, *index_tar(shard), scale=scale)
            except UserError:
                shard.unlink(missing_ok=True)
                raise
    return Folder(shown(source), folder, read_manifest(folder), source)


def refuse_small_cache(folders: Sequence[Folder], cache: Cache, window_shards: int | None) -> None:
    """Refuse a cache that cannot hold two shuffle windows: the one that is read, and the next one, which is fetched.

    Args:
        folders: All folders of the training set.
        cache: The cache.
        window_shards: Shards in a shuffle window; None for all.

    Raises:
        UserError: The cache is too small; the message names values that fit.
    """
    sizes = sorted((s.bytes for folder in folders if folder.url for s in folder.manifest.shards), reverse=True)
    needed = sum(sizes[: 2 * window_shards] if window_shards else sizes)
    if needed <= cache.max_bytes:
        return
    fitting = int(np.searchsorted(np.cumsum(sizes), cache.max_bytes, side="right")) // 2
    smaller = f", or set data.window_shards to at most {fitting}" if fitting else ""
    what = f"two windows of {window_shards} shards take" if window_shards else "all remote shards together take"
    raise UserError(f"data.cache_size is {cache.max_bytes} bytes, but {what} up to {needed}: raise it to that{smaller}")


def _describe(folder: Path, shard: Path, index: Rows, encoding: Encoding, *, scale: int) -> None:
    with whole_file(folder / INDEX_NAME) as path, open(path, "wb") as file:
        np.save(file, index)
    entry = ShardEntry(shard.name, shard.stat().st_size, file_sha256(shard), len(index))
    manifest = Manifest(
        scale=scale,
        tile=int(max(index["height"].max(), index["width"].max())),
        encoding=encoding,
        kernel="unknown",
        num_samples=len(index),
        num_images=len(index),
        index_sha256=file_sha256(folder / INDEX_NAME),
        shards=(entry,),
        created_by=f"srgan-dist {version('srgan-dist')}, from a command",
    )
    write_whole(folder / MANIFEST_NAME, manifest.to_json())


def _folder(cache: Cache, *identity: str) -> Path:
    folder = cache.folder / hashlib.sha256("\n".join(identity).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _scratch(cache: Cache) -> Iterator[Path]:
    try:
        cache.folder.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=cache.folder, prefix=".fetching-")
    except OSError as error:
        raise UserError(
            f"{cache.folder}: the cache for remote shards cannot be made ({error.strerror}): set data.cache_dir"
        ) from error
    with scratch as path:
        yield Path(path)
