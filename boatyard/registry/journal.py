"""A registry's journal: a JSON object a line, each bound to the line before by its sha256."""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from boatyard.data import artifacts
from boatyard.errors import ArtifactError

JOURNAL = "journal.jsonl"
START = "0" * 64  # what the first line holds in place of the line before it
MEND = "boatyard registry check --repair"
Event = dict[str, Any]


def event(line: bytes) -> Event | None:
    """Read one line of a journal, None when it is not an event."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def chained(lines: Iterable[bytes], at: str) -> tuple[Event, ...]:
    """Return a journal's events once every line is found to hold the digest of the one before; raises ArtifactError."""
    events, previous = [], START
    for number, line in enumerate(lines, 1):
        found = event(line)
        if found is None or found.get("previous") != previous:
            raise ArtifactError(
                f"{at}: line {number} or the one before it was changed or removed",
                fix=f"restore it, or run {MEND}",
            )
        events.append(found)
        previous = artifacts.digest_bytes(line)
    return tuple(events)


def segments(lines: Iterable[bytes]) -> list[list[Event]]:
    """Return a journal's events in runs whose lines are chained; one run, when nothing was changed.

    A line that cannot be read ends a run and is left out. The last line of a run but the last may be changed: no line
    after it says what it was.
    """
    runs: list[list[Event]] = [[]]
    previous = START
    for line in lines:
        found = event(line)
        if found is None or found.get("previous") != previous:
            runs.append([])
        if found is not None:
            runs[-1].append(found)
        previous = artifacts.digest_bytes(line)
    return runs


def stamped(kind: str, **values: Any) -> Event:
    """Return an event as it happens now: what, when and by whom."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"event": kind, **values, "time": time, "by": _user()}


def following(previous: bytes | None, event: Mapping[str, Any]) -> bytes:
    """Return an event's line, without its end, bound to the line before; None for the first of a journal."""
    bound = artifacts.digest_bytes(previous) if previous is not None else START
    return json.dumps({**event, "previous": bound}).encode()


def extended(lines: list[bytes], events: Iterable[Mapping[str, Any]]) -> list[bytes]:
    """Return a journal's lines with those of further events."""
    more = list(lines)
    for each in events:
        more.append(following(more[-1] if more else None, each))
    return more


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid that the machine has no name for, as in many pods
        return str(os.getuid())
