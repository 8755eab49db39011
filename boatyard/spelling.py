"""What a message says of a name that is not known: the nearest one that is, and all that are."""

from __future__ import annotations

from collections.abc import Collection, Sequence

MAX_VALUE_CHARS = 300  # of a value in a message


def nearest(found: str, allowed: Collection[str]) -> str | None:
    """Return the allowed name that a wrong one is likely to stand for, None where none is near."""
    import difflib

    near = difflib.get_close_matches(found[:100], list(allowed), n=1)
    return near[0] if near else None


def hint(found: str, allowed: Collection[str], said: str = "allowed are", none: str = "none") -> str:
    """Say which names there are, the nearest first: `did you mean mlp? allowed are cnn, linear, mlp`."""
    near = nearest(found, allowed)
    return (f"did you mean {near}? " if near else "") + f"{said} {', '.join(allowed) or none}"


def listed(names: Sequence[str], most: int) -> str:
    """Return names for a message, so many at most, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def shorten(text: str) -> str:
    """Return text for a message: its beginning, where it is long."""
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[:MAX_VALUE_CHARS]}…"
