"""What every registry keeps and promises: versions that do not change, aliases that move, a journal of both."""

from __future__ import annotations

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from boatyard.errors import ArtifactError, StorageError
from boatyard.registry.history import History, Standing
from boatyard.registry.journal import JOURNAL, MEND, Event

__all__ = ["JOURNAL", "LATEST", "NAME_PATTERN", "Damage", "Registry", "Version", "check_alias", "check_name"]

NAME_PATTERN = re.compile(r"[a-z]([-a-z0-9]{0,51}[a-z0-9])?")
NUMBER_PATTERN = re.compile(r"[1-9]\d{0,15}")
LATEST = "latest"  # the version with the greatest number; no alias may be called so


@dataclass(frozen=True)
class Version:
    """One version of a package in a registry. `digest` is the sha256 of its package.json, `uri` where it lies."""

    name: str
    version: int
    digest: str
    uri: str


@dataclass(frozen=True)
class Damage:
    """What is wrong in a registry, and what a repair does about it, or did."""

    found: str
    mend: str

    def __str__(self) -> str:
        return f"{self.found} → {self.mend}"


class Registry(ABC):
    """Immutable versions of packages and aliases that stand for them; nothing is there until the first push."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the registry is, for people."""

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Return the names of which there is a version, sorted."""

    @abstractmethod
    def versions(self, name: str) -> tuple[Version, ...]:
        """Return the versions of a name, the oldest first; none when there are none."""

    @abstractmethod
    def aliases(self, name: str) -> dict[str, int]:
        """Return the version number that each alias of a name stands for; raises ArtifactError for a damaged one."""

    @abstractmethod
    def pull(self, name: str, reference: str | int = LATEST, to: Path | None = None) -> Path:
        """Return a verified package: where it lies or is kept, or copied to a folder that must not exist.

        Raises StorageError when it is not there, ArtifactError when it is not what was pushed.
        """

    @abstractmethod
    def push(self, package: Path, *, alias: str | None = None) -> Version:
        """Add a package and return its version; the same package again returns the version that it has.

        Raises ArtifactError when the package does not verify, StorageError when the registry cannot be written,
        Refused when the alias does not stand any more on what the package's verdict was held against: then nothing
        is pushed.
        """

    @abstractmethod
    def promote(self, name: str, reference: str | int, alias: str) -> Version:
        """Let an alias stand for a version from now on; raises StorageError."""

    @abstractmethod
    def remove(self, name: str, number: int) -> Version:
        """Remove a version, whose number is never given again; raises Refused while an alias stands on it."""

    @abstractmethod
    def check(self, *, repair: bool = False) -> tuple[Damage, ...]:
        """Return all that is wrong, every byte read; with `repair`, all that was put right.

        The journal is the record: what lies beside it is made to agree with it, and nothing is made up. An alias of
        which it cannot be said what it stood on stands on nothing until it is promoted again.
        """

    @abstractmethod
    def log(self) -> tuple[Event, ...]:
        """Return the journal's events, the oldest first; raises ArtifactError naming the first changed line."""

    @abstractmethod
    def _history(self, name: str) -> History:
        """Return what the journal says of a name; raises ArtifactError where it cannot be believed."""

    @abstractmethod
    def _standing(self, name: str, alias: str) -> Standing | None:
        """Return what an alias stands on, None where it never stood; raises ArtifactError, StorageError."""

    @abstractmethod
    def _at(self, name: str, number: int, digest: str) -> Version: ...

    def resolve(self, name: str, reference: str | int = LATEST) -> Version:
        """Return the version that a number or an alias stands for; raises StorageError with what is there.

        Whether its package is there is for `pull` to find out.
        """
        found = self._find(name, str(reference))
        if found is not None:
            return found
        versions = self.versions(name)
        if not versions:
            names = ", ".join(self.names()) or "nothing"
            raise StorageError(f"no {name!r} in the registry at {self.place}", fix=f"it has {names}")
        aliases = self._history(name).aliases.items()
        numbers = ", ".join(str(version.version) for version in versions)
        named = ", ".join(f"{alias} → {standing.version}" for alias, standing in sorted(aliases) if standing) or "none"
        raise StorageError(
            f"no version or alias {str(reference)!r} of {name}", fix=f"versions: {numbers}; aliases: {named}"
        )

    def find(self, name: str, reference: str | int) -> Path | None:
        """Return the verified package that a number or an alias stands for, None where there never was one.

        Raises ArtifactError or StorageError, with what to do, where there was one and it cannot be had.
        """
        return self.pull(name, reference) if self._find(name, str(reference)) else None

    def verify_log(self) -> int:
        """Return how many lines the journal has once all are found to be chained; raises ArtifactError."""
        return len(self.log())

    def _find(self, name: str, reference: str) -> Version | None:
        check_name(name)
        if reference == LATEST:
            return next(reversed(self.versions(name)), None)
        if NUMBER_PATTERN.fullmatch(reference):
            return self._numbered(name, int(reference))
        if not NAME_PATTERN.fullmatch(reference):
            raise StorageError(
                f"no version or alias {reference!r} of {name}",
                expected="a version's number, or an alias of lower-case letters, digits and -",
                fix="boatyard registry ls lists them",
            )
        standing = self._standing(name, reference)
        return None if standing is None else self._at(name, standing.version, standing.digest)

    def _numbered(self, name: str, number: int) -> Version | None:
        history = self._history(name)
        if number in history.removed:
            raise StorageError(f"version {number} of {name} was removed", fix=_others(history))
        if number in history.pushed:
            return self._at(name, number, history.pushed[number])
        return next((version for version in self.versions(name) if version.version == number), None)

    def _of_journal(self, name: str, alias: str, history: History) -> Standing | None:
        """Return what an alias stands on by the journal alone."""
        standing = history.aliases.get(alias)
        if standing is None and (alias in history.aliases or history.unknown):
            raise StorageError(f"what {alias} of {name} stood on is lost", fix=self._promotion(name, alias))
        if standing is not None and not history.holds(standing):
            raise ArtifactError(
                f"{alias} of {name} stands on version {standing.version} (sha256 {standing.digest[:12]}…)",
                expected="a version that was pushed with that digest and not removed",
                found="none in the journal",
                fix=f"run {MEND}",
            )
        return standing

    def _not_newest(self, unknown: str) -> ArtifactError:
        """Return the error for a journal that does not know what there was: an old one, or one that lost lines."""
        return ArtifactError(
            f"{self.place}/{JOURNAL} is not the newest: it does not know {unknown}",
            fix=f"restore the newer journal, or run {MEND}",
        )

    def _promotion(self, name: str, alias: str) -> str:
        """Say how an alias that stands on nothing comes to stand again."""
        numbers = ", ".join(str(version.version) for version in self.versions(name))
        if not numbers:
            first = "no version is left: push one with push.alias null"
            return f"{first}, then boatyard registry promote {name} VERSION {alias}"
        return f"boatyard registry promote {name} VERSION {alias}; versions: {numbers}"

    @contextlib.contextmanager
    def _mendable(self) -> Iterator[None]:
        """Say of a package that is not what was pushed how its version comes right again."""
        try:
            yield
        except ArtifactError as error:
            fix = f"restore it, push the same package again, or run {MEND}, which sets it aside"
            raise ArtifactError(error.about, expected=error.expected, found=error.found, fix=fix) from error

    def _gone(self, version: Version) -> ArtifactError:
        """Return the error for a version of the journal whose package is not there."""
        return ArtifactError(
            f"version {version.version} of {version.name} was pushed to {self.place} and its package is gone",
            fix=f"restore it, push the same package again, or run {MEND}, which writes down that it is lost",
        )


def check_name(name: str) -> str:
    """Return a name that can be a model's; raises StorageError for one that cannot."""
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        raise StorageError(expected="a name of lower-case letters, digits and -", found=f"{name!r}")
    return name


def check_alias(alias: str) -> None:
    """Raise StorageError for what cannot be an alias: `latest` is the greatest number's own."""
    if not NAME_PATTERN.fullmatch(alias) or alias == LATEST:
        raise StorageError(expected=f"an alias of lower-case letters, digits and -, not {LATEST}", found=f"{alias!r}")


def _others(history: History) -> str:
    live = ", ".join(map(str, history.live()))
    return f"versions: {live}" if live else "no version is left: push one with push.alias null"
