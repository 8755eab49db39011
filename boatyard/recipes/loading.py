"""Finding a recipe: by the name that it is installed under, or as `module:Class` in the project's folder."""

from __future__ import annotations

import importlib
import sys
import sysconfig
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from boatyard import plugins, provenance
from boatyard.data.schema import Schema
from boatyard.errors import ConfigError
from boatyard.project import PreprocessConfig, TrainConfig
from boatyard.recipes.authoring import authored
from boatyard.recipes.recipe import Recipe
from boatyard.spelling import hint

_importing = threading.Lock()


class ProjectFinder(MetaPathFinder):
    """Finds what a recipe imports later, in a function, from its project's folder: after all that is installed.

    `sys.path` is left as it was: a project's `queue.py` must not become Python's for the rest of the process.
    """

    def __init__(self) -> None:
        self.root: Path | None = None
        self.imported: set[str] = set()

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        """Return where the project has a module that nothing else has; one in a package is found by the package."""
        if path is not None or self.root is None:
            return None
        spec = PathFinder.find_spec(fullname, [str(self.root)])
        if spec:
            self.imported.add(fullname)
        return spec

    def forget(self, *names: str) -> None:
        """Remove from memory what was imported from the folder of the recipe that was imported last."""
        for name in list(sys.modules):
            if name in names or name in self.imported or name.partition(".")[0] in self.imported:
                del sys.modules[name]
        self.imported = set()

    def search(self, root: Path, before: set[str]) -> None:
        """Take over a project's folder, and what was imported from it since."""
        self.root = root
        self.imported = {name for name in set(sys.modules) - before if _is_below(name, root)}
        if self not in sys.meta_path:
            sys.meta_path.append(self)


_finder = ProjectFinder()


def names() -> tuple[str, ...]:
    """Return the names of the recipes that are installed, built in and plug-ins."""
    return plugins.names("recipes")


def load(name: str, root: Path) -> type[Recipe]:
    """Find a recipe's class by name or by `module:Class` below `root`; raises ConfigError."""
    if is_own(name):
        return _own(name, root)
    if name not in names():
        raise ConfigError(
            f"train.recipe: no recipe {name!r}; {hint(name, names(), said='installed are')}; your own is module:Class"
        )
    return _checked(plugins.load("recipes", name, at="train.recipe"), name)


def is_own(name: str) -> bool:
    """Return whether a recipe is `module:Class` of the project, not one that is installed."""
    return ":" in name


def make(
    config: TrainConfig, how: PreprocessConfig, schema: Schema, statistics: Mapping[str, Any], *, root: Path
) -> Recipe:
    """Load the recipe that a configuration names and make it for a dataset; raises ConfigError."""
    provenance.name(texts(config))
    kind = load(config.recipe, root)
    with authored(kind, f"{kind.__name__}()", "__init__"):
        return kind(config, how, schema, statistics)


def texts(config: TrainConfig) -> Iterator[str]:
    """Give the texts among a recipe's own settings, which may name files."""
    waiting: list[Any] = [config.model]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value


def _own(name: str, root: Path) -> type[Recipe]:
    """Import `module:Class` from the project's folder, freshly, with all that it imports from there.

    It may have been edited, or another project may have modules of those names.
    """
    module, _, attribute = name.partition(":")
    file = root.absolute().joinpath(*module.split(".")).with_suffix(".py")
    if not all(part.isidentifier() for part in (*module.split("."), attribute)):
        raise ConfigError(f"train.recipe: expected module:Class such as model:Net, found {name!r}")
    if not file.is_file():
        raise ConfigError(f"train.recipe: {name} wants the file {file}, which is not there")
    loaded = _import(module, file, root.absolute())
    found = getattr(loaded, attribute, None)
    if found is None:
        classes = [key for key, value in vars(loaded).items() if isinstance(value, type) and value.__module__ == module]
        raise ConfigError(f"train.recipe: no class {attribute} in {file}; it has {', '.join(classes) or 'no classes'}")
    return _checked(found, name)


def _import(module: str, file: Path, root: Path) -> Any:
    with _importing:
        _finder.forget(module, module.partition(".")[0])
        before = set(sys.modules)
        sys.path.insert(0, str(root))
        importlib.invalidate_caches()
        try:
            return importlib.import_module(module)
        except Exception as error:  # whatever the author's code raises
            said = str(error) if isinstance(error, ImportError | SyntaxError) else f"{type(error).__name__}: {error}"
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
            at = f", line {lines[-1]}" if lines else ""
            raise ConfigError(f"train.recipe: {file} does not import: {said}{at}") from error
        finally:
            sys.path.remove(str(root))
            _finder.search(root, before)


def _is_below(name: str, root: Path) -> bool:
    """Say whether a module was read from a project's folder: not from the environment that may lie in it.

    A namespace package has no file, only folders.
    """
    spec = getattr(sys.modules.get(name), "__spec__", None)
    if name.partition(".")[0] == "boatyard" or not isinstance(spec, ModuleSpec):
        return False
    paths = [Path(place) for place in (spec.origin, *(spec.submodule_search_locations or ())) if place]
    return any(path.is_relative_to(root) and not _is_installed(path) for path in paths)


def _is_installed(path: Path) -> bool:
    return any(path.is_relative_to(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))


def _checked(found: Any, name: str) -> type[Recipe]:
    if not (isinstance(found, type) and issubclass(found, Recipe)):
        raise ConfigError(f"train.recipe: {name} is not a subclass of boatyard.recipes.Recipe")
    if not issubclass(found.Dials, BaseModel):
        raise ConfigError(f"train.recipe: {name}.Dials is not a pydantic model")
    return found
