"""A registry over a folder.

    ROOT/journal.jsonl                 one line an event; each holds the sha256 of the line before
    ROOT/NAME/versions/3/…             a package, complete from the moment it has this name
    ROOT/NAME/aliases/production.json  {"version": 3, "digest": …}, replaced in one step
    ROOT/.versions.json                what the journal last said, for the day on which it is lost

Many may push at once: a version is claimed by renaming a complete folder under a lock, so that nobody sees half of one
and nobody gets another's number. A push that is killed leaves at most a hidden folder, which the next push removes, a
version that it writes down, or an alias's file one move behind the journal, which it brings up.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from boatyard import packages, storage
from boatyard.data import artifacts
from boatyard.errors import ArtifactError, Refused, StorageError
from boatyard.locks import lock_folder, locked
from boatyard.registry import judging, repairing_folders
from boatyard.registry.base import (
    LATEST,
    NAME_PATTERN,
    Damage,
    Registry,
    Version,
    check_alias,
    check_name,
)
from boatyard.registry.folder_files import RegistryFiles
from boatyard.registry.history import History, Standing, of
from boatyard.registry.journal import JOURNAL, MEND, Event, chained, stamped

logger = logging.getLogger(__name__)

LOCK = ".lock"
READS = 20  # of what is read without the lock, while others write
T = TypeVar("T")


@dataclass(frozen=True)
class FolderRegistry(RegistryFiles, Registry):
    """A registry at a folder; nothing is there until the first push."""

    @property
    def place(self) -> str:
        """The folder."""
        return str(self.root)

    # Reading

    def names(self) -> tuple[str, ...]:
        """Return the names of which there is a version, sorted."""
        return tuple(name for name in self.folders() if self.versions(name))

    def versions(self, name: str) -> tuple[Version, ...]:
        """Return the versions of a name, the oldest first; none when there are none."""
        history = self._history(name)
        numbers = [number for number in self.numbers(name) if number not in history.removed]
        digests = {**self._noted(name), **history.pushed}
        return tuple(self._at(name, number, digests.get(number, "")) for number in numbers)

    def aliases(self, name: str) -> dict[str, int]:
        """Return the version number that each alias of a name stands for; raises ArtifactError for a damaged one."""
        dropped = {alias for alias, standing in self._history(name).aliases.items() if standing is None}
        known = {*self._history(name).aliases, *self.alias_files(name)} - dropped
        found = {alias: self._standing(name, alias) for alias in sorted(known) if NAME_PATTERN.fullmatch(alias)}
        return {alias: standing.version for alias, standing in found.items() if standing is not None}

    def pull(self, name: str, reference: str | int = LATEST, to: Path | None = None) -> Path:
        """Return a verified package: where it lies, or copied to a folder that must not exist.

        Raises StorageError when it is not there, ArtifactError when it is not what was pushed.
        """
        version = self.resolve(name, reference)
        path = self.version_folder(name, version.version)
        self._check_there(version)
        if to is None:
            return path
        if to.exists():
            raise StorageError(f"{to} is there already", fix="give another folder")
        with artifacts.new_folder(to) as folder:
            shutil.copytree(path, folder, dirs_exist_ok=True)
            packages.verify(folder, version.digest)
        return to

    def log(self) -> tuple[Event, ...]:
        """Return the journal's events, the oldest first; raises ArtifactError naming the first changed line."""
        return chained(self.lines(), str(self.root / JOURNAL))

    # Writing

    def push(self, package: Path, *, alias: str | None = None) -> Version:
        """Add a package and return its version; the same package again returns the version that it has.

        Raises ArtifactError when the package does not verify, StorageError when the registry cannot be written,
        Refused when the alias has moved since the package was judged.
        """
        checked = packages.verify(package)
        judging.check_own(checked)
        if alias is not None:
            check_alias(alias)
        with _translated(self.root), self._staged(checked) as staged, self._locked():
            history = self._history(checked.name)
            if alias is not None:
                self._check_judged(checked, alias, history)
            version = self._same(checked, history, staged) or self._claim(checked, history, staged)
            if alias is not None:
                self._point(version, alias)
            self.note(version.name, self._history(version.name))
        logger.info("pushed %s version %d, sha256 %s", version.name, version.version, version.digest)
        return version

    def promote(self, name: str, reference: str | int, alias: str) -> Version:
        """Let an alias stand for a version from now on; raises StorageError."""
        check_alias(alias)
        with _translated(self.root), self._locked():
            version = self.resolve(name, reference)
            self._check_there(version)
            self._point(version, alias)
            self.note(name, self._history(name))
        return version

    def remove(self, name: str, number: int) -> Version:
        """Remove a version, whose number is never given again; raises Refused while an alias stands on it."""
        with _translated(self.root), self._locked():
            version = self.resolve(name, number)
            standing = {**self._history(name).aliases, **self.alias_files(name)}
            if on_it := sorted(alias for alias, found in standing.items() if found and found.version == number):
                raise Refused(
                    f"{', '.join(on_it)} of {name} stands on version {number}", fix="promote another version first"
                )
            self._write(stamped("remove", name=name, version=number, digest=version.digest))
            self._unlink(name, number)
        return version

    def check(self, *, repair: bool = False) -> tuple[Damage, ...]:
        """Return all that is wrong, every byte read; with `repair`, all that was put right."""
        if not self.root.is_dir():
            return ()
        if not repair and not os.access(self.root, os.W_OK):
            return repairing_folders.plan(self).problems
        with _translated(self.root), locked(self.root / LOCK):
            plan = repairing_folders.plan(self)
            if repair and plan.problems:
                repairing_folders.apply(self, plan)
        return plan.problems

    def _check_judged(self, package: packages.Package, alias: str, history: History) -> None:
        """Refuse a package whose verdict was held against another version than the one that its alias stands on."""
        for each in {alias, str(package.verdict.get("alias") or alias)}:
            self._check_known(package.name, each, history)
            if history.aliases.get(each) is not None:
                self._standing(package.name, each)  # its file, too
            elif each not in history.aliases and each in self.alias_files(package.name):
                raise self._unlike(package.name, each, None)

        def verdict_of(standing: Standing) -> dict[str, Any]:
            return packages.verify(self.pull(package.name, standing.version), standing.digest).verdict

        judging.check_standing(package, alias, history, verdict_of)

    def _claim(self, package: packages.Package, history: History, staged: Path) -> Version:
        """Give a staged package the next number; it is there, whole, from the rename on."""
        noted = self._noted(package.name)
        number = max([history.given, *noted, *self.numbers(package.name)]) + 1
        self._put(package.name, number, staged)
        self._write(stamped("push", name=package.name, version=number, digest=package.digest))
        return self._at(package.name, number, package.digest)

    def _same(self, package: packages.Package, history: History, staged: Path) -> Version | None:
        """Return the version that a package has; one that is gone or damaged is put there again."""
        number = history.same(package.digest)
        if number is None:
            return None
        version = self._at(package.name, number, package.digest)
        try:
            packages.verify(self.version_folder(package.name, number), package.digest)
        except ArtifactError as error:
            logger.warning("%s; it is put there again", error)
            self.set_aside(self.version_folder(package.name, number))
            self._put(package.name, number, staged)
        return version

    def _put(self, name: str, number: int, staged: Path) -> None:
        os.rename(staged, self.version_folder(name, number))
        _sync(self.version_folder(name, number).parent)

    def _point(self, version: Version, alias: str) -> None:
        """Write the move down, then the alias's file: what the journal says is so, and the file follows."""
        standing = Standing(version.version, version.digest)
        if self._history(version.name).aliases.get(alias) != standing:
            name, number = version.name, version.version
            self._write(stamped("alias", name=name, version=number, digest=version.digest, alias=alias))
        self.write_alias(version.name, alias, standing)

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

    def _unlink(self, name: str, number: int) -> None:
        """Remove a version's folder: out of sight in one step, then file by file."""
        path = self.version_folder(name, number)
        hidden = path.with_name(f".{uuid.uuid4().hex}.part")
        if path.exists():
            os.rename(path, hidden)
            shutil.rmtree(hidden, ignore_errors=True)

    # What a writer that was killed left

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the registry's lock; what a writer that was killed had not finished is finished first."""
        self.root.mkdir(parents=True, exist_ok=True)
        with locked(self.root / LOCK):
            self._finish()
            yield

    def _finish(self) -> None:
        """Cut half a last line off, write down versions that were claimed, do what the last line says."""
        self.cut()
        if self.is_lost(self.lines()):
            where = self.root / JOURNAL
            logger.warning("%s is gone: it is written anew from the versions and aliases that are there", where)
            repairing_folders.apply(self, repairing_folders.plan(self))
        if events := self.log():
            self._finish_last(events)
        for name in self.folders():
            self._adopt(name, of(events, name))

    def _finish_last(self, events: tuple[Event, ...]) -> None:
        name, number, alias = (events[-1].get(key) for key in ("name", "version", "alias"))
        if events[-1].get("event") == "remove" and isinstance(name, str) and type(number) is int:
            self.set_aside(self.version_folder(name, number))  # or somebody brought it back: nothing is lost
        if isinstance(name, str) and isinstance(alias, str) and NAME_PATTERN.fullmatch(alias):
            standing = of(events, name).aliases.get(alias)
            if standing and self.alias_files(name).get(alias) == of(events[:-1], name).aliases.get(alias):
                self.write_alias(name, alias, standing)

    def _adopt(self, name: str, history: History) -> None:
        noted = self._noted(name)
        for number in self.numbers(name):
            if number not in history.pushed:
                try:
                    package = packages.verify(self.version_folder(name, number), noted.get(number))
                except ArtifactError as error:
                    logger.warning("%s; it is no version of %s: %s sets it aside", error, name, MEND)
                    continue
                self._write(stamped("push", name=name, version=number, digest=package.digest))

    # Looking up

    def _noted(self, name: str) -> Mapping[int, str]:
        """Return the digests of versions that were noted beside the journal."""
        notes = self.notes()
        return notes[name].versions if name in notes else {}

    def _history(self, name: str) -> History:
        check_name(name)
        return of(self.log(), name)

    def _standing(self, name: str, alias: str) -> Standing | None:
        return self._steady(lambda lines: self._agreed(name, alias, chained(lines, str(self.root / JOURNAL)), lines))

    def _agreed(self, name: str, alias: str, events: tuple[Event, ...], lines: list[bytes]) -> Standing | None:
        """Return what journal and file say an alias stands on; the file may be the journal's last line behind."""
        if self.is_lost(lines):
            raise ArtifactError(f"{self.root / JOURNAL} is gone, and there are versions", fix=f"run {MEND}")
        history = of(events, name)
        self._check_known(name, alias, history)
        standing = self._of_journal(name, alias, history)
        files = self.alias_files(name)
        if files.get(alias) == standing and (alias in files) == (standing is not None):
            return standing
        last = events[-1] if events else {}
        behind = of(events[:-1], name).aliases.get(alias)
        readable = alias not in files or files[alias] is not None
        if readable and (last.get("name"), last.get("alias")) == (name, alias) and files.get(alias) == behind:
            return standing
        raise self._unlike(name, alias, standing)

    def _check_known(self, name: str, alias: str, history: History) -> None:
        """Raise ArtifactError for a journal that does not know that an alias stood."""
        noted = self.notes().get(name)
        if noted and alias in noted.aliases and alias not in history.aliases and not history.unknown:
            raise self._not_newest(f"that {alias} of {name} stood on a version")

    def _unlike(self, name: str, alias: str, standing: Standing | None) -> ArtifactError:
        file = self.alias_files(name).get(alias)
        return ArtifactError(
            f"{self._folder(name) / 'aliases' / alias}.json is not what the journal says",
            expected=f"version {standing.version}, sha256 {standing.digest[:12]}…" if standing else "no such alias",
            found=f"version {file.version}, sha256 {file.digest[:12]}…" if file else "none that can be read",
            fix=f"run {MEND}, or promote a version again",
        )

    def _steady(self, look: Callable[[list[bytes]], T]) -> T:
        """Look without the lock; what does not fit together is looked at again while others write."""
        for _ in range(READS):
            lines = self.lines()
            try:
                return look(lines)
            except (ArtifactError, StorageError):
                if self.lines() == lines:
                    raise
        return look(self.lines())

    def _at(self, name: str, number: int, digest: str) -> Version:
        """Return a version with its digest: the journal's, or its own before it is written down."""
        path = self.version_folder(name, number)
        try:
            found = digest or artifacts.digest_file(path / packages.MANIFEST)
        except OSError as error:
            raise StorageError(
                f"{path} cannot be read: {error.strerror}", fix=f"it was removed or is damaged; run {MEND}"
            ) from error
        return Version(name, number, found, storage.uri(path))

    def _check_there(self, version: Version) -> None:
        path = self.version_folder(version.name, version.version)
        if not path.is_dir():
            raise self._gone(version)
        with self._mendable():
            packages.verify(path, version.digest)

    def _write(self, event: Event) -> None:
        """Append one line to the journal; called with the lock held."""
        self.append([event])


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
