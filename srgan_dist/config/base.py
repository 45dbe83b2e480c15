"""What every part of the configuration is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """A part of the configuration: frozen, and closed to names that it does not have."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def choice(key: str, default: str) -> Discriminator:
    """Choose the class by ``key``; a section that does not say gets the default one."""

    def choose(value: Any) -> str:
        return str(value.get(key, default) if isinstance(value, Mapping) else getattr(value, key))

    return Discriminator(choose, custom_error_type="unknown_choice", custom_error_message=f"unknown {key}")
