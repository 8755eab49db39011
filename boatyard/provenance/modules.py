"""Own code: modules that no installed, versioned distribution brings, by where Python finds them.

A module's place is said without the machine's paths: relative to the project's folder, or, elsewhere, to the folder of
the search path that holds its top-level package. So two checkouts of the same code compare equal.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from functools import cached_property
from importlib.machinery import EXTENSION_SUFFIXES, BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from boatyard.provenance.distributions import LIBRARY, Distribution, Installed, installed, standard_library

SUFFIXES = (".py", *EXTENSION_SUFFIXES, ".pyc")
BUILT_IN = (BuiltinImporter, FrozenImporter, PathFinder)


class Modules:
    """Where modules are, for a project: its folder is searched before all else, as when its recipe is imported."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.search = [str(self.root), os.getcwd(), *sys.path]

    @cached_property
    def installed(self) -> Installed:
        """The distributions that the search path has."""
        return installed(self.root)

    @cached_property
    def standard(self) -> tuple[str, ...]:
        """The folders of Python's own modules."""
        return standard_library()

    @cached_property
    def _library(self) -> tuple[str, ...]:
        loaded = (m for name, m in sys.modules.items() if name == LIBRARY or (name.count(".") == 1 and _ours(name)))
        return tuple({path for module in loaded for path in getattr(module, "__path__", ())})

    def is_library(self, file: str) -> bool:
        """Say whether a file is of this library, however it is installed."""
        return is_below(file, self._library)

    def is_own(self, file: str) -> bool:
        """Say whether a module's file is code without a version: a project's, a plug-in's, an editable install's.

        Plug-ins of ours count whatever installed them: who writes one edits it in place.
        """
        if not file or file.startswith("<") or self.is_library(file):
            return False
        if self.is_plugin(file):
            return True
        if self.installed.owner(file) is not None:
            return False
        return self.is_below(file) or is_below(file, self.installed.written) or not is_below(file, self.standard)

    def is_plugin(self, file: str) -> bool:
        """Say whether a file is of a distribution that brings plug-ins of ours, in a package that they come from."""
        for one in self.installed.plugins:
            if is_below(file, (one.folder,)):
                top = os.path.relpath(file, one.folder).partition(os.sep)[0]
                if top.partition(".")[0] in one.plugin_tops:
                    return True
        return False

    def is_below(self, file: str) -> bool:
        """Say whether a file lies below the project's folder."""
        return is_below(file, (str(self.root),))

    def owner(self, file: str) -> Distribution | None:
        """Return the distribution that installed a module's file."""
        return self.installed.owner(file)

    def find(self, name: str) -> str | None:
        """Return the file of a module, by name, without importing anything; None for none, a namespace or built in."""
        top, _, rest = name.partition(".")
        spec = self.top(top)
        if spec is None:
            return None
        if not rest:
            return file_of(spec)
        if archive := _archive(spec):
            return archive
        for folder in spec.submodule_search_locations or ():
            if file := _module_file(Path(folder, *rest.split("."))):
                return file
        return None

    def top(self, name: str) -> ModuleSpec | None:
        """Return where a top-level module would be imported from."""
        try:
            if spec := PathFinder.find_spec(name, self.search):
                return spec
            finders = [finder for finder in sys.meta_path if finder not in BUILT_IN]
            return next((spec for finder in finders if (spec := finder.find_spec(name, None, None))), None)
        except (ImportError, AttributeError, ValueError):  # a finder of somebody else's
            return None

    def place(self, file: str, top: str) -> str:
        """Say where a module's file is: below the project, or `:` and its path from what holds its package."""
        if self.is_below(file):
            return os.path.relpath(file, self.root).replace(os.sep, "/")
        spec = self.top(top)
        for folder in _bases(spec) if spec else ():
            if is_below(file, (folder,)):
                return ":" + os.path.relpath(file, folder).replace(os.sep, "/")
        return ":" + os.path.basename(file)

    def at(self, place: str) -> str:
        """Return the file that a place names now: the first that there is, else where the project would have it."""
        if not place.startswith(":"):
            return str(self.root / place)
        path = place[1:]
        top = path.partition("/")[0].partition(".")[0]
        spec = self.top(top)
        there = [os.path.join(folder, path) for folder in (_bases(spec) if spec else ())]
        if spec and (archive := _archive(spec)) and os.path.basename(archive) == path:
            return archive
        return next((file for file in there if os.path.exists(file)), there[0] if there else path)

    def loaded(self) -> Iterator[tuple[str, str]]:
        """Give the own modules that this process has imported, each with its file."""
        for name, module in list(sys.modules.items()):
            file = _loaded_file(module)
            if file and self.is_own(file):
                yield name, file


def file_of(spec: ModuleSpec) -> str | None:
    """Return the file that a module is read from: its source, its library, or the archive that holds it."""
    if archive := _archive(spec):
        return archive
    return spec.origin if spec.has_location else None


def source_of(name: str, file: str, spec: ModuleSpec | None) -> str:
    """Return a module's source text, empty where there is none to read."""
    try:
        if file.endswith(".py"):
            return Path(file).read_text("utf-8", "replace")
        loader: Any = spec.loader if spec else None
        return str(loader.get_source(name) or "") if hasattr(loader, "get_source") else ""
    except (OSError, ImportError, SyntaxError, ValueError):
        return ""


def parents(name: str) -> Iterator[str]:
    """Give a module's packages and itself: `a`, `a.b`, `a.b.c`."""
    parts = name.split(".")
    yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def resolve(name: str, level: int, package: str) -> str:
    """Return the absolute name of a relative import; empty where it goes above the top."""
    if not level:
        return name
    try:
        return importlib.util.resolve_name("." * level + name, package)
    except ImportError:
        return ""


def _ours(name: str) -> bool:
    return name.startswith(f"{LIBRARY}.")


def is_below(file: str, folders: Iterable[str]) -> bool:
    """Say whether a path is one of some folders, or lies in one."""
    return any(file == folder or file.startswith(folder + os.sep) for folder in folders)


def _archive(spec: ModuleSpec) -> str | None:
    return getattr(spec.loader, "archive", None)


def _bases(spec: ModuleSpec) -> list[str]:
    """Return the folders that hold a top-level module: one, or for a namespace package several."""
    if archive := _archive(spec):
        return [os.path.dirname(archive)]
    if spec.submodule_search_locations is not None:
        return [os.path.dirname(folder) for folder in spec.submodule_search_locations]
    return [os.path.dirname(spec.origin)] if spec.origin and spec.has_location else []


def _module_file(path: Path) -> str | None:
    files = (path / f"__init__{suffix}" for suffix in SUFFIXES)
    files_or_modules = (*files, *(path.with_name(path.name + suffix) for suffix in SUFFIXES))
    return next((str(file) for file in files_or_modules if file.is_file()), None)


def _loaded_file(module: Any) -> str | None:
    spec = getattr(module, "__spec__", None)
    if isinstance(spec, ModuleSpec) and (file := file_of(spec)):
        return os.path.abspath(file)
    file = getattr(module, "__file__", None)
    return os.path.abspath(file) if isinstance(file, str) else None
