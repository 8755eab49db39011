"""What every registry keeps and promises: versions that do not change, aliases that move, a journal of both."""

from __future__ import annotations

import getpass
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from boatyard.data import artifacts
from boatyard.errors import ArtifactError, StorageError

NAME_PATTERN = re.compile(r"[a-z]([-a-z0-9]{0,51}[a-z0-9])?")
LATEST = "latest"  # the version with the greatest number; no alias may be called so
JOURNAL = "journal.jsonl"
START = "0" * 64  # what the first line holds in place of the line before it


@dataclass(frozen=True)
class Version:
    """One version of a package in a registry. `digest` is the sha256 of its package.json, `uri` where it lies."""

    name: str
    version: int
    digest: str
    uri: str


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
        """Return the version number that each alias of a name stands for."""

    @abstractmethod
    def pull(self, name: str, reference: str | int = LATEST, to: Path | None = None) -> Path:
        """Return a verified package: where it lies or is kept, or copied to a folder that must not exist.

        Raises StorageError when it is not there, ArtifactError when it is not what was pushed.
        """

    @abstractmethod
    def push(self, package: Path, *, alias: str | None = None) -> Version:
        """Add a package and return its version; the same package again returns the version that it has.

        Raises ArtifactError when the package does not verify, StorageError when the registry cannot be written.
        """

    @abstractmethod
    def promote(self, name: str, reference: str | int, alias: str) -> Version:
        """Let an alias stand for a version from now on; raises StorageError."""

    @abstractmethod
    def log(self) -> tuple[dict[str, Any], ...]:
        """Return the journal's events, the oldest first; raises ArtifactError naming the first changed line."""

    @abstractmethod
    def _find(self, name: str, reference: str) -> Version | None: ...

    def resolve(self, name: str, reference: str | int = LATEST) -> Version:
        """Return the version that a number or an alias stands for; raises StorageError with what is there."""
        found = self._find(name, str(reference))
        if found is not None:
            return found
        versions, aliases = self.versions(name), self.aliases(name)
        if not versions:
            names = ", ".join(self.names()) or "nothing"
            raise StorageError(f"no {name!r} in the registry at {self.place}", fix=f"it has {names}")
        numbers = ", ".join(str(version.version) for version in versions)
        named = ", ".join(f"{alias} → {number}" for alias, number in aliases.items()) or "none"
        raise StorageError(
            f"no version or alias {str(reference)!r} of {name}", fix=f"versions: {numbers}; aliases: {named}"
        )

    def find(self, name: str, reference: str | int) -> Path | None:
        """Return the verified package that a number or an alias stands for, None where there is none yet."""
        return self.pull(name, reference) if self._find(name, str(reference)) else None

    def verify_log(self) -> int:
        """Return how many lines the journal has once all are found to be chained; raises ArtifactError."""
        return len(self.log())


def check_name(name: str) -> str:
    """Return a name that can be a model's; raises StorageError for one that cannot."""
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        raise StorageError(expected="a name of lower-case letters, digits and -", found=f"{name!r}")
    return name


def check_alias(alias: str) -> None:
    """Raise StorageError for what cannot be an alias: `latest` is the greatest number's own."""
    if not NAME_PATTERN.fullmatch(alias) or alias == LATEST:
        raise StorageError(expected=f"an alias of lower-case letters, digits and -, not {LATEST}", found=f"{alias!r}")


def event(line: bytes) -> dict[str, Any] | None:
    """Read one line of a journal, None when it is not an event."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def chained(lines: Iterable[bytes], at: str) -> tuple[dict[str, Any], ...]:
    """Return a journal's events once every line is found to hold the digest of the one before; raises ArtifactError."""
    events, previous = [], START
    for number, line in enumerate(lines, 1):
        found = event(line)
        if found is None or found.get("previous") != previous:
            raise ArtifactError(f"{at}: line {number} or the one before it was changed or removed")
        events.append(found)
        previous = artifacts.digest_bytes(line)
    return tuple(events)


def line_after(lines: list[bytes], kind: str, version: Version, **more: Any) -> bytes:
    """Return a journal's next line, without its end: what happened, when, by whom, the digest of the line before."""
    about = {"event": kind, "name": version.name, "version": version.version, "digest": version.digest, **more}
    stamp = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "by": _user()}
    previous = artifacts.digest_bytes(lines[-1]) if lines else START
    return json.dumps({**about, **stamp, "previous": previous}).encode()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid that the machine has no name for, as in many pods
        return str(os.getuid())
