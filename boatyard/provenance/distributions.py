"""Installed distributions: which of them a file belongs to, in which version, and which bring plug-ins of ours."""

from __future__ import annotations

import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PLUGIN_GROUP = "[boatyard."  # how a group of ours begins in entry_points.txt
LIBRARY = "boatyard"


def normal(name: str) -> str:
    """Return a distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(frozen=True)
class Distribution:
    """One installed distribution: the folder that its modules lie in, and that of its metadata."""

    name: str
    folder: str
    info: Path

    @property
    def version(self) -> str:
        """The version that its metadata says."""
        for file in ("METADATA", "PKG-INFO"):
            for line in _lines(self.info / file):
                if line.startswith("Version:"):
                    return line.partition(":")[2].strip()
                if not line.strip():
                    break
        return ""

    @cached_property
    def recorded(self) -> frozenset[str] | None:
        """The files that its installer wrote, relative to `folder`; None where it left no record of them."""
        lines = _lines(self.info / "RECORD")
        return frozenset(line.rpartition(",")[0].rpartition(",")[0].strip('"') for line in lines) if lines else None

    def tops(self) -> Iterator[str]:
        """Give the names in `folder` that are its: folders, files, or modules where nothing else is recorded."""
        if self.recorded is not None:
            yield from {path.partition("/")[0] for path in self.recorded}
        elif lines := _lines(self.info / "top_level.txt"):
            yield from (line.strip() for line in lines)
        else:
            yield from {self.name, self.name.replace("-", "_")}

    @cached_property
    def plugin_tops(self) -> frozenset[str]:
        """The top-level modules of its plug-ins of ours."""
        found, ours = set(), False
        for line in _lines(self.info / "entry_points.txt"):
            if line.startswith("["):
                ours = line.startswith(PLUGIN_GROUP)
            elif ours and "=" in line:
                found.add(re.split(r"[.:\s]", line.partition("=")[2].strip())[0])
        return frozenset(found)


class Installed:
    """The distributions that a search path has; the first of a name counts, as when Python imports."""

    def __init__(self, search: tuple[str, ...]) -> None:
        self.search = tuple(dict.fromkeys(os.path.abspath(folder or ".") for folder in search))
        self.written = _site_folders()  # what lies in them an installer wrote, whether it left a record or not
        self._indexes: dict[str, dict[str, list[Distribution]]] = {}

    @cached_property
    def by_name(self) -> dict[str, Distribution]:
        """Every distribution by its name."""
        found: dict[str, Distribution] = {}
        for folder in self.search:
            for info in _infos(folder):
                name = normal(info.partition("-")[0] if "-" in info else info.rpartition(".")[0])
                found.setdefault(name, Distribution(name, folder, Path(folder, info)))
        return found

    @cached_property
    def plugins(self) -> tuple[Distribution, ...]:
        """The distributions that bring plug-ins of ours, this one apart."""
        return tuple(one for name, one in self.by_name.items() if name != LIBRARY and one.plugin_tops)

    def _by_top(self, folder: str) -> dict[str, list[Distribution]]:
        """Return the distributions of one folder by the names in it that are theirs; the records are read once."""
        if folder not in self._indexes:
            index = self._indexes.setdefault(folder, {})
            for one in (one for one in self.by_name.values() if one.folder == folder):
                for top in one.tops():
                    index.setdefault(top, []).append(one)
        return self._indexes[folder]

    def version(self, name: str) -> str:
        """Return a distribution's version, empty where it is not installed."""
        found = self.by_name.get(name)
        return found.version if found else ""

    def owner(self, file: str) -> Distribution | None:
        """Return the distribution that a file was installed by; None for code that has no version.

        An editable distribution's record names none of its modules: they have no version, whatever its metadata says.
        """
        folder = self._folder(file)
        if folder is None:
            return None
        path = file[len(folder) :].lstrip(os.sep).replace(os.sep, "/")
        top = path.partition("/")[0]
        index = self._by_top(folder)
        owners = index.get(top) or index.get(top.partition(".")[0]) or []
        for one in owners:
            if one.recorded is not None and path in one.recorded:
                return one
        unrecorded = (one for one in owners if one.recorded is None and folder in self.written)
        return next(unrecorded, None)

    def _folder(self, file: str) -> str | None:
        """Return the folder of the search path that a file lies in, the innermost."""
        holding = [folder for folder in self.search if file.startswith(folder + os.sep)]
        return max(holding, key=len, default=None)


def standard_library() -> tuple[str, ...]:
    """Return the folders of Python's own modules."""
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    return tuple(sorted({*paths, *map(os.path.realpath, paths)}))


def _site_folders() -> frozenset[str]:
    paths = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    return frozenset(map(os.path.abspath, (*paths, site.getusersitepackages())))


def _infos(folder: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith((".dist-info", ".egg-info")))
    except OSError:
        return []


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


def installed(*first: str | Path) -> Installed:
    """Return what is installed on this process's search path, with further folders before it."""
    return Installed((*map(str, first), *sys.path))
