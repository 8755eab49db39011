"""A folder's registry looked through and put right: what lies beside the journal comes to agree with it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from boatyard import packages
from boatyard.data import artifacts
from boatyard.errors import ArtifactError
from boatyard.registry import repairing
from boatyard.registry.base import NAME_PATTERN, Damage
from boatyard.registry.folder_files import listing
from boatyard.registry.history import Standing, histories
from boatyard.registry.journal import JOURNAL, event, extended
from boatyard.registry.repairing import Plan, Traces

if TYPE_CHECKING:
    from boatyard.registry.folders import FolderRegistry


def plan(registry: FolderRegistry) -> Plan:
    """Decide what to do about a registry, of which every byte is read."""
    lines = registry.lines()
    found = repairing.plan(lines, evidence(registry), lost=registry.is_lost(lines))
    odd = [
        Damage(f"{name}/aliases/{entry} is no alias: lower-case letters, digits and -", "set aside")
        for name in registry.folders()
        for entry in _odd_aliases(registry, name)
    ]
    return replace(found, problems=(*found.problems, *odd))


def evidence(registry: FolderRegistry) -> Traces:
    """Read what lies beside the journal."""
    whole, damaged = {}, {}
    for name in registry.folders():
        for number in registry.numbers(name):
            try:
                whole[name, number] = _verified(registry, name, number)
            except ArtifactError as error:
                damaged[name, number] = str(error)
    aliases = {
        (name, alias): standing for name in registry.folders() for alias, standing in registry.alias_files(name).items()
    }
    notes = registry.notes()
    given = {name: max(note.versions, default=0) for name, note in notes.items()}
    stood = {(name, alias): standing for name, note in notes.items() for alias, standing in note.aliases.items()}
    noted = {key: standing for key, standing in stood.items() if standing} if notes else None
    return Traces(whole, damaged, aliases, given, noted, stood=frozenset(stood))


def apply(registry: FolderRegistry, plan: Plan) -> None:
    """Do what was decided; called with the registry's lock held."""
    before = evidence(registry).packages
    if plan.rewritten:
        _rewrite(registry, plan)
    else:
        registry.append(list(plan.events))
    found = histories(each for line in registry.lines() if (each := event(line)))
    for name in {*registry.folders(), *found}:
        live = found[name].live() if name in found else {}
        for number in registry.numbers(name):
            if number not in live or before.get((name, number)) != live[number]:
                registry.set_aside(registry.version_folder(name, number))
        _put_aliases_right(registry, name, dict(found[name].aliases) if name in found else {})
    for name, history in found.items():
        registry.note(name, history)


def _rewrite(registry: FolderRegistry, plan: Plan) -> None:
    """Write the journal anew; the old one steps aside by a copy, so that there always is one."""
    path = registry.root / JOURNAL
    if path.exists() and (data := path.read_bytes()):
        kept = registry.root / ".set-aside" / f"journal-{artifacts.digest_bytes(data)[:12]}.jsonl"
        artifacts.write_bytes(kept, data)
    artifacts.write_bytes(path, b"".join(line + b"\n" for line in extended([], plan.events)))


def _put_aliases_right(registry: FolderRegistry, name: str, standing: dict[str, Standing | None]) -> None:
    folder = registry.root / name / "aliases"
    for entry in _odd_aliases(registry, name):
        registry.set_aside(folder / entry)
    for alias in registry.alias_files(name):
        if standing.get(alias) is None:
            registry.set_aside(folder / f"{alias}.json")
    for alias, found in standing.items():
        if found is not None:
            registry.write_alias(name, alias, found)


def _odd_aliases(registry: FolderRegistry, name: str) -> list[str]:
    entries = sorted(entry for entry in listing(registry.root / name / "aliases") if not entry.startswith("."))
    return [e for e in entries if not (e.endswith(".json") and NAME_PATTERN.fullmatch(e.removesuffix(".json")))]


def _verified(registry: FolderRegistry, name: str, number: int) -> str:
    notes = registry.notes()
    noted = notes[name].versions.get(number) if name in notes else None
    package = packages.verify(registry.version_folder(name, number), noted)
    if package.name != name:
        raise ArtifactError(f"{package.path}", expected=f"a package of {name}", found=f"one of {package.name}")
    return package.digest
