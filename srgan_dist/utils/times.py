"""Times as records have them."""

from __future__ import annotations

from datetime import datetime, timezone


def utc(seconds: float | None = None) -> str:
    """A time in UTC, in milliseconds by ISO 8601: ``2026-11-27T00:22:46.123Z``.

    Args:
        seconds: Seconds since 1970; None: now.
    """
    time = datetime.now(timezone.utc) if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_utc(text: object) -> float | None:
    """Seconds since 1970 of what `utc` returned; None of anything else."""
    try:
        return datetime.strptime(str(text), "%Y-%m-%dT%H:%M:%S.%f%z").timestamp()
    except ValueError:
        return None
