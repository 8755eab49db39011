"""A registry: immutable versions of packages and aliases over a folder, with a journal that cannot be edited unseen.

    ROOT/journal.jsonl                 one line an event; each holds the sha256 of the line before
    ROOT/NAME/versions/3/…             a package, complete from the moment it has this name
    ROOT/NAME/aliases/production.json  {"version": 3, "digest": …}, replaced in one step

Many may push at once: a version is claimed by renaming a complete folder under a lock, so that nobody sees half of one
and nobody gets another's number. A push that is killed leaves at most a hidden folder, which the next push removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from boatyard import artifacts, packages, storage
from boatyard.errors import ArtifactError, StorageError

logger = logging.getLogger(__name__)

NAME = re.compile(r"[a-z]([-a-z0-9]{0,51}[a-z0-9])?")
LATEST = "latest"  # the version with the greatest number; no alias may be called so
JOURNAL = "journal.jsonl"
LOCK = ".lock"
START = "0" * 64  # what the first line holds in place of the line before it


@dataclass(frozen=True)
class Version:
    """One version of a package in a registry. `digest` is the sha256 of its package.json, `uri` where it lies."""

    name: str
    version: int
    digest: str
    uri: str


@dataclass(frozen=True)
class Registry:
    """A registry at a folder; nothing is there until the first push."""

    root: Path

    # Reading

    def names(self) -> tuple[str, ...]:
        """Return the names of which there is a version, sorted."""
        return tuple(name for name in sorted(_listing(self.root)) if NAME.fullmatch(name) and self._numbers(name))

    def versions(self, name: str) -> tuple[Version, ...]:
        """Return the versions of a name, the oldest first; none when there are none."""
        return tuple(self._version(name, number) for number in self._numbers(name))

    def aliases(self, name: str) -> dict[str, int]:
        """Return the version number that each alias of a name stands for."""
        folder = self._folder(name) / "aliases"
        found = sorted(entry.removesuffix(".json") for entry in _listing(folder) if entry.endswith(".json"))
        return {alias: self._alias(name, alias)["version"] for alias in found if NAME.fullmatch(alias)}

    def resolve(self, name: str, reference: str | int = LATEST) -> Version:
        """Return the version that a number or an alias stands for; raises StorageError with what is there."""
        found = self._find(name, str(reference))
        if found is not None:
            return found
        versions, aliases = self.versions(name), self.aliases(name)
        if not versions:
            names = ", ".join(self.names()) or "nothing"
            raise StorageError(f"no {name!r} in the registry at {self.root}; it has {names}")
        numbers = ", ".join(str(version.version) for version in versions)
        named = ", ".join(f"{alias} → {number}" for alias, number in aliases.items()) or "none"
        raise StorageError(f"no version or alias {str(reference)!r} of {name}; versions: {numbers}; aliases: {named}")

    def find(self, name: str, reference: str | int) -> Path | None:
        """Return the verified package that a number or an alias stands for, None where there is none yet."""
        return self.pull(name, reference) if self._find(name, str(reference)) else None

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
            raise StorageError(f"{to} is there already; give another folder")
        with artifacts.new_folder(to) as folder:
            shutil.copytree(path, folder, dirs_exist_ok=True)
            packages.verify(folder, version.digest)
        return to

    def log(self) -> tuple[dict[str, Any], ...]:
        """Return the journal's events, the oldest first; raises ArtifactError naming the first changed line."""
        events, previous = [], START
        for number, line in enumerate(self._lines(), 1):
            event = _event(line)
            if event is None or event.get("previous") != previous:
                raise ArtifactError(f"{self.root / JOURNAL}: line {number} or the one before it was changed or removed")
            events.append(event)
            previous = artifacts.digest_bytes(line)
        return tuple(events)

    def verify_log(self) -> int:
        """Return how many lines the journal has once all are found to be chained; raises ArtifactError."""
        return len(self.log())

    # Writing

    def push(self, package: Path, *, alias: str | None = None) -> Version:
        """Add a package and return its version; the same package again returns the version that it has.

        Raises ArtifactError when the package does not verify, StorageError when the registry cannot be written.
        """
        checked = packages.verify(package)
        if alias is not None:
            _check_alias(alias)
        with _translated(self.root), self._staged(checked) as staged, self._locked():
            version = self._same(checked) or self._claim(checked, staged)
            if alias is not None:
                self._point(version, alias)
        logger.info("pushed %s version %d, sha256 %s", version.name, version.version, version.digest)
        return version

    def promote(self, name: str, reference: str | int, alias: str) -> Version:
        """Let an alias stand for a version from now on; raises StorageError."""
        _check_alias(alias)
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
            handle = _flock(path)
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
                handle = _flock(path)
            except (BlockingIOError, FileNotFoundError):  # its writer is at work, or has just removed it
                continue
            shutil.rmtree(path, ignore_errors=True)
            os.close(handle)
            logger.info("removed %s, which a killed push left", path)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the registry's lock; what a writer that was killed had not finished is finished first."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / LOCK).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._repair()
            yield

    def _repair(self) -> None:
        """Cut half a last line off the journal, and write down versions that were claimed but not written down."""
        journal = self.root / JOURNAL
        data = journal.read_bytes() if journal.exists() else b""
        if data and not data.endswith(b"\n"):
            os.truncate(journal, data.rfind(b"\n") + 1)
        events = [_event(line) or {} for line in self._lines()]
        known = {(event.get("name"), event.get("version")) for event in events if event.get("event") == "push"}
        for name in self.names():
            for number in self._numbers(name):
                if (name, number) not in known:
                    self._write("push", self._version(name, number))

    def _write(self, event: str, version: Version, **more: Any) -> None:
        """Append one line to the journal; called with the lock held."""
        lines = self._lines()
        about = {"event": event, "name": version.name, "version": version.version, "digest": version.digest, **more}
        stamp = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "by": _user()}
        previous = artifacts.digest_bytes(lines[-1]) if lines else START
        line = json.dumps({**about, **stamp, "previous": previous}) + "\n"
        with (self.root / JOURNAL).open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    # Looking up

    def _folder(self, name: str) -> Path:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise StorageError(f"wanted a name of lower-case letters, digits and -, found {name!r}")
        return self.root / name

    def _numbers(self, name: str) -> list[int]:
        entries = _listing(self._folder(name) / "versions")
        return sorted(int(entry) for entry in entries if re.fullmatch(r"[1-9]\d*", entry))

    def _version(self, name: str, number: int) -> Version:
        path = self.root / name / "versions" / str(number)
        try:
            return Version(name, number, artifacts.digest_file(path / packages.NAME), storage.uri(path))
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}; it was removed or is damaged") from error

    def _find(self, name: str, reference: str) -> Version | None:
        versions = {str(version.version): version for version in self.versions(name)}
        if reference == LATEST and versions:
            return list(versions.values())[-1]
        if NAME.fullmatch(reference):
            path = self._folder(name) / "aliases" / f"{reference}.json"
            reference = str(self._alias(name, reference)["version"]) if path.exists() else reference
        return versions.get(reference)

    def _alias(self, name: str, alias: str) -> dict[str, Any]:
        path = self._folder(name) / "aliases" / f"{alias}.json"
        value = artifacts.read_json(path)
        if not isinstance(value, dict) or type(value.get("version")) is not int:
            raise ArtifactError(f"{path}: wanted a version, found {value!r}; promote a version again")
        return value

    def _pushed(self, version: Version) -> str:
        """Return the digest that the journal says a version was pushed with; its own, before it is written down."""
        for event in (_event(line) or {} for line in self._lines()):
            if (event.get("event"), event.get("name"), event.get("version")) == ("push", version.name, version.version):
                return str(event.get("digest"))
        return version.digest

    def _lines(self) -> list[bytes]:
        """Return the journal's whole lines; half a last line is a writer that was killed, or one at work."""
        try:
            return (self.root / JOURNAL).read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"{self.root / JOURNAL} cannot be read: {error.strerror}") from error


def open(uri: str, root: Path) -> Registry:
    """Open the registry at a URI or folder; a relative folder starts at `root`. It need not exist before a push."""
    return Registry(storage.parse(uri, root))


def _check_alias(alias: str) -> None:
    if not NAME.fullmatch(alias) or alias == LATEST:
        raise StorageError(f"wanted an alias of lower-case letters, digits and -, not {LATEST}, found {alias!r}")


def _event(line: bytes) -> dict[str, Any] | None:
    """Read one line of a journal, None when it is not an event."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _listing(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be read: {error.strerror}; is it a registry, and may you read it?"
        ) from error


def _flock(folder: Path) -> int:
    """Lock a folder for as long as this process lives; raises BlockingIOError when another has it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    return handle


def _sync(path: Path) -> None:
    """Have a file's bytes or a folder's names on the disk, so that a version is whole after a power cut, too."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid that the machine has no name for, as in many pods
        return str(os.getuid())


@contextlib.contextmanager
def _translated(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise artifacts.storage_error(root, error) from error
