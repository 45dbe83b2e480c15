"""Names of files as people write them, as the file system keeps them, and as one line shows them."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path
from unicodedata import category, normalize

_MAX_BYTES = 255  # NAME_MAX of Linux, macOS and every file system that is common there
_MAX_NAME = 80  # characters, of up to three bytes in UTF-8, and a few for what makes the name unique
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


def file_names(texts: Iterable[str]) -> list[str]:
    """Names that files or folders can have on every common system, made of texts such as the names of images.

    Args:
        texts: Any texts; equal ones get different names.

    Returns:
        For each text a name of letters, digits and ``-_ ()+,=@``, some 80 characters long at most, that differs from
        the others also where a file system does not tell upper from lower case. It is the text itself, where that can
        be.
    """
    names: list[str] = []
    taken: set[str] = set()
    for text in texts:
        plain = re.sub(r"[^\w ()+,=@-]", "_", normalize("NFC", text)).strip()[:_MAX_NAME].strip() or "_"
        candidates = itertools.chain([plain], (f"{plain}-{number}" for number in itertools.count(2)))
        name = next(name for name in candidates if name.casefold() not in taken)
        taken.add(name.casefold())
        names.append(name)
    return names


def printable(text: str) -> str:
    """A text as one line shows it: line breaks, other control characters and bytes that are no text are escaped."""
    return "".join(
        character.encode("unicode_escape").decode() if category(character) in _UNSHOWN else character
        for character in text
    )
