"""What can be added without an edit here: one mechanism for recipes, sources, kinds, tasks, measures and the rest.

What is built in is a module of the group's folder, called as it is named in the project file: `sources/csv.py` is the
source `csv`, and a file more is a source more. What another distribution brings is an entry point of the group
`boatyard.<group>`. Each group has a conformance check, which an author runs in a test of his own.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

from boatyard.errors import ConfigError
from boatyard.spelling import hint

GroupName = Literal["recipes", "sources", "kinds", "tasks", "measures", "engines", "launchers", "autoscalers"]
INTERFACES = ("base", "conformance", "parts", "targets")  # modules of a group's folder that are no plug-in


@dataclass(frozen=True)
class Group:
    """Plug-ins of one sort: what they are called, the folder of those built in, and their object in its module."""

    name: GroupName
    one: str
    package: str | None
    attribute: str

    @property
    def entry_points(self) -> str:
        """The entry point group that other distributions register under."""
        return f"boatyard.{self.name}"


@dataclass(frozen=True)
class Plugin:
    """One plug-in: its group and name, and where it comes from: built in, or a distribution with its version."""

    group: GroupName
    name: str
    origin: str


GROUPS: dict[GroupName, Group] = {
    group.name: group
    for group in (
        Group("recipes", "recipe", None, ""),  # built in by entry points, as those of others
        Group("sources", "source", "boatyard.preprocessing.sources", "SOURCE"),
        Group("kinds", "kind", "boatyard.data.kinds", "KIND"),
        Group("tasks", "task", "boatyard.tasks", "TASK"),
        Group("measures", "measure", None, ""),  # built in by the tasks that they are measures of
        Group("engines", "engine", "boatyard.prediction.engines", "ENGINE"),
        Group("launchers", "launcher", "boatyard.training.launchers", "LAUNCHER"),
        Group("autoscalers", "autoscaler", "boatyard.deployment.autoscalers", "AUTOSCALER"),
    )
}


def names(group: GroupName) -> tuple[str, ...]:
    """Return the names of a group's plug-ins, built in and installed, sorted; nothing of them is imported."""
    return tuple(sorted({*builtin(group), *_installed(group)}))


@cache
def builtin(group: GroupName) -> tuple[str, ...]:
    """Return the names of the plug-ins that a group's folder holds."""
    package = GROUPS[group].package
    if package is None:
        return ()
    folder = Path(__file__).parent.joinpath(*package.split(".")[1:])  # found without importing what lies above it
    modules = (module.name for module in pkgutil.iter_modules([str(folder)]))
    return tuple(sorted(name for name in modules if name not in INTERFACES and not name.startswith("_")))


def load(group: GroupName, name: str, at: str = "") -> Any:
    """Return a plug-in by name; one built in is looked for first, since that costs no look at what is installed.

    Raises ConfigError, with the nearest name and `at` (a key of the project file) before it, where there is none or
    where it does not import.
    """
    about, place = GROUPS[group], f"{at}: " if at else ""
    if name in builtin(group):
        return getattr(importlib.import_module(f"{about.package}.{name}"), about.attribute)
    point = _installed(group).get(name)
    if point is None:
        raise ConfigError(f"{place}no {about.one} {name!r}", fix=f"{hint(name, names(group), said='installed are')}")
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{place}{name} is installed as {point.value}, which does not load: {error}") from error


def installed() -> Iterator[Plugin]:
    """Give every plug-in of every group, by group and name."""
    for group in GROUPS:
        points = _installed(group)
        for name in names(group):
            if name in builtin(group):
                yield Plugin(group, name, "built in")
                continue
            distribution = points[name].dist
            origin = f"{distribution.name} {distribution.version}" if distribution else points[name].value
            yield Plugin(group, name, "built in" if origin.startswith("boatyard ") else origin)


def _installed(group: GroupName) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUPS[group].entry_points)}
