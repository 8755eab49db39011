"""A bucket's registry looked through and put right: the journal comes to agree with the packages that are there."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from boatyard import packages
from boatyard.data import artifacts
from boatyard.errors import ArtifactError, StorageError
from boatyard.registry import records, repairing
from boatyard.registry.base import NAME_PATTERN
from boatyard.registry.history import histories
from boatyard.registry.journal import JOURNAL, Event, event, extended, segments
from boatyard.registry.repairing import Plan, Traces
from boatyard.storage.buckets import Found

if TYPE_CHECKING:
    from boatyard.registry.buckets import BucketRegistry


def plan(registry: BucketRegistry) -> tuple[Plan, Found | None]:
    """Decide what to do about a registry, of which every byte is read; and as what its journal was found."""
    found = registry.bucket.find(JOURNAL)
    lines = found.data.split(b"\n") if found else [b""]
    cut = bool(lines.pop())
    beside = evidence(registry, [each for run in segments(lines) for each in run])
    lost = not lines and bool(beside.given)
    return repairing.plan(lines, beside, cut=cut, lost=lost), found


def evidence(registry: BucketRegistry, events: list[Event]) -> Traces:
    """Read the packages of the versions that the journal or a record names, and of which no line says the removal."""
    found = histories(events)
    whole, damaged, given, stood = {}, {}, {}, set()
    for name in sorted({*records.names(registry.bucket), *filter(NAME_PATTERN.fullmatch, found)}):
        noted, journal = records.read(registry.bucket, name), found.get(name)
        pushed, removed = (journal.pushed, journal.removed) if journal else ({}, set())
        if noted.versions:
            given[name] = max(noted.versions)
        stood |= {(name, alias) for alias in noted.aliases}
        for number, digest in {**pushed, **noted.versions}.items():
            if number in removed:
                continue
            if problem := _problem(registry, name, digest):
                if number in pushed:  # of another the number is written down: there is nothing to set aside
                    damaged[name, number] = problem
            else:
                whole[name, number] = digest
    return Traces(whole, {key: why for key, why in damaged.items() if why != GONE}, None, given, stood=frozenset(stood))


def apply(registry: BucketRegistry, plan: Plan, found: Found | None) -> None:
    """Replace the journal on condition that it still is as it was found; the records follow."""
    bucket = registry.bucket
    lines = found.data.split(b"\n")[:-1] if found else []
    if plan.rewritten and found and found.data:
        bucket.write(f".set-aside/journal-{artifacts.digest_bytes(found.data)[:12]}.jsonl", found.data, None)
    lines = extended([] if plan.rewritten else lines, plan.events)
    if plan.events and not bucket.write(JOURNAL, b"".join(line + b"\n" for line in lines), found):
        raise StorageError(f"{registry.place}: another wrote the journal meanwhile", fix="check again")
    for name, history in histories(each for line in lines if (each := event(line))).items():
        records.note(bucket, name, history, records.read(bucket, name))


GONE = "is gone"


def _problem(registry: BucketRegistry, name: str, digest: str) -> str:
    """Say what is wrong with a package, every byte of it read; empty for a good one."""
    place = registry.folder(name, digest)
    if place.look(packages.MANIFEST) is None:
        return GONE
    with tempfile.TemporaryDirectory() as folder:
        try:
            package = packages.verify(packages.fetch(place.uri, digest, to=Path(folder) / "package"))
        except (ArtifactError, StorageError) as error:
            return str(error)
    return "" if package.name == name else f"it is a package of {package.name}"
