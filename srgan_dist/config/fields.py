"""Every section and key of the configuration, read off its classes: for the help, and for what is said of a mistake."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from srgan_dist.config.base import Section, choice_key, choices, is_section, item_of
from srgan_dist.config.perceptual import OLD_PERCEPTUAL_KEYS
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

    @property
    def items(self) -> list[Part]:
        """What each section in it may be, if its value is a list of sections; their keys are no keys of their own."""
        return list(_parts_at(self.name, "", item_of(self.field.annotation), None))


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
            if not (is_section(field.annotation) or choices(field.annotation))
            and not (self.chosen and name == self.chosen.key)
        ]


def parts(model: type[BaseModel] = Config, defaults: BaseModel | None = None, prefix: str = "") -> Iterator[Part]:
    """All sections in their order, each before those inside it."""
    defaults = defaults or Config()
    for name, key, field in _fields(model):
        description = " ".join((field.description or "").split())
        for part in _parts_at(prefix + key, description, field.annotation, getattr(defaults, name)):
            yield part
            yield from parts(part.section, part.defaults, f"{prefix}{key}.")


def _parts_at(path: str, description: str, annotation: Any, value: object) -> Iterator[Part]:
    """The sections of one place, by its annotation; ``value`` is what stands there by default."""
    alternatives = choices(annotation)
    for section in [annotation] if is_section(annotation) else alternatives.values():
        selected = [tag for tag, one in alternatives.items() if one is section]
        chosen = Chosen(choice_key(annotation), selected[0]) if selected else None
        default = value if isinstance(value, section) else None
        yield Part(path, section, description, default or section(), chosen, default is not None)


def known_keys() -> list[str]:
    """Every ``section.key`` that a configuration may have."""
    keys = (name for part in parts() for name in (part.chooser, *(key.name for key in part.keys)) if name)
    return list(dict.fromkeys(keys))


def accepted_keys() -> list[str]:
    """All keys that are read: those of earlier versions, too, which stand for others."""
    return [*known_keys(), *OLD_PERCEPTUAL_KEYS]


def choosers() -> dict[str, list[str]]:
    """The keys that choose the class of a section, and the values that each may have."""
    found: dict[str, list[str]] = {}
    for part in parts():
        if part.chosen and part.chooser:
            found.setdefault(part.chooser, []).append(part.chosen.value)
    return found


def lists_of_sections() -> dict[str, list[Part]]:
    """The keys whose value is a list of sections, and what each of these may be."""
    return {key.name: items for part in parts() for key in part.keys if (items := key.items)}


def is_list(field: FieldInfo) -> bool:
    """Whether a key has several values, or may have them."""

    def holds_tuple(annotation: Any) -> bool:
        return get_origin(annotation) is tuple or any(map(holds_tuple, get_args(annotation)))

    return holds_tuple(field.annotation)


def _fields(model: type[BaseModel]) -> list[tuple[str, str, FieldInfo]]:
    """Attribute, name in the configuration, and field."""
    return [(name, field.alias or name, field) for name, field in model.model_fields.items()]
