"""A registry over a folder.

    ROOT/journal.jsonl                 one line an event; each holds the sha256 of the line before
    ROOT/NAME/versions/3/…             a package, complete from the moment it has this name
    ROOT/NAME/aliases/production.json  {"version": 3, "digest": …}, replaced in one step

Many may push at once: a version is claimed by renaming a complete folder under a lock, so that nobody sees half of one
and nobody gets another's number. A push that is killed leaves at most a hidden folder, which the next push removes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boatyard import packages, storage
from boatyard.data import artifacts
from boatyard.errors import ArtifactError, StorageError
from boatyard.locks import lock_folder, locked
from boatyard.registry.base import (
    JOURNAL,
    LATEST,
    NAME_PATTERN,
    Registry,
    Version,
    chained,
    check_alias,
    check_name,
    event,
    line_after,
)

logger = logging.getLogger(__name__)

LOCK = ".lock"


@dataclass(frozen=True)
class FolderRegistry(Registry):
    """A registry at a folder; nothing is there until the first push."""

    root: Path

    @property
    def place(self) -> str:
        """The folder."""
        return str(self.root)

    # Reading

    def names(self) -> tuple[str, ...]:
        """Return the names of which there is a version, sorted."""
        return tuple(
            name for name in sorted(_listing(self.root)) if NAME_PATTERN.fullmatch(name) and self._numbers(name)
        )

    def versions(self, name: str) -> tuple[Version, ...]:
        """Return the versions of a name, the oldest first; none when there are none."""
        return tuple(self._version(name, number) for number in self._numbers(name))

    def aliases(self, name: str) -> dict[str, int]:
        """Return the version number that each alias of a name stands for."""
        folder = self._folder(name) / "aliases"
        found = sorted(entry.removesuffix(".json") for entry in _listing(folder) if entry.endswith(".json"))
        return {alias: self._alias(name, alias)["version"] for alias in found if NAME_PATTERN.fullmatch(alias)}

    def pull(self, name: str, reference: str | int = LATEST, to: Path | None = None) -> Path:
        """Return a verified package: where it lies, or copied to a folder that must not exist.

        Raises StorageError when it is not there, ArtifactError when it is not what was pushed.
        """
        version = self.resolve(name, reference)
        path = self._folder(name) / "versions" / str(version.version)
        packages.verify(path, self._pushed(version))
        if to is None:
            return path
        if to.exists():
            raise StorageError(f"{to} is there already", fix="give another folder")
        with artifacts.new_folder(to) as folder:
            shutil.copytree(path, folder, dirs_exist_ok=True)
            packages.verify(folder, version.digest)
        return to

    def log(self) -> tuple[dict[str, Any], ...]:
        """Return the journal's events, the oldest first; raises ArtifactError naming the first changed line."""
        return chained(self._lines(), str(self.root / JOURNAL))

    # Writing

    def push(self, package: Path, *, alias: str | None = None) -> Version:
        """Add a package and return its version; the same package again returns the version that it has.

        Raises ArtifactError when the package does not verify, StorageError when the registry cannot be written.
        """
        checked = packages.verify(package)
        if alias is not None:
            check_alias(alias)
        with _translated(self.root), self._staged(checked) as staged, self._locked():
            version = self._same(checked) or self._claim(checked, staged)
            if alias is not None:
                self._point(version, alias)
        logger.info("pushed %s version %d, sha256 %s", version.name, version.version, version.digest)
        return version

    def promote(self, name: str, reference: str | int, alias: str) -> Version:
        """Let an alias stand for a version from now on; raises StorageError."""
        check_alias(alias)
        version = self.resolve(name, reference)
        with _translated(self.root), self._locked():
            self._point(version, alias)
        return version

    def _claim(self, package: packages.Package, staged: Path) -> Version:
        """Give a staged package the next number; it is there, whole, from the rename on."""
        folder = self._folder(package.name) / "versions"
        number = max(self._numbers(package.name), default=0) + 1
        os.rename(staged, folder / str(number))
        _sync(folder)
        version = Version(package.name, number, package.digest, storage.uri(folder / str(number)))
        self._write("push", version)
        return version

    def _same(self, package: packages.Package) -> Version | None:
        same = (version for version in self.versions(package.name) if version.digest == package.digest)
        return next(same, None)

    def _point(self, version: Version, alias: str) -> None:
        if self.aliases(version.name).get(alias) == version.version:
            return
        path = self._folder(version.name) / "aliases" / f"{alias}.json"
        artifacts.write_json(path, {"version": version.version, "digest": version.digest})
        self._write("alias", version, alias=alias)

    @contextlib.contextmanager
    def _staged(self, package: packages.Package) -> Iterator[Path]:
        """Copy a package into a hidden folder that is locked while its writer lives, and check the copy."""
        folder = self._folder(package.name) / "versions"
        path = folder / f".{uuid.uuid4().hex}.part"
        with self._locked():
            folder.mkdir(parents=True, exist_ok=True)
            self._clean(folder)
            path.mkdir()
            handle = lock_folder(path)
        try:
            shutil.copytree(package.path, path, dirs_exist_ok=True)
            packages.verify(path, package.digest)
            for each in (*path.rglob("*"), path):
                _sync(each)
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            os.close(handle)

    def _clean(self, folder: Path) -> None:
        """Remove what killed pushes left: hidden folders that nobody holds a lock on."""
        for path in folder.glob(".*.part"):
            try:
                handle = lock_folder(path)
            except (BlockingIOError, FileNotFoundError):  # its writer is at work, or has just removed it
                continue
            shutil.rmtree(path, ignore_errors=True)
            os.close(handle)
            logger.info("removed %s, which a killed push left", path)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the registry's lock; what a writer that was killed had not finished is finished first."""
        self.root.mkdir(parents=True, exist_ok=True)
        with locked(self.root / LOCK):
            self._repair()
            yield

    def _repair(self) -> None:
        """Cut half a last line off the journal, and write down versions that were claimed but not written down."""
        journal = self.root / JOURNAL
        data = journal.read_bytes() if journal.exists() else b""
        if data and not data.endswith(b"\n"):
            os.truncate(journal, data.rfind(b"\n") + 1)
        events = [event(line) or {} for line in self._lines()]
        known = {(each.get("name"), each.get("version")) for each in events if each.get("event") == "push"}
        for name in self.names():
            for number in self._numbers(name):
                if (name, number) not in known:
                    self._write("push", self._version(name, number))

    def _write(self, kind: str, version: Version, **more: Any) -> None:
        """Append one line to the journal; called with the lock held."""
        line = line_after(self._lines(), kind, version, **more)
        with (self.root / JOURNAL).open("ab") as file:
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())

    # Looking up

    def _folder(self, name: str) -> Path:
        return self.root / check_name(name)

    def _numbers(self, name: str) -> list[int]:
        entries = _listing(self._folder(name) / "versions")
        return sorted(int(entry) for entry in entries if re.fullmatch(r"[1-9]\d*", entry))

    def _version(self, name: str, number: int) -> Version:
        path = self.root / name / "versions" / str(number)
        try:
            return Version(name, number, artifacts.digest_file(path / packages.MANIFEST), storage.uri(path))
        except OSError as error:
            raise StorageError(
                f"{path} cannot be read: {error.strerror}", fix="it was removed or is damaged"
            ) from error

    def _find(self, name: str, reference: str) -> Version | None:
        versions = {str(version.version): version for version in self.versions(name)}
        if reference == LATEST and versions:
            return list(versions.values())[-1]
        if NAME_PATTERN.fullmatch(reference):
            path = self._folder(name) / "aliases" / f"{reference}.json"
            reference = str(self._alias(name, reference)["version"]) if path.exists() else reference
        return versions.get(reference)

    def _alias(self, name: str, alias: str) -> dict[str, Any]:
        path = self._folder(name) / "aliases" / f"{alias}.json"
        value = artifacts.read_json(path)
        if not isinstance(value, dict) or type(value.get("version")) is not int:
            raise ArtifactError(f"{path}", expected="a version", found=f"{value!r}", fix="promote a version again")
        return value

    def _pushed(self, version: Version) -> str:
        """Return the digest that the journal says a version was pushed with; its own, before it is written down."""
        for each in (event(line) or {} for line in self._lines()):
            if (each.get("event"), each.get("name"), each.get("version")) == ("push", version.name, version.version):
                return str(each.get("digest"))
        return version.digest

    def _lines(self) -> list[bytes]:
        """Return the journal's whole lines; half a last line is a writer that was killed, or one at work."""
        try:
            return (self.root / JOURNAL).read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"{self.root / JOURNAL} cannot be read: {error.strerror}") from error


def _listing(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be read: {error.strerror}", fix="is it a registry, and may you read it?"
        ) from error


def _sync(path: Path) -> None:
    """Have a file's bytes or a folder's names on the disk, so that a version is whole after a power cut, too."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _translated(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise artifacts.storage_error(root, error) from error
