"""What a journal comes to: which versions were pushed and removed, what each alias stands on, which numbers are given.

The journal is the record. What lies beside it (folders, alias files) is held against it, never the other way round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from boatyard.registry.journal import Event


@dataclass(frozen=True)
class Standing:
    """What an alias stands on: a version's number, and the digest of its package."""

    version: int
    digest: str


@dataclass
class History:
    """What a journal says of one name.

    `pushed` has every version's digest, also of those `removed`. `aliases` has every alias that ever stood on a
    version, None for one that stands on nothing now. `given` is the greatest number that was ever a version's.
    `unknown`: lines about aliases were lost, so that none but those named can be said never to have stood.
    """

    pushed: dict[int, str] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    aliases: dict[str, Standing | None] = field(default_factory=dict)
    given: int = 0
    unknown: bool = False

    def live(self) -> dict[int, str]:
        """Return the digests of the versions that were pushed and not removed, by number."""
        return {number: self.pushed[number] for number in sorted(self.pushed.keys() - self.removed)}

    def holds(self, standing: Standing) -> bool:
        """Say whether an alias may stand there: on a version that was pushed with that digest and is not removed."""
        return self.live().get(standing.version) == standing.digest

    def same(self, digest: str) -> int | None:
        """Return the first version of a digest that was not removed."""
        return next((number for number, found in self.live().items() if found == digest), None)


def histories(events: Iterable[Event]) -> dict[str, History]:
    """Return what a journal says, by name."""
    found: dict[str, History] = {}
    for each in events:
        if each.get("event") == "repair":
            for given, number in _given(each).items():
                history = found.setdefault(given, History())
                history.given = max(history.given, number)
                history.unknown = history.unknown or each.get("aliases") == "unknown"
        elif isinstance(name := each.get("name"), str):
            _add(found.setdefault(name, History()), each)
    return found


def of(events: Iterable[Event], name: str) -> History:
    """Return what a journal says of one name."""
    return histories(events).get(name, History())


def _add(history: History, each: Event) -> None:
    number, digest = each.get("version"), each.get("digest")
    if type(number) is not int or not isinstance(digest, str):
        return
    kind, alias = each.get("event"), each.get("alias")
    history.given = max(history.given, number)
    if kind == "push":  # a number given twice, as an earlier Boatyard could: the last is what lies there
        history.pushed[number] = digest
        history.removed.discard(number)
    elif kind == "remove":
        history.removed.add(number)
    elif kind == "alias" and isinstance(alias, str):
        history.aliases[alias] = Standing(number, digest)
    elif kind == "drop" and isinstance(alias, str):
        history.aliases[alias] = None


def _given(repair: Mapping[str, Any]) -> dict[str, int]:
    given = repair.get("given")
    if not isinstance(given, dict):
        return {}
    return {name: number for name, number in given.items() if isinstance(name, str) and type(number) is int}
