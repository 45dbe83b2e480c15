"""Keys of nested sections as users write them: ``section.key``."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any


def flat(section: Mapping[str, Any], prefix: str = "", *, values: Container[str] = ()) -> dict[str, Any]:
    """Nested sections as one level with dotted keys, in their order; an empty section leaves none.

    Args:
        section: Values and sections by name.
        prefix: Put before every key.
        values: Dotted keys of which a mapping is the value, not a section.
    """
    found: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, Mapping) and f"{prefix}{name}" not in values:
            found |= flat(value, f"{prefix}{name}.", values=values)
        else:
            found[f"{prefix}{name}"] = value
    return found
