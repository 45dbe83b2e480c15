"""Keys of nested sections as users write them: ``section.key``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one level with dotted keys, in their order; an empty section leaves none.

    Args:
        section: Values and sections by name.
        prefix: Put before every key.
    """
    found: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
