"""Reading a configuration from YAML and the command line, and telling a mistake in it in one line."""

from __future__ import annotations

import argparse
import difflib
import re
import reprlib
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from srgan_dist.config.fields import Key, accepted_keys, choosers, is_list, known_keys, lists_of_sections, parts
from srgan_dist.config.help import full_help, in_words, kind, short_help
from srgan_dist.config.lists import split_list
from srgan_dist.config.perceptual import completed, without_preset
from srgan_dist.config.root import Config
from srgan_dist.config.suggest import meant_key, suggestion
from srgan_dist.config.yaml_file import read_list, read_yaml
from srgan_dist.errors import UserError
from srgan_dist.utils.secrets import shown_in, shown_tree

_Split = Callable[[str], list[Any]]

_PERCEPTUAL = "loss.perceptual."
_NOTHING = ("", "None", "null", "Null", "NULL", "~")  # None on the command line, as in YAML


def load_config(
    file: str | Path | Sequence[str | Path] | None, overrides: Sequence[str] = (), *, prog: str = "train.py"
) -> Config:
    """Read a configuration from YAML and the command line.

    Args:
        file: YAML file, or None for the defaults alone; of several, each wins over those before it.
        overrides: Arguments such as ``--train.steps=100``; they win over the files.
        prog: Name of the program in the help.

    Returns:
        The configuration, checked.

    Raises:
        UserError: A missing or malformed file, an unknown name, a value outside its limits; the message names
            the key, the value, what is allowed, and the nearest known name.
    """
    files = [file] if isinstance(file, (str, Path)) else file or []
    content: dict[str, Any] = {}
    places: dict[str, str] = {}
    for name in files:
        part, lines = read_yaml(Path(name))
        content = _chosen(content, _get(part, "loss.perceptual.network"))
        content = _merged(content, _with_perceptual(part, content), values=set(known_keys()))
        places |= {key: f"{name}:{line}: " for key, line in lines.items()}
    given = _read_overrides(overrides, prog=prog)
    content = _chosen(content, given.get("loss.perceptual.network"))
    given = _completed(given, content)
    for key, value in given.items():
        _set(content, key, value)
    place = _Places(places, given, otherwise=f"{files[-1]}: " if files else "")
    for key, split in _list_keys().items():
        if isinstance(value := _get(content, key), str):
            try:
                _set(content, key, split(value))
            except ValueError as error:
                raise UserError(f"{place(key)}{key} is {_brief(value)}: {error}") from None
    try:
        config = Config.model_validate(content)
    except ValidationError as error:
        raise UserError(_explain(error, place)) from None
    keys = accepted_keys()
    for name in config.run.allow_changes:
        if not any(key == name or key.startswith(f"{name}.") for key in keys):
            at = place("run.allow_changes")
            raise UserError(f"{at}run.allow_changes names an unknown key {_brief(name)}{suggestion(name)}")
    return config


def config_from(arguments: Sequence[str], *, prog: str) -> Config:
    """Read ``--config FILE``, which may stand there several times, and the overrides.

    Args:
        arguments: Those of the command; ``--help`` among them prints the common keys, ``--help-all`` every one, and
            exits.
        prog: Name of the program in the help.

    Raises:
        UserError: As `load_config`.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--config", action="append", default=[])
    try:
        known, overrides = finder.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise UserError(f"{shown_in(str(error))}; --help-all lists every option") from None
    if "" in known.config:  # of a script's variable that is not set
        raise UserError("--config is empty: give the name of a file, or leave it out")
    return load_config(known.config, overrides, prog=prog)


def _read_overrides(arguments: Sequence[str], *, prog: str) -> dict[str, Any]:
    """What the command line says of each key: text as it stands there, a list of texts, or None."""
    parser = _Parser(prog=prog, allow_abbrev=False)
    parser.add_argument("--config")
    parser.add_argument("--help-all", action=_FullHelp, nargs=0)
    for key in accepted_keys():
        parser.add_argument(f"--{key}", action="append", dest=key)
    given: dict[str, list[str]] = {key: texts for key, texts in vars(parser.parse_args(arguments)).items() if texts}
    given.pop("config", None)
    lists = _list_keys()
    return {key: _value(key, texts, split=lists.get(key)) for key, texts in given.items()}


def _value(key: str, texts: list[str], *, split: _Split | None) -> Any:
    if texts[-1].strip() in _NOTHING:
        return None
    if not split:
        return texts[-1]
    try:
        return [item for text in texts for item in split(text)]
    except ValueError as error:
        raise UserError(f"{key} is {_brief(' '.join(texts))}: {error}") from None


def _list_keys() -> dict[str, _Split]:
    """The keys that have several values, and what takes one text apart into them."""
    sections = lists_of_sections()
    keys = (key for part in parts() for key in part.keys if is_list(key.field))
    return {key.name: read_list if key.name in sections else split_list for key in keys}


def _chosen(content: dict[str, Any], network: Any) -> dict[str, Any]:
    """What a file or the command line wins over, without a preset whose network it leaves."""
    if not isinstance(below := _get(content, "loss.perceptual"), Mapping):
        return content
    return {**content, "loss": {**content["loss"], "perceptual": without_preset(below, network)}}


def _with_perceptual(part: dict[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says, with what a preset or an old key in it stands for; ``content`` is what it wins over."""
    perceptual, below = _get(part, "loss.perceptual"), _get(content, "loss.perceptual")
    if not isinstance(perceptual, Mapping):
        return part
    perceptual = completed(perceptual, below if isinstance(below, Mapping) else None)
    return {**part, "loss": {**part["loss"], "perceptual": perceptual}}


