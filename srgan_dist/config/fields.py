"""Every section and key of the configuration, read off its classes: for the help, and for what is said of a mistake."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from srgan_dist.config.base import Section, choice_key, choices, is_section
from srgan_dist.config.root import Config


class Chosen(NamedTuple):
    """What makes a section the one that it is, among several."""

    key: str
    """Within the section: name, kind or network."""
    value: str


class Key(NamedTuple):
    """One value of the configuration."""

    name: str
    """As it is written, such as ``loss.pixel.weight``."""
    field: FieldInfo
    default: Any
    is_common: bool
    """Whether the short help shows it."""


class Part(NamedTuple):
    """A section; one that may be of several classes is a part for each of them."""

    path: str
    """Its name, such as ``loss.perceptual``."""
    section: type[Section]
    description: str
    """Of the section, not of what is chosen."""
    defaults: Section
    chosen: Chosen | None
    is_default: bool
    """Whether it is what a configuration gets that chooses nothing."""

    @property
    def chooser(self) -> str | None:
        """The key that chooses among the classes of this section, such as ``loss.perceptual.network``."""
        return f"{self.path}.{self.chosen.key}" if self.chosen else None

    @property
    def keys(self) -> list[Key]:
        """Its values, without the one that chooses it."""
        return [
            Key(f"{self.path}.{key}", field, getattr(self.defaults, name), name in self.section.common)
            for name, key, field in _fields(self.section)
            if not _sections(field) and not (self.chosen and name == self.chosen.key)
        ]


def parts(model: type[BaseModel] = Config, defaults: BaseModel | None = None, prefix: str = "") -> Iterator[Part]:
    """All sections in their order, each before those inside it."""
    defaults = defaults or Config()
    for name, key, field in _fields(model):
        value, alternatives = getattr(defaults, name), choices(field.annotation)
        for section in _sections(field):
            selected = [tag for tag, one in alternatives.items() if one is section]
            chosen = Chosen(choice_key(field.annotation), selected[0]) if selected else None
            is_default = isinstance(value, section)
            own = value if is_default else section()
            yield Part(prefix + key, section, " ".join((field.description or "").split()), own, chosen, is_default)
            yield from parts(section, own, f"{prefix}{key}.")


def known_keys() -> list[str]:
    """Every ``section.key`` that a configuration may have."""
    keys = (name for part in parts() for name in (part.chooser, *(key.name for key in part.keys)) if name)
    return list(dict.fromkeys(keys))


def choosers() -> dict[str, list[str]]:
    """The keys that choose the class of a section, and the values that each may have."""
    found: dict[str, list[str]] = {}
    for part in parts():
        if part.chosen and part.chooser:
            found.setdefault(part.chooser, []).append(part.chosen.value)
    return found


def is_list(field: FieldInfo) -> bool:
    """Whether a key has several values, or may have them."""

    def holds_tuple(annotation: Any) -> bool:
        return get_origin(annotation) is tuple or any(map(holds_tuple, get_args(annotation)))

    return holds_tuple(field.annotation)


@cache
def mapping_keys() -> frozenset[str]:
    """The keys whose value is a mapping, which has no keys of the configuration's inside."""
    return frozenset(key.name for part in parts() for key in part.keys if get_origin(key.field.annotation) is dict)


def _fields(model: type[BaseModel]) -> list[tuple[str, str, FieldInfo]]:
    """Attribute, name in the configuration, and field."""
    return [(name, field.alias or name, field) for name, field in model.model_fields.items()]


def _sections(field: FieldInfo) -> list[type[Section]]:
    """The classes that a section may be; none where the field is a value."""
    return [field.annotation] if is_section(field.annotation) else list(choices(field.annotation).values())
