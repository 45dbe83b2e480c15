"""What ``--help`` and ``--help-all`` say of the configuration, read off its classes."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator, ByteSize
from pydantic.fields import FieldInfo

from srgan_dist.config.base import choice_key, choices
from srgan_dist.config.fields import Key, Part, parts

_COLUMN = 37  # where the short help's descriptions begin
_KINDS: dict[Any, str] = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    str: "text",
    Path: "path",
    ByteSize: "size, such as 64GiB",
}


def short_help(prog: str, *, width: int) -> str:
    """Common keys with their defaults, and all choices, by section.

    Args:
        prog: Name of the program.
        width: Columns of the terminal.
    """
    lines = _head(
        prog, "The common keys, with their defaults (--help-all: every key, with its type and limits).", width
    )
    for section, group in groupby(parts(), lambda part: part.path.partition(".")[0]):
        rows = _rows(list(group))
        lines += [f"{section}:"] if rows else []
        for option, allowed, text in rows:
            left = f"  {option} ".ljust(_COLUMN) + allowed
            lines.append((left + _shortened(text, width - len(left))).rstrip())
    return "\n".join(lines) + "\n"


def full_help(prog: str, *, width: int) -> str:
    """Every key of every choice, with its type, limits, default and description.

    Args:
        prog: Name of the program.
        width: Columns of the terminal.
    """
    lines = _head(prog, "Every key, with its type, limits and default.", width)
    for part in parts():
        name = f"{part.chooser}={part.chosen.value}" if part.chosen else part.path
        mark = " (default)" if part.chosen and part.is_default else ""
        lines += ["", *_wrapped(f"{name}{mark}: {describe(part)}", width, indent="", hanging="    ")]
        for key in part.keys:
            facts = f"{kind(key.field)}; default: {in_words(key.default)}"
            lines += _wrapped(f"--{key.name} ({facts})", width, indent="  ", hanging="    ")
            lines += _wrapped(sentence(key.field), width, indent="      ")
            for item in key.items:
                lines += _item(item, width)
    return "\n".join(lines) + "\n"


def describe(part: Part) -> str:
    """What a section is for; of one that is chosen, what it is."""
    if not part.chosen:
        return part.description
    text = sentence(part.section.model_fields[part.chosen.key])
    if "scales" in part.section.__class_vars__:
        scales: tuple[int, ...] = vars(part.section)["scales"]
        text = f"{text.removesuffix('.')}; data.scale {', '.join(map(str, scales))}."
    return text


def sentence(field: FieldInfo) -> str:
    """The docstring of a key, on one line."""
    return " ".join((field.description or "").split())


def kind(field: FieldInfo) -> str:
    """What a key's value may be, such as ``whole number from 1 or auto``."""
    return _kind(field.annotation, field.metadata)


def in_words(value: Any) -> str:
    """A value as one writes it."""
    match value:
        case bool():
            return str(value).lower()
        case ByteSize():
            return value.human_readable().replace(".0", "")
        case float():
            return f"{value:g}"
        case Mapping():
            return f"{{{', '.join(f'{key}: {in_words(one)}' for key, one in value.items())}}}"
        case tuple():
            return f"[{', '.join(map(in_words, value))}]"
        case _:
            return str(value)


def _head(prog: str, text: str, width: int) -> list[str]:
    usage = f"usage: {prog} [--config FILE | --from-run RUN] [--SECTION.KEY=VALUE ...]"
    text = (
        "Train a super-resolution GAN. The YAML file holds what differs from the defaults, and the command line wins "
        "over it. --from-run takes the configuration of a run and trains it again, in a folder beside it. "
        f"{text}"
    )
    return [usage, "", *textwrap.wrap(text, width)]


def _rows(group: list[Part]) -> list[tuple[str, str, str]]:
    """What to type, what else is allowed, and what it does, for a section and those inside it."""
    rows: list[tuple[str, str, str]] = []
    for _, same in groupby(group, lambda part: part.path):
        alternatives = sorted(same, key=lambda part: not part.is_default)
        for part in alternatives:
            if part.chosen:
                rows.append((f"--{part.chooser}={part.chosen.value}", "", describe(part)))
        # A key of several choices stands once, with the default that it has in the first of them.
        common: dict[str, Key] = {}
        for key in (key for part in alternatives for key in part.keys if key.is_common):
            common.setdefault(key.name, key)
        for key in common.values():
            is_literal = get_origin(key.field.annotation) is Literal
            allowed = f"{kind(key.field)}. " if is_literal else ""
            rows.append((f"--{key.name}={in_words(key.default)}", allowed, sentence(key.field)))
    return rows


def _item(part: Part, width: int) -> list[str]:
    """What a section in a list may be, below the key whose value is the list."""
    name = f"{part.chosen.key}: {part.chosen.value}" if part.chosen else part.path
    lines = _wrapped(f"{name} - {describe(part)}", width, indent="      ", hanging="    ")
    for key in part.keys:
        facts = f"{kind(key.field)}; default: {in_words(key.default)}"
        text = f"{key.name.rpartition('.')[2]} ({facts}): {sentence(key.field)}"
        lines += _wrapped(text, width, indent="        ", hanging="    ")
    return lines


def _shortened(text: str, width: int) -> str:
    """The beginning of a description: up to a comma or the like, if that leaves enough of it."""
    if len(text) <= width:
        return text
    if width < 12:
        return ""
    ends = [found.start() for found in re.finditer(r"[,;:](?= )|\.(?= [A-Z])| \(", text) if found.start() <= width]
    if ends and ends[-1] >= width / 2:
        return text[: ends[-1]]
    return textwrap.shorten(text, width, placeholder=" ...", break_on_hyphens=False)


def _wrapped(text: str, width: int, *, indent: str, hanging: str = "") -> list[str]:
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent + hanging, break_on_hyphens=False)


def _kind(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0], [*arguments[1:], *metadata])
    if origin in (Union, UnionType):
        if sections := choices(annotation):
            text = f"section whose {choice_key(annotation)} is {', '.join(sections)}"
        else:
            text = " or ".join("None" if one is NoneType else _kind(one) for one in arguments)
    elif origin is Literal:
        text = ", ".join(map(str, arguments))
    elif origin is tuple:
        several = re.sub(r"\b(number|text|section)\b", r"\1s", _kind(arguments[0]))
        text = f"list of {several}" if arguments[-1] is Ellipsis else f"{len(arguments)} {several}"
    elif origin is dict:
        text = "names with numbers" if arguments[1] is float else "mapping, such as {key: value}"
    else:
        text = _KINDS[annotation]
    return text + "".join(limit for item in metadata for limit in _limits(item, whole=annotation is int))


def _limits(item: Any, *, whole: bool) -> list[str]:
    """What is said of a limit, after what it limits."""
    match item:
        case Gt(gt=least):
            return [f" from {least + 1}" if whole else f" above {least:g}"]  # type: ignore[operator]
        case Ge(ge=least):
            return [f" from {least:g}"]
        case Lt(lt=most):
            return [f" below {most}" if whole else f" below {most:g}"]
        case Le(le=most):
            return [f" to {most:g}"]
        case FieldInfo():
            return [limit for inner in item.metadata for limit in _limits(inner, whole=whole)]
        case AfterValidator():
            return [f", {(item.func.__doc__ or '').strip(' .').lower()}"]
        case _:
            return []
