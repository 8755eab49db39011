"""The code of a recipe: its files and all that its modules import that has no version, by path and digest.

Found without running it: imports are followed wherever they stand in a source (in a function too), and so are names of
modules and files in its texts (`importlib.import_module("layers")`, `open("width.json")`). What is imported already
counts as well, so that a name made at run time is seen.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from boatyard.data import hashing
from boatyard.provenance.modules import Modules, parents, resolve, source_of

MAX_NAME_CHARS = 255  # of a file's name; a longer text is none
OUTPUTS = ("runs", "registry", "build")  # of a project: what its runs leave, where nothing imports from it


@dataclass(frozen=True)
class Code:
    """What a recipe is made of: the digests of its files by place, and the versions of what they import."""

    files: dict[str, str] = field(default_factory=dict)
    distributions: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """One digest of it all."""
        return hashing.digest_json([self.files, self.distributions])


def code_of(kind: type, root: Path, texts: Iterable[str] = ()) -> Code:
    """Return what a recipe's class is made of: what its module is."""
    return code_of_module(kind.__module__, root, texts)


def code_of_module(module: str, root: Path, texts: Iterable[str] = ()) -> Code:
    """Return what a recipe's module is made of: its package's files, data too, and all own code that it imports.

    Places are relative to `root`, the project's folder; `:` begins those elsewhere, from the folder on the search path.
    Of a recipe in the project's folder itself the files beside it count that its code names, or `texts` of its
    settings: the folder holds the data, runs and notes as well.
    """
    modules = Modules(root)
    reached = reach(modules, [module])
    files = dict(reached.files)
    top = module.partition(".")[0]
    for folder in package_folders(modules, top) if reached.files else ():
        files |= {modules.place(file, top): file for file in files_below(folder)}
    for file in named_files(modules.root, {*reached.texts, *texts} if reached.files else set()):
        files.setdefault(os.path.relpath(file, modules.root).replace(os.sep, "/"), file)
    return Code(digests(files), versions(modules, reached.distributions))


def plug_ins(root: Path) -> Code:
    """Return the modules of plug-ins that this process has imported, and the distributions that they come from."""
    modules = Modules(root)
    loaded = [(name.partition(".")[0], file) for name, file in modules.loaded() if modules.is_plugin(file)]
    files = {modules.place(file, top): file for top, file in loaded}
    owners = {owner.name for file in files.values() if (owner := modules.owner(file))}
    return Code(digests(files), versions(modules, owners))


@dataclass
class Reached:
    """What imports lead to: own files by place, names of installed distributions, and the texts in the sources."""

    files: dict[str, str] = field(default_factory=dict)
    distributions: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)


def reach(modules: Modules, names: Iterable[str], *, by_text: bool = True) -> Reached:
    """Follow imports from some modules through all own code; nothing is imported for it.

    `by_text`: a text that could be a module's name counts as an import of it, as it is where a framework imports by
    name; without, only where it names a part of the package that it stands in.
    """
    reached, seen = Reached(), set[str]()
    waiting = [name for start in names for name in parents(start)]
    if any((file := _file(modules, name)) and modules.is_below(file) for name in waiting):
        waiting += [name for name, file in modules.loaded() if modules.is_below(file)]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        file = _file(modules, name)
        if file is None:
            continue
        if modules.is_library(file):
            continue
        if owner := modules.owner(file):
            reached.distributions.add(owner.name)
        if modules.is_own(file):
            reached.files[modules.place(file, name.partition(".")[0])] = file
            found, texts = imports(modules, name, file, by_text)
            reached.texts |= texts
            waiting += found
    return reached


def package_folders(modules: Modules, top: str) -> list[str]:
    """Return the folders of a top-level package; none for a module that is no package."""
    spec = modules.top(top)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return [folder for folder in folders if os.path.isdir(folder)]


def files_below(folder: str | Path) -> Iterator[str]:
    """Give the files of a folder, links followed, each folder once; not what Python compiled, nor what is hidden."""
    seen: set[str] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in sorted(folders) if _counts(where, name)]
        yield from (os.path.join(where, name) for name in sorted(files) if not name.startswith("."))


def named_files(root: Path, texts: set[str]) -> Iterator[str]:
    """Give the files of a project whose names stand in texts of its code."""
    names = {os.path.basename(text) for text in texts} - {"boatyard.yaml", ""}
    return (file for file in project_files(root) if os.path.basename(file) in names)


def project_files(root: Path) -> Iterator[str]:
    """Give the files of a project's folder: not what its runs left, nor an environment that lies below it."""
    for where, folders, files in os.walk(root):
        folders[:] = [
            name for name in folders if _counts(where, name) and not (Path(where) == root and name in OUTPUTS)
        ]
        yield from (os.path.join(where, name) for name in files)


def digests(files: dict[str, str]) -> dict[str, str]:
    """Return the digests of files by place; one that cannot be read has an empty one."""
    return {place: digest(file) for place, file in sorted(files.items())}


def digest(file: str | Path) -> str:
    """Return a file's sha256, empty where there is none to read."""
    try:
        return hashing.digest_file(Path(file))
    except OSError:
        return ""


def versions(modules: Modules, names: Iterable[str]) -> dict[str, str]:
    """Return the versions of distributions, by name."""
    return {name: modules.installed.version(name) for name in sorted(names)}


def _counts(where: str, name: str) -> bool:
    return not (
        name.startswith(".") or name == "__pycache__" or os.path.exists(os.path.join(where, name, "pyvenv.cfg"))
    )


def _file(modules: Modules, name: str) -> str | None:
    loaded = sys.modules.get(name)
    file = getattr(loaded, "__file__", None)
    if isinstance(file, str) and os.path.isfile(file):
        return os.path.abspath(file)
    return modules.find(name)


def imports(modules: Modules, name: str, file: str, by_text: bool = True) -> tuple[list[str], set[str]]:
    """Return the modules that a source may import, and the texts in it that may be names of files."""
    spec = modules.top(name.partition(".")[0])
    try:
        tree = ast.parse(source_of(name, file, spec))
    except (SyntaxError, ValueError):
        return [], set()
    package = name if os.path.basename(file).startswith("__init__.") else name.rpartition(".")[0]
    found: list[str] = []
    texts: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = resolve(node.module or "", node.level, package)
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)] if base else []
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _may_name(node.value):
            texts.add(node.value)
    named = [resolve(text.lstrip("."), len(text) - len(text.lstrip(".")), package) for text in texts if _dotted(text)]
    found += [one for one in named if by_text or one.partition(".")[0] == name.partition(".")[0]]
    return [one for start in found if start for one in parents(start)], texts


def _may_name(text: str) -> bool:
    return 0 < len(text) <= MAX_NAME_CHARS and "\n" not in text


def _dotted(text: str) -> bool:
    return all(part.isidentifier() for part in text.lstrip(".").split("."))
