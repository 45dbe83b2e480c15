"""What `data.train` may name: packed folders by path, glob, brace pattern or URL, and commands that write a tar."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

from braceexpand import braceexpand

from srgan_dist.data.shard_format.manifest import MANIFEST_NAME, manifest_path
from srgan_dist.errors import UserError
from srgan_dist.utils.secrets import shown

PIPE = "pipe:"
SCHEMES = ("https", "http", "s3", "gs", "file")


def expand_sources(entries: Sequence[str | Path]) -> list[str]:
    """Expand globs and brace patterns, and refuse entries that cannot name packed data.

    A path that exists is taken literally, whatever characters it contains; `~` is the home folder. Brace patterns
    (`shards/{a,b}`, `shard-{0..3}`) work in paths and URLs, globs (`shards/div2k-*`) in paths only, and leave out
    folders that are not packed. Commands (`pipe:COMMAND`) are not expanded.

    Args:
        entries: The entries of `data.train`.

    Returns:
        Paths of packed folders or of their manifest.json, URLs of such, and commands; in the order of the
        entries, matches of a glob in the order of their names.

    Raises:
        UserError: An entry is malformed, has an unsupported scheme, or is a glob that matches no packed folder.
    """
    return [source for entry in entries for source in _expand(str(entry))]


def is_remote(source: str) -> bool:
    """Return whether a source, being a URL or a command, has to be fetched before it can be read."""
    return source.startswith(PIPE) or "://" in source


def folder_url(url: str) -> str:
    """Return the URL of a packed folder, given this URL or that of its manifest.json; a query is kept."""
    path, mark, query = url.partition("?")
    return path.removesuffix(MANIFEST_NAME).rstrip("/") + mark + query


def file_url(folder: str, name: str) -> str:
    """Return the URL of a file in a folder; a query is kept."""
    path, mark, query = folder.partition("?")
    return f"{path}/{quote(name) if path.startswith('http') else name}{mark}{query}"


def _expand(entry: str) -> Iterator[str]:
    if entry.startswith(PIPE):
        if not entry.removeprefix(PIPE).strip():
            raise UserError("'pipe:' names no command, expected pipe:COMMAND that writes a tar to its standard output")
        yield entry
        return
    if not is_remote(entry) and os.path.exists(local := os.path.expanduser(entry)):  # noqa: PTH110, PTH111
        yield local
        return
    try:
        patterns = list(braceexpand(entry))
    except ValueError as error:
        raise UserError(f"{shown(entry)!r}: braces do not match, expected for example shards/{{a,b}}") from error
    for pattern in patterns:
        if is_remote(pattern):
            yield _checked_url(pattern)
        else:
            yield from _local(os.path.expanduser(pattern))  # noqa: PTH111


def _local(pattern: str) -> list[str]:
    return _matches(pattern) if glob.has_magic(pattern) and not os.path.exists(pattern) else [pattern]  # noqa: PTH110


def _matches(pattern: str) -> list[str]:
    found = sorted(glob.glob(pattern))  # noqa: PTH207 - Path.glob takes no absolute pattern
    packed = [path for path in found if ".partial-" not in path and manifest_path(path).is_file()]
    if not packed:
        what = f"matches {len(found)} paths, none of them" if found else "matches nothing, expected"
        raise UserError(f"'{pattern}': {what} a folder made by `srgan-dist pack`")
    return packed


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise UserError(f"{shown(url)}: scheme {parts.scheme!r}, allowed are {', '.join(SCHEMES)}, pipe: and paths")
    if parts.scheme == "file":  # a folder on a shared file system, to be staged to the local disks of the nodes
        if parts.netloc or not parts.path.startswith("/"):
            raise UserError(f"{shown(url)}: expected file:///ABSOLUTE/PATH")
    elif not parts.netloc:
        raise UserError(f"{shown(url)}: names no host or bucket, expected {parts.scheme}://PLACE/FOLDER")
    if "@" in parts.netloc:
        raise UserError(
            f"{shown(url)}: holds a password, which is not sent: use a signed URL, s3:// with credentials, or "
            "pipe:COMMAND"
        )
    if glob.has_magic(parts.path):
        raise UserError(f"{shown(url)}: globs work in local paths only, list the folders or use braces: {{a,b}}")
    return url
