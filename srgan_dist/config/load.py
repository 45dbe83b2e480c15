"""Reading a configuration from YAML and the command line, and telling a mistake in it in one line."""

from __future__ import annotations

import argparse
import difflib
import re
import reprlib
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from srgan_dist.config.fields import choosers, is_list, known_keys, parts
from srgan_dist.config.help import full_help, short_help
from srgan_dist.config.root import Config
from srgan_dist.config.yaml_file import read_yaml
from srgan_dist.errors import UserError
from srgan_dist.utils.secrets import shown_in, shown_tree


def load_config(file: str | Path | None, overrides: Sequence[str] = (), *, prog: str = "train.py") -> Config:
    """Read a configuration from YAML and the command line.

    Args:
        file: YAML file, or None for the defaults alone.
        overrides: Arguments such as ``--train.steps=100``; they win over the file.
        prog: Name of the program in the help.

    Returns:
        The configuration, checked.

    Raises:
        UserError: A missing or malformed file, an unknown name, a value outside its limits; the message names
            the key, the value, what is allowed, and the nearest known name.
    """
    content, lines = read_yaml(Path(file)) if file else ({}, {})
    given = _read_overrides(overrides, prog=prog)
    for key, value in given.items():
        _set(content, key, value)
    try:
        config = Config.model_validate(content)
    except ValidationError as error:
        raise UserError(_explain(error, partial(_place, file, lines, given))) from None
    keys = known_keys()
    for name in config.run.allow_changes:
        if not any(key == name or key.startswith(f"{name}.") for key in keys):
            raise UserError(f"run.allow_changes names an unknown key {_brief(name)}{_nearest(name)}")
    return config


