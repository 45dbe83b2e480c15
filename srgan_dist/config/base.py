"""What every part of the configuration is made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeGuard, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema
from typing_extensions import Self  # pydantic depends on it; typing has it only from Python 3.11

from srgan_dist.utils.names import expand_home

_MAX_NUMBER = 2**63
_UNPAIRED = re.compile("[\ud800-\udbff]")  # beyond these halves stand bytes of file names that are no UTF-8
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _not_empty(value: tuple[str, ...]) -> tuple[str, ...]:
    """Without empty ones."""
    if not all(one.strip() for one in value):  # as a path, it would be the folder that the command was started in
        raise ValueError("one of the names is empty: leave it out")
    return value


Paths = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), AfterValidator(_not_empty)]


def as_number(value: object) -> object:
    """A command line gives text where a literal number is meant."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _count_or_auto(value: object) -> object:
    value = as_number(value)
    if value in (None, "auto") or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise ValueError("allowed are whole numbers from 1, or auto")


CountOrAuto = Annotated[PositiveInt | Literal["auto"], BeforeValidator(_count_or_auto)]


class Section(BaseModel):
    """A part of the configuration: frozen, and closed to names that it does not have."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    common: ClassVar[tuple[str, ...]] = ()
    """Keys of this section that ``--help`` shows; ``--help-all`` shows all."""

    @field_validator("*", mode="after")
    @classmethod
    def _at_home(cls, value: Any, info: ValidationInfo) -> Any:
        # A default stays as it is written, so that config.yaml serves another user, too.
        is_default = info.field_name is not None and value == cls.model_fields[info.field_name].default
        return expand_home(value) if isinstance(value, Path) and not is_default else value

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        for name, value in self:
            for one in value if isinstance(value, tuple) else (value,):
                if isinstance(one, int) and one >= _MAX_NUMBER:
                    raise ValueError(f"{name} is a number of more than 64 bits")
                if isinstance(one, (str, Path)) and "\0" in str(one):  # no path has one
                    raise ValueError(f"{name} holds a null character")
                if isinstance(one, (str, Path)) and _UNPAIRED.search(str(one)):
                    raise ValueError(f"{name} holds half a character, which no text has")
        return self


@dataclass(frozen=True)
class Form:
    """Marks the key that chooses a section by any text of a form: ``name: Annotated[str, Form("module:Class", ...)]``.

    Args:
        shown: How lists of what may be chosen show it; of this form, too.
        pattern: Regular expression for the whole text.
    """

    shown: str
    pattern: str


class Choice:
    """Marks a union of sections, of which a key chooses one: ``Annotated[ThisConfig | ThatConfig, Choice()]``.

    The key is the field that has a single value in each of the classes, such as ``name: Literal["srresnet"]``, or is
    marked by `Form`. A section that does not say gets the first class.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        sections = choices(source)
        key, default = choice_key(source), next(iter(sections))
        forms = [form for section in sections.values() for form in _forms(section).values()]

        def choose(value: Any) -> str | None:
            if isinstance(value, Mapping):
                chosen = str(value.get(key, default))
            elif isinstance(value, tuple(sections.values())):
                chosen = str(getattr(value, key))
            else:
                return None
            return next((form.shown for form in forms if re.fullmatch(form.pattern, chosen)), chosen)

        return core_schema.tagged_union_schema(
            {name: handler.generate_schema(section) for name, section in sections.items()},
            discriminator=choose,
            custom_error_type="unknown_choice",
            custom_error_message=f"unknown {key}",
        )


def choices(union: Any) -> dict[str, type[Section]]:
    """The sections of a union, or a section alone, by the value that chooses them; empty where there is no choice."""
    sections = [part for part in (union, *get_args(union)) if is_section(part)]
    return {value: section for section in sections for _, value in _fixed(section)}


def is_section(annotation: Any) -> TypeGuard[type[Section]]:
    """Whether an annotation is the class of a section."""
    # To Python 3.10 tuple[int, int] is a type as well, and one that issubclass refuses.
    return get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, Section)


def item_of(annotation: Any) -> Any:
    """The sections of which a value is a list, as `choices` takes them; None for any other value."""
    if get_origin(annotation) is not tuple:
        return None
    item = get_args(annotation)[0]
    item = get_args(item)[0] if get_origin(item) is Annotated else item
    return item if choices(item) else None


def choice_key(union: Any) -> str:
    """The key whose value chooses among the sections of a union."""
    (key,) = {key for section in choices(union).values() for key, _ in _fixed(section)}
    return key


def _fixed(section: type[Section]) -> list[tuple[str, str]]:
    """Fields that have a single value, or values of a single form, and how that is shown."""
    single = [
        (name, get_args(field.annotation)[0])
        for name, field in section.model_fields.items()
        if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1
    ]
    return single + [(name, form.shown) for name, form in _forms(section).items()]


def _forms(section: type[Section]) -> dict[str, Form]:
    """The fields that choose a section by a form of text."""
    return {
        name: mark for name, field in section.model_fields.items() for mark in field.metadata if isinstance(mark, Form)
    }
