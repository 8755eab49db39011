"""A registry over a bucket.

    ROOT/journal.jsonl                  one line an event; each holds the sha256 of the line before
    ROOT/NAME/packages/sha256-<hex>/…   a package, under the digest of its package.json

The journal is the registry: a version is a line `push`, an alias is its last line `alias`, and both are there from the
moment the journal is replaced, on condition that nobody replaced it since it was read (If-Match, If-None-Match). So one
of many who push at once gets a number, the others go on with the next, and a push that is killed at any moment leaves
at most a package that no line names, which nobody sees and the same push completes.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boatyard import packages, waiting
from boatyard.errors import ArtifactError, StorageError
from boatyard.packages.manifest import read_files
from boatyard.registry.base import (
    JOURNAL,
    LATEST,
    Registry,
    Version,
    chained,
    check_alias,
    check_name,
    line_after,
)
from boatyard.storage import transfer
from boatyard.storage.buckets import Bucket, Found

logger = logging.getLogger(__name__)

ATTEMPTS = 200  # at replacing the journal before others do; a few suffice but under a storm of pushes
News = list[tuple[str, Version, dict[str, str]]]  # events to write: kind, version, and what else the line says


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
        return tuple(sorted({version.name for version in self._pushed(self.log())}))

    def versions(self, name: str) -> tuple[Version, ...]:
        """Return the versions of a name, the oldest first; none when there are none."""
        check_name(name)
        return tuple(version for version in self._pushed(self.log()) if version.name == name)

    def aliases(self, name: str) -> dict[str, int]:
        """Return the version number that each alias of a name stands for."""
        return dict(sorted(_aliases(self.log(), check_name(name)).items()))

    def pull(self, name: str, reference: str | int = LATEST, to: Path | None = None) -> Path:
        """Return a verified package: kept in the cache of this machine, or copied to a folder that must not exist.

        Raises StorageError when it is not there, ArtifactError when it is not what was pushed.
        """
        version = self.resolve(name, reference)
        if to is not None and to.exists():
            raise StorageError(f"{to} is there already", fix="give another folder")
        return packages.fetch(version.uri, version.digest, to=to)

    def log(self) -> tuple[dict[str, Any], ...]:
        """Return the journal's events, the oldest first; raises ArtifactError naming the first changed line."""
        return self._journal()[0]

    # Writing

    def push(self, package: Path, *, alias: str | None = None) -> Version:
        """Add a package and return its version; the same package again returns the version that it has.

        Raises ArtifactError when the package does not verify, StorageError when the bucket cannot be written.
        """
        checked = packages.verify(package)
        if alias is not None:
            check_alias(alias)
        self.bucket.check_conditions()
        if self._same(self.log(), checked) is None:
            transfer.send(package, self._folder(checked.name, checked.digest), name=packages.MANIFEST, read=read_files)
        version = self._write(lambda events: self._to_push(events, checked, alias))
        logger.info("pushed %s version %d, sha256 %s", version.name, version.version, version.digest)
        return version

    def promote(self, name: str, reference: str | int, alias: str) -> Version:
        """Let an alias stand for a version from now on; raises StorageError."""
        check_alias(alias)
        self.resolve(name, reference)
        self.bucket.check_conditions()
        return self._write(lambda events: self._to_promote(events, name, str(reference), alias))

    def _to_push(
        self, events: tuple[dict[str, Any], ...], package: packages.Package, alias: str | None
    ) -> tuple[Version, News]:
        news: News = []
        version = self._same(events, package)
        if version is None:
            numbers = [each.version for each in self._pushed(events) if each.name == package.name]
            version = self._version(package.name, max(numbers, default=0) + 1, package.digest)
            news.append(("push", version, {}))
        if alias is not None and _aliases(events, version.name).get(alias) != version.version:
            news.append(("alias", version, {"alias": alias}))
        return version, news

    def _to_promote(
        self, events: tuple[dict[str, Any], ...], name: str, reference: str, alias: str
    ) -> tuple[Version, News]:
        version = self._found(events, name, reference)
        if version is None:
            raise StorageError(f"no version or alias {reference!r} of {name} any more in {self.place}")
        there = _aliases(events, name).get(alias) == version.version
        return version, [] if there else [("alias", version, {"alias": alias})]

    def _write(self, decide: Callable[[tuple[dict[str, Any], ...]], tuple[Version, News]]) -> Version:
        """Add to the journal what is decided on what it says; decide again when others were faster."""

        def attempt() -> Version:
            events, lines, found = self._journal()
            version, news = decide(events)
            if not news:  # all of it is there: written before, or by an attempt whose answer was lost
                return version
            for kind, about, more in news:
                lines.append(line_after(lines, kind, about, **more))
            if not self.bucket.write(JOURNAL, b"".join(line + b"\n" for line in lines), found):
                raise _Overtaken
            return version

        try:
            return waiting.retry(attempt, _Overtaken, attempts=ATTEMPTS, pause_s=_pause)
        except _Overtaken as error:
            raise StorageError(
                f"{self.place}: others wrote before us {ATTEMPTS} times", fix="push again when fewer push at once"
            ) from error

    # Looking up

    def _journal(self) -> tuple[tuple[dict[str, Any], ...], list[bytes], Found | None]:
        """Return the journal's events, its lines, and as what it was found: the condition for replacing it."""
        found = self.bucket.find(JOURNAL)
        if found is None:
            return (), [], None
        lines = found.data.split(b"\n")
        if lines.pop():
            raise ArtifactError(f"{self.place}/{JOURNAL}: its last line was cut", fix="restore the object as it was")
        return chained(lines, f"{self.place}/{JOURNAL}"), lines, found

    def _pushed(self, events: tuple[dict[str, Any], ...]) -> Iterator[Version]:
        for each in events:
            name, number, digest = each.get("name"), each.get("version"), each.get("digest")
            if (
                each.get("event") == "push"
                and isinstance(name, str)
                and type(number) is int
                and isinstance(digest, str)
            ):
                yield self._version(name, number, digest)

    def _version(self, name: str, number: int, digest: str) -> Version:
        return Version(name, number, digest, self._folder(name, digest).uri)

    def _folder(self, name: str, digest: str) -> Bucket:
        return self.bucket.at(f"{name}/packages/sha256-{digest}")

    def _same(self, events: tuple[dict[str, Any], ...], package: packages.Package) -> Version | None:
        pushed = self._pushed(events)
        return next((each for each in pushed if (each.name, each.digest) == (package.name, package.digest)), None)

    def _find(self, name: str, reference: str) -> Version | None:
        check_name(name)
        return self._found(self.log(), name, reference)

    def _found(self, events: tuple[dict[str, Any], ...], name: str, reference: str) -> Version | None:
        versions = {str(each.version): each for each in self._pushed(events) if each.name == name}
        if reference == LATEST and versions:
            return list(versions.values())[-1]
        number = _aliases(events, name).get(reference)
        return versions.get(reference if number is None else str(number))


class _Overtaken(Exception):
    """Another wrote the journal since it was read."""


def _pause(attempt: int) -> float:
    """Return how long to wait until the journal is read again: at random, so that the same two do not meet again."""
    return random.uniform(0, min(1.0, 0.02 * attempt))


def _aliases(events: tuple[dict[str, Any], ...], name: str) -> dict[str, int]:
    """Return what each alias of a name stands for: what the last line about it says."""
    about = (each for each in events if each.get("event") == "alias" and each.get("name") == name)
    return {str(each.get("alias")): int(each["version"]) for each in about if type(each.get("version")) is int}
