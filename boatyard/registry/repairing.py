"""What a registry's journal should say and what should lie beside it: decided from what is there, and only decided.

Lines before the first break are believed; of the others, what agrees with a package that is there. A line about an
alias is believed where the lines after the last break, or the alias's own file, say the same. Numbers of lines that
are not believed are not given again all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from boatyard.registry.base import Damage
from boatyard.registry.history import History, Standing, histories
from boatyard.registry.journal import Event, segments, stamped

Numbered = tuple[str, int]
Named = tuple[str, str]


@dataclass(frozen=True)
class Traces:
    """What lies beside a journal: whole packages' digests, what is no whole package and why, what alias files say.

    `aliases` is None where a registry has no such files; one that cannot be read says None. `given` are numbers that
    were versions' by another record, `noted` is what aliases stood on by it (None: there is no such record), and
    `stood` are aliases of which it says only that they stood.
    """

    packages: Mapping[Numbered, str]
    damaged: Mapping[Numbered, str] = field(default_factory=dict)
    aliases: Mapping[Named, Standing | None] | None = None
    given: Mapping[str, int] = field(default_factory=dict)
    noted: Mapping[Named, Standing] | None = None
    stood: frozenset[Named] = frozenset()


@dataclass(frozen=True)
class Plan:
    """The events that a journal should have: all of them anew (`rewritten`), or those to add."""

    events: tuple[Event, ...]
    rewritten: bool
    problems: tuple[Damage, ...]


def plan(lines: list[bytes], evidence: Traces, *, cut: bool = False, lost: bool = False) -> Plan:
    """Decide how a journal and what lies beside it come to agree.

    `cut` says that something followed the last line, `lost` that there is no journal where there was one.
    """
    runs = segments(lines) + ([[]] if cut else [])
    rewritten = lost or len(runs) > 1
    events = _believed(runs, evidence) if rewritten else [each for run in runs for each in run]
    problems = [_rewritten(lost, runs)] if rewritten else []
    if rewritten:
        events.append(stamped("repair", given=_given(lines, evidence), aliases="unknown"))
    journal = histories(events)
    behind = {name: n for name, n in evidence.given.items() if n > journal.get(name, History()).given}
    marks = [] if rewritten or not behind else [_older(behind, evidence)]
    if marks:
        problems.append(Damage("the journal is older than versions that there were", "their numbers are written down"))
    pushes, about_versions = _versions(journal, evidence)
    after = _last_run(runs) if rewritten else set[Named]() if marks and evidence.aliases is None else None
    moves, about_aliases = _aliases([*events, *pushes], after, evidence, lost=lost)
    news = [*marks, *pushes, *moves]
    problems += [*about_versions, *about_aliases]
    return Plan(tuple([*events, *news] if rewritten else news), rewritten, tuple(problems))


def _older(behind: dict[str, int], evidence: Traces) -> Event:
    """Return the event that says which numbers were given; without alias files, lines about aliases are lost, too."""
    return stamped("repair", given=behind, **({"aliases": "unknown"} if evidence.aliases is None else {}))


def _rewritten(lost: bool, runs: list[list[Event]]) -> Damage:
    found = "the journal is gone" if lost else f"the journal has {len(runs) - 1} breaks"
    return Damage(found, "written anew from what is there; a broken one is kept in set-aside")


def _believed(runs: list[list[Event]], evidence: Traces) -> list[Event]:
    """Return the events that agree with each other and with the packages that are there."""
    pushed: dict[Numbered, Any] = {}
    believed = []
    for each in (each for run in runs for each in run):
        key, kind, digest = _key(each), each.get("event"), each.get("digest")
        if key is None:
            continue
        if kind == "push":
            there = evidence.packages.get(key)
            if key in pushed or (there is not None and there != digest):
                continue
            pushed[key] = digest
        elif kind != "drop" and (kind not in ("alias", "remove") or pushed.get(key) != digest):
            continue
        believed.append({name: value for name, value in each.items() if name != "previous"})
    return believed


def _versions(found: dict[str, History], evidence: Traces) -> tuple[list[Event], list[Damage]]:
    """Return the events that make the journal agree with the packages that are there."""
    news, problems = [], []
    journal = {(name, number): digest for name, each in found.items() for number, digest in each.pushed.items()}
    for name, number in sorted({*journal, *evidence.packages, *evidence.damaged}):
        key, at = (name, number), f"version {number} of {name}"
        there, digest = evidence.packages.get(key), journal.get(key)
        if digest is None and there is not None:
            news.append(_event("push", name, number, there))
            problems.append(Damage(f"{at} is not in the journal", "written down"))
        elif digest is None:
            problems.append(Damage(f"{at} is no package ({evidence.damaged[key]})", "set aside"))
        elif number in found[name].removed:
            if there is not None or key in evidence.damaged:
                problems.append(Damage(f"{at} was removed, and lies there again", "set aside"))
        elif there != digest:
            why = evidence.damaged.get(key) or ("is another package" if there else "is gone")
            news.append(_event("remove", name, number, digest, lost=True))
            problems.append(Damage(f"{at}: {why}", "written down as lost; what lies there is set aside"))
    return news, problems


def _aliases(
    events: list[Event], after: set[Named] | None, evidence: Traces, *, lost: bool
) -> tuple[list[Event], list[Damage]]:
    """Return the events that let each alias stand where it surely stood, and else nowhere.

    `after` are the aliases of which lines after the last break speak; None: the journal has no break.
    """
    found, files = histories(events), evidence.aliases
    news, problems = [], []
    journal = {(name, alias): standing for name, each in found.items() for alias, standing in each.aliases.items()}
    for name, alias in sorted({*journal, *(files or {}), *evidence.stood}):
        key, history = (name, alias), found.get(name, History())
        standing, file = journal.get(key), (files or {}).get(key)
        agreed = evidence.noted is None or evidence.noted.get(key) == file
        witnessed = file is not None and agreed and (file == standing or (lost and key not in journal))
        sure = after is None or key in after or witnessed
        target = file if witnessed and key not in journal else standing
        if target is not None and sure and history.holds(target):
            if key not in journal:
                news.append(_event("alias", name, target.version, target.digest, alias=alias))
            if files is not None and file != target:
                says = f"version {file.version}" if file else "nothing"
                what = f"the file of {alias} of {name} says {says}, the journal version {target.version}"
                problems.append(Damage(what, f"put right: it stands on version {target.version}"))
            continue
        if key in journal and standing is None and (files is None or key not in files):
            continue  # dropped before, and known to stand on nothing
        number, digest = (standing.version, standing.digest) if standing else (0, "")
        news.append(_event("drop", name, number, digest, alias=alias))
        mend = f"stands on nothing now: boatyard registry promote {name} VERSION {alias}"
        problems.append(Damage(f"it cannot be said what {alias} of {name} stands on", mend))
    return news, problems


def _last_run(runs: list[list[Event]]) -> set[Named]:
    last = runs[-1] if len(runs) > 1 else []
    return {(str(each.get("name")), str(each.get("alias"))) for each in last if each.get("event") in ("alias", "drop")}


def _given(lines: Iterable[bytes], evidence: Traces) -> dict[str, int]:
    """Return the greatest number that was ever a version's, by name, believed or not."""
    given = dict(evidence.given)
    for name, number in [
        *evidence.packages,
        *evidence.damaged,
        *(key for run in segments(lines) for each in run if (key := _key(each))),
    ]:
        given[name] = max(given.get(name, 0), number)
    for run in segments(lines):
        for name, history in histories(run).items():
            given[name] = max(given.get(name, 0), history.given)
    return given


def _key(each: Event) -> Numbered | None:
    name, number = each.get("name"), each.get("version")
    return (name, number) if isinstance(name, str) and type(number) is int else None


def _event(kind: str, name: str, number: int, digest: str, **more: Any) -> Event:
    return stamped(kind, name=name, version=number, digest=digest, repaired=True, **more)
