"""Reading a configuration from YAML and the command line, and telling a mistake in it in one line."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import CliSettingsSource

from srgan_dist.config.root import Config
from srgan_dist.errors import UserError


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
    parser = _Parser(prog=prog, description="Train a super-resolution GAN.", allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="YAML file with what differs from the defaults")
    source: Any = CliSettingsSource(
        Config,
        root_parser=parser,
        cli_parse_args=list(overrides),
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )
    try:
        config = Config(_cli_settings_source=source, **_read_yaml(file))  # type: ignore[call-arg, unused-ignore]
    except ValidationError as error:
        raise UserError(_explain(error, file)) from None
    keys = known_keys()
    for name in config.run.allow_changes:
        if not any(key == name or key.startswith(f"{name}.") for key in keys):
            raise UserError(f"run.allow_changes names an unknown key {name}{_nearest(name)}")
    return config


def config_from(arguments: Sequence[str], *, prog: str) -> Config:
    """Read ``--config FILE`` and the overrides.

    Args:
        arguments: Those of the command; ``--help`` among them prints every field and exits.
        prog: Name of the program in the help.

    Raises:
        UserError: As `load_config`.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--config")
    try:
        known, overrides = finder.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise UserError(f"{error}; --help lists every option") from None
    return load_config(Path(known.config) if known.config else None, overrides, prog=prog)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        unknown = re.search(r"unrecognized arguments: --([\w.-]+)", message)
        if unknown:
            raise UserError(f"unknown option --{unknown[1]}{_nearest(unknown[1])}")
        raise UserError(f"{message}; --help lists every option")


def _read_yaml(file: str | Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: cannot read the configuration: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{file}: expected sections such as 'train:' with keys, got {type(content).__name__}")
    return content


def known_keys() -> list[str]:
    """Every ``section.key`` that a configuration may have."""

    def walk(model: type[BaseModel], prefix: str) -> Iterator[str]:
        for name, field in model.model_fields.items():
            key = prefix + (field.alias or name)
            sections = [part for part in _classes(field.annotation) if issubclass(part, BaseModel)]
            yield from [key] if not sections else []
            for section in sections:
                yield from walk(section, f"{key}.")

    return list(dict.fromkeys(walk(Config, "")))


def _classes(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and not hasattr(annotation, "__origin__"):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _classes(part)


def _nearest(key: str) -> str:
    keys = known_keys()
    if key in keys:
        choice = {"loss": "loss.perceptual.network", "data": "data.degradation.kind"}.get(
            key.split(".")[0], f"{key.split('.')[0]}.name"
        )
        return f"; it belongs to another {choice} than the one chosen"
    sections = sorted({name.split(".")[0] for name in keys})
    close = difflib.get_close_matches(key, keys if "." in key else sections + keys, n=1, cutoff=0.5)
    if not close:  # the right key in the wrong section
        last = key.rsplit(".", 1)[-1]
        close = [name for name in keys if name.rsplit(".", 1)[-1] == last][:1]
    return f"; did you mean {close[0]}?" if close else f"; the sections are {', '.join(sections)}"


def _explain(error: ValidationError, file: str | Path | None) -> str:
    """One line for the first fault (and the number of the others)."""
    faults = error.errors(include_url=False)
    fault = faults[0]
    tags = {"srresnet", "rrdb", "msrresnet", "vgg", "unet", "vgg19", "efficientnet_lite0"}
    tags |= {"stored", "bicubic", "realesrgan", "noise"}
    path = [str(part) for part in fault["loc"]]
    key = ".".join(part for i, part in enumerate(path) if not (part in tags and 0 < i < len(path) - 1))
    where = f"{file}: " if file else ""
    match fault["type"]:
        case "extra_forbidden":
            text = f"unknown key {key}{_nearest(key)}"
        case "value_error":
            text = (f"{key}: " if key else "") + str(fault["ctx"]["error"])
        case "unknown_choice":
            text = f"{key}: {_unknown_choice(key, fault['input'])}"
        case _:
            text = f"{key} is {fault['input']!r}: {fault['msg'][0].lower()}{fault['msg'][1:]}"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{where}{text}{more}"


def _unknown_choice(key: str, value: Any) -> str:
    choices = {
        "generator": ("name", "srresnet, rrdb, msrresnet"),
        "discriminator": ("name", "vgg, unet"),
        "loss.perceptual": ("network", "vgg19, efficientnet_lite0"),
        "data.degradation": ("kind", "stored, bicubic, realesrgan, noise"),
    }
    name, allowed = choices[key]
    got = value.get(name) if isinstance(value, Mapping) else value
    return f"{name} is {got!r}; allowed: {allowed}"
