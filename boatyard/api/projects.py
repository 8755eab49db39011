"""Projects: written, read, checked; and what can be named in them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boatyard.errors import ConfigError, RecipeError

if TYPE_CHECKING:
    from boatyard.plugins import Plugin
    from boatyard.project import Project
    from boatyard.recipes import Recipe

Overrides = Mapping[str, Any] | Iterable[str]


@dataclass(frozen=True)
class Checked:
    """A project that nothing wrong was found with, and what was derived from its settings and data."""

    project: Project = field(repr=False)
    derived: dict[str, str]

    def __str__(self) -> str:
        return "\n".join(f"{key:<28} {value}" for key, value in self.derived.items())

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"project": self.project.values(), "derived": self.derived}


@dataclass(frozen=True)
class RecipeInfo:
    """A recipe that is installed: what it is, and its settings with their defaults and descriptions."""

    name: str
    sentence: str
    settings: dict[str, tuple[Any, str]]

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.sentence}"]
        for key, (value, description) in self.settings.items():
            lines.append(f"    {key}: {json.dumps(value)}" + (f"  # {description}" if description else ""))
        return "\n".join(lines)


def resolve(project: Project | str | Path, set: Overrides = ()) -> Project:
    """Return a project: the one given or that of a folder, with settings changed."""
    from boatyard.project import Project

    if isinstance(project, Project):
        return project.override(set) if set else project
    return Project.load(project, set)


def root_of(project: Project | str | Path) -> Path:
    """Return the folder that a project's relative paths start at; raises ConfigError when there is none."""
    if not isinstance(project, str | Path):
        return project.root
    folder = Path(project)
    if not folder.exists():
        raise ConfigError(f"no folder {folder}", fix="`boatyard init` makes one")
    return (folder if folder.is_dir() else folder.parent).absolute()


def init(folder: str | Path = ".", data: str | Path | None = None) -> Path:
    """Write a boatyard.yaml into a folder, for the data given or for a sample of digits; return the file."""
    from boatyard.project import templates

    return templates.write(Path(folder), Path(data) if data else None)


def check(project: Project | str | Path = ".", *, set: Overrides = ()) -> Checked:
    """Find all that can be known to be wrong before a run: types, settings, data, recipe. Raises ConfigError."""
    from boatyard import preprocessing, recipes, storage

    found = resolve(project, set)
    if not storage.in_bucket(found.push.registry):
        storage.parse(found.push.registry, found.root)
    preprocessing.check(found.data, found.root)
    kind = recipes.load(found.train.recipe, found.root)
    settings = recipes.dials(kind, found.train.model)
    shown = ", ".join(f"{key} {value}" for key, value in settings.model_dump().items())
    derived = {"recipe": found.train.recipe, **({"settings": shown} if shown else {}), **found.train.derived()}
    return Checked(found, derived | _device(found) | _tried(found, kind))


def _tried(project: Project, kind: type[Recipe]) -> dict[str, str]:
    """Try the recipe on the first rows; raises RecipeError for a mistake in it, or says one that they may not show."""
    from boatyard.preprocessing.first_rows import first_rows
    from boatyard.recipes.authoring import authored
    from boatyard.training import checks

    rows = first_rows(project.data, project.preprocess, project.root, project.task)
    if rows is None:
        return {}
    try:
        with authored(kind, f"{kind.__name__}()", "__init__"):
            recipe = kind(project.train, project.preprocess, rows.schema, rows.statistics)
        checks.check(recipe, rows.batch, graph=True)
    except RecipeError as error:
        if rows.whole or not rows.schema.labels or project.data.labels:
            raise
        return {"recipe on the first rows": f"{error} (they may lack labels: a run tries it again)"}
    return {}


def _device(project: Project) -> dict[str, str]:
    """Say which of the GPUs that the project asks for a training on this machine does without."""
    from boatyard.training import devices

    try:
        sentence = devices.shortfall_of(project)
    except ConfigError as error:  # of a run here; on a cluster there may be one
        sentence = str(error)
    return {"device": sentence} if sentence else {}


def schema() -> dict[str, Any]:
    """Return the JSON schema of boatyard.yaml, for editors."""
    from boatyard import project

    return project.schema()


def list_recipes(name: str | None = None, root: str | Path = ".") -> tuple[RecipeInfo, ...]:
    """Return the recipes that are installed, or the one named, which may be `module:Class` of a project's own."""
    from boatyard import recipes

    names = (name,) if name else recipes.names()
    return tuple(_info(each, recipes.load(each, Path(root).absolute())) for each in names)


def list_plugins() -> tuple[Plugin, ...]:
    """Return every plug-in of every group: recipes, sources, kinds, tasks, measures, engines and the rest."""
    from boatyard import plugins

    groups = list(plugins.GROUPS)
    return tuple(sorted({*plugins.installed(), *_measures()}, key=lambda one: (groups.index(one.group), one.name)))


def _measures() -> Iterator[Plugin]:
    """Give the measures that are built in: they stand in one list, in no folder of their own."""
    from boatyard.plugins import Plugin

    try:
        from boatyard.evaluation.measures import MEASURES
    except ImportError:  # the image that serves measures nothing
        return
    yield from (Plugin("measures", measure.name, "built in") for measure in MEASURES)


def _info(name: str, kind: Any) -> RecipeInfo:
    sentence = " ".join((kind.__doc__ or "").split()).split(". ")[0].rstrip(".")
    settings = {}
    for key, about in kind.Dials.model_fields.items():
        value = about.get_default()
        settings[key] = (list(value) if isinstance(value, tuple) else value, about.description or "")
    return RecipeInfo(name, sentence, settings)
