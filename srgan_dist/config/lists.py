"""Several values in one text, as a command line gives them and a configuration file may."""

from __future__ import annotations

import re

_CLOSING = {"{": "}", "[": "]"}
_QUOTED = re.compile(r"""\s*("[^"]*"|'[^']*')\s*(?=,|$)""")
_COMMAND = "pipe:"  # what follows it is a shell's, with commas, quotes and brackets of its own


def split_list(text: str) -> list[str]:
    """The parts of ``a,b`` or ``[a,b]``.

    A comma within braces or brackets, which patterns of names have, separates nothing, nor does one within an item in
    quotes, which then are not part of the item, nor any of a command (``pipe:...``).

    Args:
        text: Such as ``shards/{a,b},more``.

    Returns:
        The parts, without blanks around them: here ``shards/{a,b}`` and ``more``.
    """
    text = text.strip()
    if text.startswith("[") and _end(text, 0) == len(text) - 1:
        text = text[1:-1].strip()
        if not text:
            return []
    if not text.startswith(_COMMAND):
        text = text.removesuffix(",")
    items, start = [], 0
    while start <= len(text):
        if quoted := _QUOTED.match(text, start):
            items.append(quoted[1][1:-1])
            start = quoted.end() + 1
            continue
        end = len(text) if text[start:].lstrip().startswith(_COMMAND) else _comma(text, start)
        items.append(text[start:end].strip())
        start = end + 1
    return items


def _comma(text: str, start: int) -> int:
    """Where the next comma is that separates two items; the length of the text where none does."""
    position = start
    while position < len(text) and text[position] != ",":
        end = _end(text, position) if text[position] in _CLOSING else None
        position = (position if end is None else end) + 1  # a bracket that nothing closes is a letter like any other
    return position


def _end(text: str, start: int) -> int | None:
    """Where the bracket closes that opens at ``start``."""
    closing: list[str] = []
    for position in range(start, len(text)):
        if text[position] in _CLOSING:
            closing.append(_CLOSING[text[position]])
        elif text[position] == closing[-1]:
            closing.pop()
            if not closing:
                return position
    return None
