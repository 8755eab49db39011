"""The files of a registry in a folder, read and written one by one; what they mean together is `folders`'."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boatyard.data import artifacts
from boatyard.errors import ArtifactError, StorageError
from boatyard.registry.base import NAME_PATTERN, NUMBER_PATTERN, check_name
from boatyard.registry.history import History, Standing
from boatyard.registry.journal import JOURNAL, Event, extended

NOTES = ".versions.json"


@dataclass(frozen=True)
class RegistryNote:
    """What was last noted of a name: every version's digest, also of removed ones, and of every alias that ever stood
    what it stands on, None for nothing now."""

    versions: Mapping[int, str]
    aliases: Mapping[str, Standing | None]


@dataclass(frozen=True)
class RegistryFiles:
    """The files below a registry's folder."""

    root: Path

    def _folder(self, name: str) -> Path:
        return self.root / check_name(name)

    def folders(self) -> list[str]:
        """Return the names that have a folder, sorted."""
        return [name for name in sorted(listing(self.root)) if NAME_PATTERN.fullmatch(name) and self.is_model(name)]

    def is_model(self, name: str) -> bool:
        """Say whether a folder of the root is a model's."""
        return any((self.root / name / part).is_dir() for part in ("versions", "aliases"))

    def version_folder(self, name: str, number: int) -> Path:
        """Return where a version lies."""
        return self._folder(name) / "versions" / str(number)

    def numbers(self, name: str) -> list[int]:
        """Return the numbers of the versions that lie there, sorted."""
        return sorted(
            int(entry) for entry in listing(self._folder(name) / "versions") if NUMBER_PATTERN.fullmatch(entry)
        )

    def alias_files(self, name: str) -> dict[str, Standing | None]:
        """Return what the file of each alias says, None for one that says nothing that can be."""
        folder = self._folder(name) / "aliases"
        files = [entry.removesuffix(".json") for entry in listing(folder) if entry.endswith(".json")]
        return {alias: _standing_of(folder / f"{alias}.json") for alias in files if NAME_PATTERN.fullmatch(alias)}

    def write_alias(self, name: str, alias: str, standing: Standing) -> None:
        """Write an alias's file, unless it says so already."""
        if self.alias_files(name).get(alias) != standing:
            artifacts.write_json(self._folder(name) / "aliases" / f"{alias}.json", vars(standing))

    def lines(self) -> list[bytes]:
        """Return the journal's whole lines; half a last line is a writer that was killed, or one at work."""
        try:
            return (self.root / JOURNAL).read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"{self.root / JOURNAL} cannot be read: {error.strerror}") from error

    def cut(self) -> None:
        """Cut half a last line off, which a writer that was killed left; called with the lock held."""
        path = self.root / JOURNAL
        data = path.read_bytes() if path.exists() else b""
        if data and not data.endswith(b"\n"):
            os.truncate(path, data.rfind(b"\n") + 1)

    def append(self, events: list[Event]) -> None:
        """Add events to the journal; called with the lock held."""
        self.cut()
        lines = self.lines()
        more = extended(lines, events)[len(lines) :]
        with (self.root / JOURNAL).open("ab") as file:
            file.write(b"".join(line + b"\n" for line in more))
            file.flush()
            os.fsync(file.fileno())

    def is_lost(self, lines: list[bytes]) -> bool:
        """Say whether there is no journal where there was one; the first push of all may be killed before its line."""
        if lines:
            return False
        several = sum(len(self.numbers(name)) for name in self.folders()) > 1
        return several or bool(self.notes()) or any(self.alias_files(name) for name in self.folders())

    def notes(self) -> dict[str, RegistryNote]:
        """Return what was noted beside the journal, by name; nothing in a registry that an earlier Boatyard wrote."""
        try:
            found = artifacts.read_json(self.root / NOTES)
        except ArtifactError:
            return {}
        return {name: _note(value) for name, value in found.items()} if isinstance(found, dict) else {}

    def note(self, name: str, history: History) -> None:
        """Note what the journal says of a name, for the day on which it is lost or is an old one."""
        notes = self.notes()
        before = notes.get(name, RegistryNote({}, {}))
        aliases = {**before.aliases, **history.aliases}  # also those that the journal does not know any more
        notes[name] = RegistryNote({**before.versions, **history.live()}, aliases)
        values = {each: {"versions": n.versions, "aliases": _plain(n.aliases)} for each, n in notes.items()}
        if notes[name] != before:
            artifacts.write_json(self.root / NOTES, values)

    def set_aside(self, path: Path) -> None:
        """Move what has no place in the registry out of it, to be looked at; nothing is lost."""
        if not path.exists():
            return
        kept = self.root / ".set-aside"
        kept.mkdir(exist_ok=True)
        about = "-".join(path.relative_to(self.root).parts)
        os.rename(path, kept / f"{about}-{uuid.uuid4().hex[:8]}")


def _standing_of(path: Path) -> Standing | None:
    try:
        value = artifacts.read_json(path)
    except (ArtifactError, OSError):
        return None
    return _standing(value)


def _standing(value: Any) -> Standing | None:
    if not isinstance(value, dict) or type(value.get("version")) is not int or not isinstance(value.get("digest"), str):
        return None
    return Standing(value["version"], value["digest"])


def listing(folder: Path) -> list[str]:
    """Return the names in a folder, none where there is none; raises StorageError."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be read: {error.strerror}", fix="is it a registry, and may you read it?"
        ) from error


def _note(value: Any) -> RegistryNote:
    """Read a note from what may have been changed: what is none is left out."""
    parts = [value.get(part) if isinstance(value, dict) else None for part in ("versions", "aliases")]
    versions, aliases = [part if isinstance(part, dict) else {} for part in parts]
    return RegistryNote(
        {int(n): digest for n, digest in versions.items() if NUMBER_PATTERN.fullmatch(n) and isinstance(digest, str)},
        {alias: _standing(each) for alias, each in aliases.items()},
    )


def _plain(aliases: Mapping[str, Standing | None]) -> dict[str, dict[str, Any] | None]:
    return {alias: vars(standing) if standing else None for alias, standing in aliases.items()}