def _completed(given: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """What the command line says, likewise."""
    inside = {key.removeprefix(_PERCEPTUAL): value for key, value in given.items() if key.startswith(_PERCEPTUAL)}
    others = {key: value for key, value in given.items() if not key.startswith(_PERCEPTUAL)}
    below = _get(content, "loss.perceptual")
    perceptual = completed(inside, below if isinstance(below, Mapping) else None)
    return others | {_PERCEPTUAL + key: value for key, value in perceptual.items()}


def _merged(
    below: Mapping[str, Any], above: Mapping[str, Any], *, values: Set[str], prefix: str = ""
) -> dict[str, Any]:
    """Both, ``above`` winning. Its sections are copied, since in a file those that an alias repeats are one object.

    ``values`` are the keys that a mapping is the value of, not a section: they are replaced as a whole.
    """
    merged = dict(below)
    for key, value in above.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name not in values:
            old = merged.get(key)
            merged[key] = _merged(old if isinstance(old, dict) else {}, value, values=values, prefix=f"{name}.")
        else:
            merged[key] = None if isinstance(value, str) and value.strip() in _NOTHING else value
    return merged


def _get(content: Mapping[str, Any], key: str) -> Any:
    """The value of ``section.key``, or None."""
    value: Any = content
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _set(content: dict[str, Any], key: str, value: Any) -> None:
    """Set ``section.key``; a section that is none, by a mistake in the file, is left for what says so."""
    section, _, rest = key.partition(".")
    if not rest:
        content[key] = value
    elif isinstance(inner := content.setdefault(section, {}), dict):
        _set(inner, rest, value)


class _Places:
    """Where a key was given its value, as a message begins with it: a file and a line, or nothing.

    Args:
        lines: The file and the line of each key that a file has.
        given: What the command line says.
        otherwise: The place of what is in no line.
    """

    def __init__(self, lines: Mapping[str, str], given: Mapping[str, Any], *, otherwise: str) -> None:
        self.lines, self.given, self.otherwise = lines, given, otherwise

    def __call__(self, *keys: str) -> str:
        """The place of the first of several keys that a message is about; of a part of one, that of the whole."""
        around = [_and_around(key) for key in keys]
        if any(name in self.given for names in around for name in names):
            return ""  # the command line, which everybody sees
        whole = [key for key in keys if key in self.lines] + [name for names in around for name in names]
        return next((self.lines[name] for name in whole if name in self.lines), self.otherwise)


def _and_around(key: str) -> list[str]:
    """A key and the sections around it, the nearest first."""
    return [key, *_and_around(key.rpartition(".")[0])] if key else []


class _Parser(argparse.ArgumentParser):
    def format_help(self) -> str:
        return short_help(self.prog, width=shutil.get_terminal_size().columns)

    def error(self, message: str) -> NoReturn:
        if assignment := re.search(r"unrecognized arguments: ([\w.-]*\w)=(\S*)", shown_in(message)):
            key, value = assignment.groups()
            if not key.startswith("-"):
                raise UserError(f"{key}={value}: an option begins with two dashes: --{meant_key(key) or key}={value}")
        unknown = re.search(r"unrecognized arguments: --([\w.-]+)", message)
        if unknown:
            inside = [key for key in known_keys() if key.startswith(f"{unknown[1]}.")]
            if inside:
                raise UserError(f"--{unknown[1]} is a section: set its keys, such as --{inside[0]}")
            if whole := next((key for key in lists_of_sections() if unknown[1].startswith(f"{key}.")), None):
                raise UserError(f"--{unknown[1]}: {whole} is a list: --{whole}='[{_item_example(whole)}]'")
            raise UserError(f"unknown option --{unknown[1]}{suggestion(unknown[1])}")
        raise UserError(f"{shown_in(message)}; --help-all lists every option")


class _FullHelp(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        sys.stdout.write(full_help(parser.prog, width=shutil.get_terminal_size().columns))
        parser.exit()


def _explain(error: ValidationError, place: _Places) -> str:
    """One line for the first fault (and the number of the others), which begins with the place of its key."""
    faults = error.errors(include_url=False)
    fault = faults[0]
    key = _key_at(fault["loc"])
    at = place(key)
    match fault["type"]:
        case "extra_forbidden" if any("." in str(step) for step in fault["loc"]):
            text = f"{key} is written with a dot; in a file keys stand in their section: {_nested(key, fault['input'])}"
        case "extra_forbidden":
            text = f"unknown key {key}{suggestion(key)}"
        case "value_error":
            text = (f"{key}: " if key else "") + str(fault["ctx"]["error"])
            at = place(*_named(text, section=key), key)
        case "unknown_choice":
            chooser, allowed = _choice_at(key)
            text = _unknown_choice(key, chooser, allowed, fault["input"])
            at = place(f"{key}.{chooser}")
        case "model_type":
            inside = [name.removeprefix(f"{key}.") for name in known_keys() if name.startswith(f"{key}.")]
            text = f"{key} is {_brief(fault['input'])}; expected keys, such as {inside[0]}{_or_not(fault['input'])}"
        case _ if fault["input"] is None and (known := _key(key)):
            text = f"{key} is None; allowed: {kind(known.field)}{_or_not(None)}, {in_words(known.default)}"
        case "tuple_type":
            such = f"[{_item_example(key)}]" if key in lists_of_sections() else "[a, b]"
            text = f"{key} is {_brief(fault['input'])}; expected a list, such as {such}"
        case "string_type" if isinstance(fault["input"], (int, float)):
            text = f"{key} is {_brief(fault['input'])}; expected a text: put it in quotes"
        case _:
            text = f"{key} is {_brief(fault['input'])}: {fault['msg'][0].lower()}{fault['msg'][1:]}"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{at}{text}{more}"


def _choice_at(section: str) -> tuple[str, Sequence[str]]:
    """The key that chooses the class of a section, which may be one of a list, and the values that it may have."""
    if items := lists_of_sections().get(section.rpartition(".")[0]):
        chosen = [part.chosen for part in items if part.chosen]
        return chosen[0].key, [one.value for one in chosen]
    chooser = next(name for name in choosers() if name.rpartition(".")[0] == section)
    return chooser.rpartition(".")[2], choosers()[chooser]


def _item_example(key: str) -> str:
    """How a section of a list is written."""
    chooser, allowed = _choice_at(f"{key}.0")
    return f"{{{chooser}: {allowed[0]}}}"


def _or_not(value: Any) -> str:
    return "; leave it out for the default" if value is None else ""


def _key(name: str) -> Key | None:
    return next((key for part in parts() for key in part.keys if key.name == name), None)


def _nested(key: str, value: Any) -> str:
    """How a file has a key that is written with dots, such as ``data: {batch_size: 4}``."""
    *around, last = (meant_key(key) or key).split(".")
    text = f"{last}: {value if isinstance(value, (int, float)) else _brief(value)}"
    for section in reversed(around):
        text = f"{section}: {{{text}}}"
    return text


def _named(text: str, *, section: str) -> list[str]:
    """The keys that a message is about, in its order; within a section, also those that it names without it."""
    keys = set(known_keys())
    words = [word.rstrip(".") for word in re.findall(r"[\w.]+", text)]
    return [name for word in words for name in (word, f"{section}.{word}") if name in keys]


def _brief(value: Any) -> str:
    """A value as a message shows it: on one line, not endless, and without secrets."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = brief.maxlong = 100
    return brief.repr(shown_tree(value))


def _key_at(location: tuple[int | str, ...]) -> str:
    """The name of a key from pydantic's location, in which the values of choices stand as well."""
    items = (part for found in lists_of_sections().values() for part in found)
    chosen = {(part.path, part.chosen.value) for part in (*parts(), *items) if part.chosen}
    key = ""
    for step in location:
        if (re.sub(r"\.\d+$", "", key), step) not in chosen:
            key = f"{key}.{step}" if key else str(step)
    return key


def _unknown_choice(section: str, name: str, allowed: Sequence[str], value: Any) -> str:
    if not isinstance(value, Mapping):
        return f"{section} is {_brief(value)}; expected keys, such as {name}: {allowed[0]}{_or_not(value)}"
    close = difflib.get_close_matches(str(value.get(name)), allowed, n=1)
    meant = f"; did you mean {close[0]}?" if close else ""
    return f"{section}: {name} is {_brief(value.get(name))}; allowed: {', '.join(allowed)}{meant}"
