"""Writes docs/configuration-reference.md from the configuration's classes: fields, types, limits, defaults, docstrings.

python docs/configuration_reference.py [--check]

With --check it writes nothing, and exits with 1 where the page is not what the classes say.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import AfterValidator, BaseModel, BeforeValidator, ByteSize
from pydantic.fields import FieldInfo

from srgan_dist.config.load import known_keys
from srgan_dist.config.root import Config

PAGE = Path(__file__).resolve().parent / "configuration-reference.md"

HEAD = """\
# Configuration reference

<!-- Written by `python docs/configuration_reference.py` from srgan_dist/config/. Do not edit: change the classes. -->

Every key, its type and limits, its default and what it does. A YAML file holds only what differs from the defaults, and
`--section.key=value` on the command line wins over the file: [Configuration](configuration.md) says how. Where a
section has several forms, its `name`, `kind` or `network` chooses one. `null` leaves the choice to the program.

{contents}
"""

_KEYS = known_keys()
_KEY = re.compile(r"(?<![\w.])(\w+(?:\.\w+)+)(?:=\w+)?")
_CHOICES = ("name", "kind", "network")  # the keys that say which class a section is
_KINDS: dict[Any, str] = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "`true` or `false`",
    Path: "path",
    ByteSize: "size, such as `64GiB`",
}
_COUNT_OR_AUTO = "`auto`, whole number from 1"  # its validator says more than the type
# What a validator demands beyond the types; one that is not here stops the program, so that no limit is left out.
_LIMITS = {
    "_as_tuple": "",
    "_as_number": "",
    "_ascends": "ascending",
    "_around_one": "1 lies between them",
    "_sums_to_one": "with sum 1",
    "_odd": "odd",
}


def reference() -> str:
    """The page, as Markdown."""
    sections = [
        (field.alias or name, field, list(_models(field.annotation))) for name, field in Config.model_fields.items()
    ]
    contents = " · ".join(f"[`{name}`](#{name})" for name, _, _ in sections)
    parts = [HEAD.format(contents=contents)]
    for name, field, models in sections:
        parts.append(f"## {name}\n\n{_sentence(field)}\n")
        parts += _section(name, models, field.default, text=_sentence(field))
    return "\n".join(parts)


def _section(key: str, models: list[type[BaseModel]], default: BaseModel, *, text: str) -> Iterator[str]:
    """The tables of one section: one for each class that it may be, and those of the sections inside."""
    for model in models:
        chosen = next(((name, get_args(model.model_fields[name].annotation)[0]) for name in _choice(model)), None)
        defaults = default if isinstance(default, model) else model()
        if chosen:
            mark = " (default)" if isinstance(default, model) else ""
            yield f"### {key}.{chosen[0]}={chosen[1]}{mark}\n\n{_sentence(model.model_fields[chosen[0]])}\n"
        elif "." in key:
            yield f"### {key}\n\n{text}\n"
        rows, inside = [], []
        for name, field in model.model_fields.items():
            path, value = f"{key}.{field.alias or name}", getattr(defaults, name)
            if name in _choice(model):
                continue
            if found := list(_models(field.annotation)):
                inside.append((path, found, value, _sentence(field)))
            else:
                rows.append(f"| `{path}` | {_type(field)} | {_value(value)} | {_sentence(field)} |")
        if rows:
            table = "\n".join(["| key | allowed | default | what it does |", "| --- | --- | --- | --- |", *rows])
            yield table + "\n"
        for path, found, value, sentence in inside:
            yield from _section(path, found, value, text=sentence)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The classes that a section may be; none where the key is a value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _choice(model: type[BaseModel]) -> list[str]:
    """The key that says that a section is of this class, if its section may be of several."""
    fields = model.model_fields
    return [name for name in _CHOICES if name in fields and len(_literals(fields[name].annotation)) == 1]


def _literals(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _sentence(field: FieldInfo) -> str:
    text = " ".join((field.description or "").split())
    if not text:
        raise SystemExit(f"a field without a docstring: {field}")
    parts = re.split(r"(`[^`]*`)", text)  # every other one is code already
    return "".join(part if part.startswith("`") else _marked(part) for part in parts)


def _marked(text: str) -> str:
    """Text with keys as code, and without what Markdown would take for markup."""
    text = re.sub(r"[|<*]", r"\\\g<0>", text)
    text = re.sub(r"\bNone\b", "`null`", text)
    return _KEY.sub(lambda key: f"`{key[0]}`" if key[1] in _KEYS else key[0], text)


def _type(field: FieldInfo) -> str:
    return _describe(field.annotation, field.metadata)


def _describe(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
    """What a value may be, in words."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return _describe(inner, [*more, *metadata])
    if any(isinstance(item, BeforeValidator) and item.func.__name__ == "_count_or_auto" for item in metadata):
        return _COUNT_OR_AUTO
    limits = [text for item in metadata if (text := _limit(item, whole=annotation is int))]
    return (", " if get_origin(annotation) is tuple else " ").join([_kind(annotation), *limits]).replace(" ,", ",")


def _kind(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join("`null`" if part is NoneType else _describe(part) for part in parts)
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin is tuple:
        if parts[-1] is Ellipsis:
            return f"list of {_describe(parts[0])}" if parts[0] is not str else "text, or a list of texts"
        one = _describe(parts[0])
        numbers = "whole numbers" if "whole number" in one else "numbers"
        return f"{len(parts)} {numbers} {one.removeprefix('whole ').removeprefix('number ')}"
    return _KINDS[annotation]


def _limit(item: Any, *, whole: bool) -> str:
    match item:
        case annotated_types.Gt(gt=int() as least) if whole:
            return f"from {least + 1}"
        case annotated_types.Gt(gt=least):
            return f"above {least:g}"
        case annotated_types.Ge(ge=least):
            return f"from {least:g}"
        case annotated_types.Lt(lt=most):
            return "to below 2^31" if most == 2**31 else f"to below {most:g}"
        case annotated_types.Le(le=most):
            return f"to {most:g}"
        case FieldInfo(metadata=limits):
            return " ".join(text for limit in limits if (text := _limit(limit, whole=whole)))
        case AfterValidator(func=function) | BeforeValidator(func=function):
            return _LIMITS[function.__name__]
        case _:
            raise SystemExit(f"docs/configuration_reference.py has no words for {item!r}")


def _value(value: Any) -> str:
    match value:
        case None:
            return "`null`"
        case bool():
            return f"`{str(value).lower()}`"
        case ByteSize():
            return f"`{value.human_readable().replace('.0', '')}`"
        case float():
            return f"`{value:g}`"
        case tuple():
            return f"`[{', '.join(_value(part).strip('`') for part in value)}]`"
        case _:
            return f"`{value}`"


def main() -> int:
    """Write the page, or compare it. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    if not parser.parse_args().check:
        PAGE.write_text(reference(), encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == reference():
        return 0
    sys.stderr.write(f"{PAGE.name} is not what the configuration's classes say: python docs/{Path(__file__).name}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
