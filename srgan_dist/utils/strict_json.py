"""JSON that every program can read: Python's own writes NaN and Infinity, which JSON does not have."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def dumps(content: Any, *, indent: int | None = None) -> str:
    """Write a value as JSON; numbers that are not finite become null.

    Args:
        content: What `json.dumps` takes.
        indent: As there.
    """
    return json.dumps(_finite(content), indent=indent, allow_nan=False)


def loads(text: str) -> Any:
    """Read JSON that anybody may have written; numbers that are not finite become null.

    Raises:
        ValueError: It is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text, parse_float=_finite_number, parse_constant=lambda _: None)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _finite_number(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return content
