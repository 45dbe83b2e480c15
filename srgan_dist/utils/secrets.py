"""Sources of data as other people may see them: a URL or a command can hold a password, a token or a signature."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"

_COMMAND = r"(?i:pipe:)"
# The host ends at a slash, the path at the query, and that at the fragment; pathlib makes one slash of two.
_URL = r"((?<![\w+.-])[A-Za-z][\w+.-]+:/{{1,3}})([^/?#{end}]*)([^?#{end}]*)(\?[^#{end}]*)?(#[^\0{end}]*)?"
_WHOLE, _WITHIN = re.compile(_URL.format(end="")), re.compile(_URL.format(end=r"\s'\""))
_HOST = re.compile(r"(\[[\w:.%]*\]|[^:@[\]]*)(:\d*)?")
_PROGRAM = re.compile(r"\s*([\w./+-]+)(\s*)", re.ASCII)
_SEPARATORS = re.compile(r"[\s'\"`=&?;,|<>(){}$]+")
_SHORTEST = 4  # characters of a word that is hidden in what a command says: a shorter one is no secret


def shown(source: str) -> str:
    """A source without what may be secret: of a URL user, password, query and fragment, of a command its arguments.

    Args:
        source: A path, which stays as it is, a URL, or ``pipe:COMMAND``.
    """
    if command := re.match(rf"\s*{_COMMAND}", source):
        return command[0] + _program(source[command.end() :])
    return _WHOLE.sub(_masked_url, source)


def shown_in(text: str) -> str:
    """A text, such as an argument or another library's message, with the sources in it as `shown` has them.

    A command reaches from ``pipe:`` to the end of the text.
    """
    before, command, after = re.match(rf"(.*?)(\b{_COMMAND}|\Z)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    return _WITHIN.sub(_masked_url, before) + (command + _program(after) if command else "")


def shown_tree(tree: Any) -> Any:
    """Lists and mappings, such as a configuration in JSON's types, with every text in them as `shown` has it."""
    match tree:
        case str():
            return shown(tree)
        case Mapping():
            return {key: shown_tree(value) for key, value in tree.items()}
        case list() | tuple():
            return type(tree)(shown_tree(item) for item in tree)
        case _:
            return tree


def shown_by_command(text: str, source: str) -> str:
    """What a command printed, without the words of its command line, which programs repeat in their messages.

    Args:
        text: What it printed.
        source: ``pipe:COMMAND``.
    """
    program, *words = _SEPARATORS.split(re.sub(rf"^\s*{_COMMAND}\s*", "", source))
    for word in sorted({word for word in words if len(word) >= _SHORTEST} - {program}, key=len, reverse=True):
        text = text.replace(word, HIDDEN)
    return shown_in(text)


def _program(command: str) -> str:
    """The first word, if it is certain to be the program: before it can stand variables, quotes and brackets."""
    first = _PROGRAM.match(command)
    if not command.strip() or (first and first.end() == len(command)):
        return command
    return f"{first[1]} {HIDDEN}" if first and first[2] else HIDDEN


def _masked_url(found: re.Match[str]) -> str:
    scheme, authority, path, query, fragment = found.groups()
    user, at, host = authority.rpartition("@")
    if not _HOST.fullmatch(host):  # "/", "?" or "#" in the password: who knows where it ends
        return scheme + HIDDEN
    masked = (HIDDEN + at if user else at, host, path, query and f"?{HIDDEN}", fragment and f"#{HIDDEN}")
    return scheme + "".join(part for part in masked if part)