def config_from(arguments: Sequence[str], *, prog: str) -> Config:
    """Read ``--config FILE`` and the overrides.

    Args:
        arguments: Those of the command; ``--help`` among them prints the common keys, ``--help-all`` every one, and
            exits.
        prog: Name of the program in the help.

    Raises:
        UserError: As `load_config`.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--config")
    try:
        known, overrides = finder.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise UserError(f"{shown_in(str(error))}; --help-all lists every option") from None
    return load_config(Path(known.config) if known.config else None, overrides, prog=prog)


def _read_overrides(arguments: Sequence[str], *, prog: str) -> dict[str, Any]:
    """What the command line says of each key: text as it stands there, a list of texts, or None."""
    parser = _Parser(prog=prog, allow_abbrev=False)
    parser.add_argument("--config")
    parser.add_argument("--help-all", action=_FullHelp, nargs=0)
    lists = {key.name for part in parts() for key in part.keys if is_list(key.field)}
    for key in known_keys():
        parser.add_argument(f"--{key}", action="append", dest=key)
    given: dict[str, list[str]] = {key: texts for key, texts in vars(parser.parse_args(arguments)).items() if texts}
    given.pop("config", None)
    return {key: _value(texts, is_list=key in lists) for key, texts in given.items()}


def _value(texts: list[str], *, is_list: bool) -> Any:
    if texts[-1].strip() == "None":
        return None
    return [item for text in texts for item in _items(text)] if is_list else texts[-1]


def _items(text: str) -> list[str]:
    """The parts of ``a,b`` or ``[a,b]``; a comma within quotes or braces separates nothing."""
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1].strip()
        if not text:
            return []
    items, quoted, depth = [""], False, 0
    for character in text:
        quoted ^= character == '"'
        depth += 0 if quoted else {"{": 1, "}": -1}.get(character, 0)
        if character == "," and not quoted and depth == 0:
            items.append("")
        else:
            items[-1] += character
    return [re.sub(r'^"(.*)"$', r"\1", item.strip()) for item in items]


def _set(content: dict[str, Any], key: str, value: Any) -> None:
    """Set ``section.key``; a section that is none, by a mistake in the file, is left for what says so."""
    section, _, rest = key.partition(".")
    if not rest:
        content[key] = value
    elif isinstance(inner := content.setdefault(section, {}), dict):
        _set(inner, rest, value)


class _Parser(argparse.ArgumentParser):
    def format_help(self) -> str:
        return short_help(self.prog, width=shutil.get_terminal_size().columns)

    def error(self, message: str) -> NoReturn:
        unknown = re.search(r"unrecognized arguments: --([\w.-]+)", message)
        if unknown:
            inside = [key for key in known_keys() if key.startswith(f"{unknown[1]}.")]
            if inside:
                raise UserError(f"--{unknown[1]} is a section: set its keys, such as --{inside[0]}")
            raise UserError(f"unknown option --{unknown[1]}{_nearest(unknown[1])}")
        raise UserError(f"{shown_in(message)}; --help-all lists every option")


class _FullHelp(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        sys.stdout.write(full_help(parser.prog, width=shutil.get_terminal_size().columns))
        parser.exit()


def _nearest(key: str) -> str:
    keys = known_keys()
    if key in keys:
        chooser = next(name for name in choosers() if key.startswith(f"{name.rpartition('.')[0]}."))
        return f"; it belongs to another {chooser} than the one chosen"
    sections = sorted({name.split(".")[0] for name in keys})
    close = difflib.get_close_matches(key, keys if "." in key else sections + keys, n=1, cutoff=0.5)
    if not close:  # the right key in the wrong section
        last = key.rsplit(".", 1)[-1]
        close = [name for name in keys if name.rsplit(".", 1)[-1] == last][:1]
    return f"; did you mean {close[0]}?" if close else f"; the sections are {', '.join(sections)}"


def _explain(error: ValidationError, place: Callable[[str], str]) -> str:
    """One line for the first fault (and the number of the others), which begins with the place of its key."""
    faults = error.errors(include_url=False)
    fault = faults[0]
    key = _key_at(fault["loc"])
    match fault["type"]:
        case "extra_forbidden":
            text = f"unknown key {key}{_nearest(key)}"
        case "value_error":
            text = (f"{key}: " if key else "") + str(fault["ctx"]["error"])
        case "unknown_choice":
            text = _unknown_choice(key, fault["input"])
        case "model_type":
            inside = [name.removeprefix(f"{key}.") for name in known_keys() if name.startswith(f"{key}.")]
            text = f"{key} is {_brief(fault['input'])}; expected keys, such as {inside[0]}"
        case _:
            text = f"{key} is {_brief(fault['input'])}: {fault['msg'][0].lower()}{fault['msg'][1:]}"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{place(key)}{text}{more}"


def _place(file: str | Path | None, lines: Mapping[str, int], given: Mapping[str, Any], key: str) -> str:
    """The file and the line of a key, or of the section around it; nothing where the command line has it."""
    if not file or key in given:
        return ""
    while key and key not in lines:
        key = key.rpartition(".")[0]
    return f"{file}:{lines[key]}: " if key else f"{file}: "


def _brief(value: Any) -> str:
    """A value as a message shows it: on one line, not endless, and without secrets."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = brief.maxlong = 100
    return brief.repr(shown_tree(value))


def _key_at(location: tuple[int | str, ...]) -> str:
    """The name of a key from pydantic's location, in which the values of choices stand as well."""
    chosen = {(part.path, part.chosen.value) for part in parts() if part.chosen}
    key = ""
    for step in location:
        if (key, step) not in chosen:
            key = f"{key}.{step}" if key else str(step)
    return key


def _unknown_choice(section: str, value: Any) -> str:
    chooser, allowed = next((key, values) for key, values in choosers().items() if key.rpartition(".")[0] == section)
    name = chooser.rpartition(".")[2]
    if not isinstance(value, Mapping):
        return f"{section} is {_brief(value)}; expected keys, such as {name}: {allowed[0]}"
    return f"{section}: {name} is {_brief(value.get(name))}; allowed: {', '.join(allowed)}"
