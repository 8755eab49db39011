"""A registry over a bucket.

    ROOT/journal.jsonl                            one line an event; each holds the sha256 of the line before
    ROOT/NAME/packages/sha256-<hex>/…             a package, under the digest of its package.json
    ROOT/NAME/packages/sha256-<hex>.version-3     says that this package is, or was, version 3

The journal is the registry: a version is a line `push`, an alias is its last line `alias`, and both are there from the
moment the journal is replaced, on condition that nobody replaced it since it was read (If-Match, If-None-Match). So one
of many who push at once gets a number, the others go on with the next, and a push that is killed at any moment leaves
at most a package that no line names, which nobody sees and the same push completes. The records of versions, written
after their lines, are for the day on which the journal is lost or is an old one: no number is given again.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boatyard import packages, waiting
from boatyard.errors import ArtifactError, Refused, StorageError
from boatyard.packages.manifest import read_files
from boatyard.registry import judging, records, repairing_buckets
from boatyard.registry.base import LATEST, NUMBER_PATTERN, Damage, Registry, Version, check_alias, check_name
from boatyard.registry.history import History, Standing, histories, of
from boatyard.registry.journal import JOURNAL, MEND, Event, chained, extended, stamped
from boatyard.registry.records import Records
from boatyard.storage import transfer
from boatyard.storage.buckets import Bucket, Found

logger = logging.getLogger(__name__)

ATTEMPTS = 200  # at replacing the journal before others do; a few suffice but under a storm of pushes
Decision = tuple[Version, list[Event]]  # what it comes to, and the events to write for it


@dataclass(frozen=True)
class BucketRegistry(Registry):
    """A registry in a bucket; nothing is there until the first push."""

    bucket: Bucket

    @property
    def place(self) -> str:
        """The URI."""
        return self.bucket.uri

    # Reading

    def names(self) -> tuple[str, ...]:
        """Return the names of which there is a version, sorted."""
        return tuple(sorted(name for name, history in histories(self.log()).items() if history.live()))

    def versions(self, name: str) -> tuple[Version, ...]:
        """Return the versions of a name, the oldest first; none when there are none."""
        return tuple(self._at(name, number, digest) for number, digest in self._history(name).live().items())

    def aliases(self, name: str) -> dict[str, int]:
        """Return the version number that each alias of a name stands for; raises ArtifactError for a damaged one."""
        history = self._history(name)
        standing = {a: self._of_journal(name, a, history) for a, found in sorted(history.aliases.items()) if found}
        return {alias: found.version for alias, found in standing.items() if found}

    def pull(self, name: str, reference: str | int = LATEST, to: Path | None = None) -> Path:
        """Return a verified package: kept in the cache of this machine, or copied to a folder that must not exist.

        Raises StorageError when it is not there, ArtifactError when it is not what was pushed.
        """
        version = self.resolve(name, reference)
        if to is not None and to.exists():
            raise StorageError(f"{to} is there already", fix="give another folder")
        self._check_there(version)
        with self._mendable():
            return packages.fetch(version.uri, version.digest, to=to)

    def log(self) -> tuple[Event, ...]:
        """Return the journal's events, the oldest first; raises ArtifactError naming the first changed line."""
        return self._journal()[0]

    # Writing

    def push(self, package: Path, *, alias: str | None = None) -> Version:
        """Add a package and return its version; the same package again returns the version that it has.

        Raises ArtifactError when the package does not verify, StorageError when the bucket cannot be written,
        Refused when the alias has moved since the package was judged.
        """
        checked = packages.verify(package)
        judging.check_own(checked)
        if alias is not None:
            check_alias(alias)
        self.bucket.check_conditions()
        if self._find_journal()[1]:
            logger.warning("%s/%s is gone: it is written anew from the versions that are there", self.place, JOURNAL)
            self.check(repair=True)
        self._to_push(self.log(), checked, alias)
        place = self.folder(checked.name, checked.digest)
        if not self._is_whole(place):
            transfer.send(package, place, name=packages.MANIFEST, read=read_files)
        version = self._write(checked.name, lambda events: self._to_push(events, checked, alias))
        if place.look(packages.MANIFEST) is None:  # another removed its last version in between
            transfer.send(package, place, name=packages.MANIFEST, read=read_files)
        logger.info("pushed %s version %d, sha256 %s", version.name, version.version, version.digest)
        return version

    def promote(self, name: str, reference: str | int, alias: str) -> Version:
        """Let an alias stand for a version from now on; raises StorageError."""
        check_alias(alias)
        self._check_there(self.resolve(name, reference))
        self.bucket.check_conditions()
        return self._write(name, lambda events: self._to_promote(events, name, str(reference), alias))

    def remove(self, name: str, number: int) -> Version:
        """Remove a version, whose number is never given again; raises Refused while an alias stands on it."""
        self.resolve(name, number)
        self.bucket.check_conditions()
        version = self._write(name, lambda events: self._to_remove(events, name, number))
        if self._history(name).same(version.digest) is None:
            place = self.folder(name, version.digest)
            place.delete([packages.MANIFEST])  # first: without it there is no package
            place.delete(place.list())
        return version

    def check(self, *, repair: bool = False) -> tuple[Damage, ...]:
        """Return all that is wrong, every byte read; with `repair`, all that was put right."""
        plan, found = repairing_buckets.plan(self)
        if repair:
            self.bucket.check_conditions()
            repairing_buckets.apply(self, plan, found)
        return plan.problems

    def _to_push(self, events: tuple[Event, ...], package: packages.Package, alias: str | None) -> Decision:
        history, news = of(events, package.name), []
        if alias is not None:
            self._check_judged(package, alias, history)
        number = history.same(package.digest)
        if number is None:
            number = history.given + 1
            news.append(stamped("push", name=package.name, version=number, digest=package.digest))
        version = self._at(package.name, number, package.digest)
        return version, [*news, *_moved(history, version, alias)]

    def _to_promote(self, events: tuple[Event, ...], name: str, reference: str, alias: str) -> Decision:
        history = of(events, name)
        live, standing = history.live(), history.aliases.get(reference)
        number = max(live, default=0) if reference == LATEST else standing.version if standing else _number(reference)
        if number not in live:
            raise StorageError(f"no version or alias {reference!r} of {name} any more in {self.place}")
        version = self._at(name, number, live[number])
        return version, _moved(history, version, alias)

    def _to_remove(self, events: tuple[Event, ...], name: str, number: int) -> Decision:
        history = of(events, name)
        if number not in history.pushed:
            raise StorageError(f"no version {number} of {name} any more in {self.place}")
        version = self._at(name, number, history.pushed[number])
        if number in history.removed:  # before, or by an attempt whose answer was lost
            return version, []
        standing = history.aliases.items()
        if on_it := sorted(alias for alias, found in standing if found and found.version == number):
            raise Refused(
                f"{', '.join(on_it)} of {name} stands on version {number}", fix="promote another version first"
            )
        return version, [stamped("remove", name=name, version=number, digest=version.digest)]

    def _check_judged(self, package: packages.Package, alias: str, history: History) -> None:
        """Refuse a package whose verdict was held against another version than the one that its alias stands on."""
        for each in {alias, str(package.verdict.get("alias") or alias)}:
            if history.aliases.get(each) is not None:
                self._of_journal(package.name, each, history)

        def verdict_of(standing: Standing) -> dict[str, Any]:
            return packages.verify(self.pull(package.name, standing.version), standing.digest).verdict

        judging.check_standing(package, alias, history, verdict_of)

    def _write(self, name: str, decide: Callable[[tuple[Event, ...]], Decision]) -> Version:
        """Add to the journal what is decided on what it says; decide again when others were faster."""

        def attempt() -> Version:
            noted = records.read(self.bucket, name)  # before the journal: what is noted, it has
            events, lines, found = self._journal()
            self._check_recent(name, of(events, name), noted)
            version, news = decide(events)
            if news and not self.bucket.write(JOURNAL, _joined(extended(lines, news)), found):
                raise _Overtaken
            records.note(self.bucket, name, of([*events, *news], name), noted)
            return version

        try:
            return waiting.retry(attempt, _Overtaken, attempts=ATTEMPTS, pause_s=_pause)
        except _Overtaken as error:
            raise StorageError(
                f"{self.place}: others wrote before us {ATTEMPTS} times", fix="push again when fewer push at once"
            ) from error

    def _check_recent(self, name: str, history: History, noted: Records) -> None:
        """Raise ArtifactError for a journal that does not know a version or an alias that there was: an old one."""
        versions = noted.versions
        unknown = [number for number in versions if number not in history.pushed and number > history.given]
        unlike = [number for number, digest in history.live().items() if versions.get(number, digest) != digest]
        lost = [] if history.unknown else sorted(noted.aliases - history.aliases.keys())
        if unknown or unlike:
            raise self._not_newest(f"version {max([*unknown, *unlike])} of {name} as it was pushed")
        if lost:
            raise self._not_newest(f"that {', '.join(lost)} of {name} stood on a version")

    # Looking up

    def _journal(self) -> tuple[tuple[Event, ...], list[bytes], Found | None]:
        """Return the journal's events, its lines, and as what it was found: the condition for replacing it."""
        found, lost = self._find_journal()
        if found is None:
            if lost:
                raise ArtifactError(
                    f"{self.place}/{JOURNAL} is gone, and there are versions", fix=f"restore it, or run {MEND}"
                )
            return (), [], None
        lines = found.data.split(b"\n")
        if lines.pop():
            raise ArtifactError(
                f"{self.place}/{JOURNAL}: its last line was cut", fix=f"restore the object as it was, or run {MEND}"
            )
        return chained(lines, f"{self.place}/{JOURNAL}"), lines, found

    def _find_journal(self) -> tuple[Found | None, bool]:
        """Return the journal's object; where there is none, whether there was one: a version is noted."""
        found = self.bucket.find(JOURNAL)
        if found is None and any(records.read(self.bucket, name).versions for name in records.names(self.bucket)):
            found = self.bucket.find(JOURNAL)  # the first push of all may have come in between
            return found, found is None
        return found, False

    def _history(self, name: str) -> History:
        noted = records.read(self.bucket, check_name(name))  # before the journal: what is noted, it has
        history = of(self.log(), name)
        self._check_recent(name, history, noted)
        return history

    def _standing(self, name: str, alias: str) -> Standing | None:
        return self._of_journal(name, alias, self._history(name))

    def _at(self, name: str, number: int, digest: str) -> Version:
        return Version(name, number, digest, self.folder(name, digest).uri)

    def _check_there(self, version: Version) -> None:
        if self.folder(version.name, version.digest).look(packages.MANIFEST) is None:
            raise self._gone(version)

    def folder(self, name: str, digest: str) -> Bucket:
        """Return where a package lies."""
        return self.bucket.at(f"{name}/packages/sha256-{digest}")

    def _is_whole(self, place: Bucket) -> bool:
        """Say whether a package's objects are there, each of its size; the manifest is written last."""
        found = place.find(packages.MANIFEST)
        if found is None:
            return False
        listed, there = read_files(found.data, place.uri), place.list()
        return all(path in there and there[path].bytes == file.bytes for path, file in listed.items())


class _Overtaken(Exception):
    """Another wrote the journal since it was read."""


def _pause(attempt: int) -> float:
    """Return how long to wait until the journal is read again: at random, so that the same two do not meet again."""
    return random.uniform(0, min(1.0, 0.02 * attempt))


def _number(reference: str) -> int:
    """Return a version's number, 0 for what is none."""
    return int(reference) if NUMBER_PATTERN.fullmatch(reference) else 0


def _moved(history: History, version: Version, alias: str | None) -> list[Event]:
    """Return the event that lets an alias stand on a version, none where it does."""
    if alias is None or history.aliases.get(alias) == Standing(version.version, version.digest):
        return []
    return [stamped("alias", name=version.name, version=version.version, digest=version.digest, alias=alias)]


def _joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)
