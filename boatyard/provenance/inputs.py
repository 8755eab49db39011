"""What a step's result depends on beyond its settings and its inputs, as it was seen while the step ran.

Recorded with the result, and compared when the step is asked for again: what differs is why it runs again. Nothing of
the time is in it, nor of where the project lies: files below it are said relative to it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from boatyard.data import hashing
from boatyard.provenance.code import OUTPUTS, digest
from boatyard.provenance.modules import Modules

OR_ABSENT = "?"  # begins the digest of a file that was not there, and that the step itself then wrote
LARGE_BYTES = 1 << 20  # of such a file the contents are read again only when its stat differs
ALL_NAMES = "*"  # stands for the names of all variables, where code went through them
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH|SIGNATURE|COOKIE|DSN|PRIVATE", re.IGNORECASE)
MAX_VALUE_CHARS = 64
UNSET = "unset"
OF_A_SESSION = re.compile(  # variables of a terminal, a shell or the runner, which differ from run to run
    r"BOATYARD_(PROGRESS|WORK|OBSERVED|PARENT|PROJECT)|PYTHONUNBUFFERED|TMPDIR|(OLD)?PWD|SHLVL|_|TERM.*|COLUMNS|LINES"
    r"|WINDOWID|PS\d|SSH_.*|XDG_SESSION.*|DBUS_.*|DISPLAY|WAYLAND.*|INVOCATION_ID|JOURNAL_STREAM|TMUX.*|STY|VTE_.*"
    r"|PYTEST_CURRENT_TEST|HOSTNAME|LS_COLORS|HISTFILE.*|GPG_TTY|ITERM.*|VSCODE_.*"
)
Stat = tuple[int, int, int, int]


@dataclass(frozen=True)
class Inputs:
    """What was seen. Digests of `files` by path and of listings of `folders`; an empty one says that nothing was there.

    `modules` are own code outside of the project, by place; `distributions` versions by name, `plugins` those of them
    that are plug-ins; `variables` values, or digests of those that may be secret; `missing` modules that were looked
    for in vain. `stats` are those of large files as hashed. `unsettled` says what changed while the step ran.
    """

    files: dict[str, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    distributions: dict[str, str] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    stats: dict[str, Stat] = field(default_factory=dict)
    unsettled: tuple[str, ...] = ()

    def values(self) -> dict[str, Any]:
        """Return it as JSON values, without what is empty."""
        return {key: value for key, value in vars(self).items() if value}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Inputs:
        """Read what `values` gave; raises TypeError for a field that is not one."""
        pairs = ("plugins", "missing", "unsettled")
        stats = {path: tuple(stat) for path, stat in values.get("stats", {}).items()}
        return cls(**{**values, "stats": stats, **{key: tuple(values.get(key, ())) for key in pairs}})

    def without(self, *folders: Path) -> Inputs:
        """Return it without the files that lie below some folders (relative to the project, or absolute)."""
        outside = [str(folder) for folder in folders]

        def kept(entries: Mapping[str, Any]) -> dict[str, Any]:
            below = [path for path in entries if any(path == one or path.startswith(one + os.sep) for one in outside)]
            return {path: value for path, value in entries.items() if path not in below}

        changed = {"files": kept(self.files), "folders": kept(self.folders), "stats": kept(self.stats)}
        return Inputs(**{**vars(self), **changed})


@dataclass(frozen=True)
class Here:
    """What is there now: a project's folder, the search path and the environment."""

    root: Path
    environment: Mapping[str, str]

    @cached_property
    def modules(self) -> Modules:
        """Where code is found now."""
        return Modules(self.root)

    def changes(self, seen: Inputs) -> Iterator[str]:
        """Say, one by one, what is not as it was seen."""
        yield from self._files(seen)
        yield from self._code(seen)
        for name, was in seen.variables.items():
            now = value_of(self.environment, name)
            if now != was:
                yield _variable(name, was, now)

    def _files(self, seen: Inputs) -> Iterator[str]:
        for path, was in seen.files.items():
            file = os.path.join(self.root, path)
            if path in seen.stats and stat_of(file) == seen.stats[path]:
                continue
            now = digest(file)
            if now != was.removeprefix(OR_ABSENT) and not (was.startswith(OR_ABSENT) and not now):
                yield _file(path, was.removeprefix(OR_ABSENT), now)
        for path, was in seen.folders.items():
            if listing(os.path.normpath(os.path.join(self.root, path)), self.root) != was:
                yield f"folder {path}: files came or went"

    def _code(self, seen: Inputs) -> Iterator[str]:
        for place, was in seen.modules.items():
            if digest(self.modules.at(place)) != was:
                yield f"code changed: {place.lstrip(':')}"
        for name, was in seen.distributions.items():
            now = self.modules.installed.version(name)
            if now != was:
                yield f"{'plug-in ' if name in seen.plugins else ''}{name} {was} → {now or 'not installed'}"
        yield from (f"{name} can be imported now" for name in seen.missing if self.modules.top(name))


def stat_of(file: str) -> Stat | None:
    """Return what differs when a file was written to, replaced or touched; None where there is none."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def listing(folder: str, root: Path) -> str:
    """Return the digest of the names in a folder, empty where there is none; what runs leave there does not count."""
    left = {"__pycache__", *(OUTPUTS if folder == str(root) else ())}
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith(".") and name not in left)
    except OSError:
        return ""
    return hashing.digest_json(names)


def value_of(environment: Mapping[str, str], name: str) -> str:
    """Return a variable's value as it is recorded: a digest of what is long or may be secret."""
    if name == ALL_NAMES:
        names = sorted(name for name in environment if not OF_A_SESSION.fullmatch(name))
        return f"sha256 {hashing.digest_json(names)}"
    value = environment.get(name)
    if value is None:
        return UNSET
    if SECRET.search(name) or len(value) > MAX_VALUE_CHARS or "://" in value:
        return f"sha256 {hashing.digest_bytes(value.encode('utf-8', 'surrogateescape'))}"
    return f"={value}"


def _variable(name: str, was: str, now: str) -> str:
    if name == ALL_NAMES:
        return "environment variables came or went"
    if any(value.startswith("sha256 ") for value in (was, now)):
        return f"{name} changed"
    return f"{name}: {was.removeprefix('=')} → {now.removeprefix('=')}"


def _file(path: str, was: str, now: str) -> str:
    about = "recipe" if path.endswith(".py") else "file"
    if not was:
        return f"{about} {path} is there now"
    if not now:
        return f"{about} {path} is gone"
    return f"recipe changed: {path}" if about == "recipe" else f"file {path} changed"
