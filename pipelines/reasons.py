"""Why a step runs again: what its key or what it read says now, beside what the latest result of it was made of."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from boatyard.provenance import Here, Inputs

MAX_SAID = 3  # of what differs; a changed version of the library would list every module
MAX_VALUE_CHARS = 40


def why(last: Mapping[str, Any], about: Mapping[str, Any], here: Here) -> str:
    """Say what is not as it was when a step's latest result was made; nothing where there is none."""
    try:
        before, seen = last["about"], Inputs.of(last["inputs"])
        changes = list(itertools.islice(_changes(before, about, seen, here), MAX_SAID + 1))
    except (AttributeError, KeyError, TypeError):  # no result, or a record that was cut
        return ""
    more = ["…"] if len(changes) > MAX_SAID else []
    return "; ".join([*changes[:MAX_SAID], *more]) or "its result is gone or was changed"


def _changes(before: Mapping[str, Any], about: Mapping[str, Any], seen: Inputs, here: Here) -> Iterator[str]:
    yield from (f"{path} changed while it ran" for path in seen.unsettled)
    yield from _settings(before["arguments"], about["arguments"])
    yield from _files("recipe", before["sources"], about["sources"])
    yield from _files("data", before.get("data", {}), about.get("data", {}))
    for key in ("environment", "variables"):
        for name, was, now in _differences(before[key], about[key]):
            yield f"{name} {was or 'none'} → {now or 'none'}"
    if before["library"] != about["library"] or before["command"] != about["command"]:
        yield "boatyard changed"
    said = set(_files("recipe", before["sources"], about["sources"]))
    yield from (change for change in here.changes(seen) if change not in said)


def _settings(before: Mapping[str, Any], now: Mapping[str, Any], at: str = "") -> Iterator[str]:
    for name, was, value in _differences(before, now):
        path = f"{at}{name}"
        if isinstance(was, Mapping) and "bytes" in was:
            yield f"{path} changed"
        elif isinstance(was, Mapping) and isinstance(value, Mapping):
            yield from _settings(was, value, f"{path}.")
        else:
            yield f"{path} {_shown(was)} → {_shown(value)}"


def _files(kind: str, before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for path, was, digest in _differences(before, now):
        if was and digest:
            yield f"{kind} changed: {path}"
        else:
            yield f"{kind} {path} {'is gone' if was else 'is there now'}"


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in dict.fromkeys((*before, *now)):
        if before.get(name) != now.get(name):
            yield name, before.get(name), now.get(name)


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[: MAX_VALUE_CHARS - 1]}…"
