"""Names of files as people write them, as the file system keeps them, and as one line shows them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from unicodedata import category

_MAX_BYTES = 255  # NAME_MAX of Linux, macOS and every file system that is common there
_UNSHOWN = ("Cc", "Cs", "Zl", "Zp")  # control characters, bytes that are no text, and what breaks a line


def expand_home(path: str | Path) -> Path:
    """A path with ``~`` and ``~USER`` replaced by the home folder; unchanged where there is no such user."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises where there is no such user


def beside(path: Path, *, before: str = "", after: str = "") -> Path:
    """A name beside a file or folder, made of its name; a long one is cut and gets a hash, so that the name can exist.

    Args:
        path: The file or folder.
        before: What the name begins with, in ASCII.
        after: What it ends with, in ASCII.
    """
    name = os.fsencode(path.name)
    room = _MAX_BYTES - len(before) - len(after)
    if len(name) > room:
        mark = b"-" + hashlib.sha256(name).hexdigest()[:12].encode()
        # A character of several bytes is not cut in two, as some file systems take whole characters only.
        kept = os.fsencode(name[: room - len(mark)].decode(errors="ignore"))
        name = kept + mark
    return path.with_name(f"{before}{os.fsdecode(name)}{after}")


def printable(text: str) -> str:
    """A text as one line shows it: line breaks, other control characters and bytes that are no text are escaped."""
    return "".join(
        character.encode("unicode_escape").decode() if category(character) in _UNSHOWN else character
        for character in text
    )
