"""A project's registry: what it holds, and its aliases moved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boatyard.api.projects import resolve

if TYPE_CHECKING:
    from boatyard.project import Project
    from boatyard.registry import Registry, Version


@dataclass(frozen=True)
class RegisteredModel:
    """A model of a registry: the numbers of its versions, and what its aliases stand for."""

    name: str
    versions: tuple[int, ...]
    aliases: dict[str, int]

    def __str__(self) -> str:
        pointing = ", ".join(f"{alias} → {version}" for alias, version in self.aliases.items())
        return f"{self.name}: versions {', '.join(map(str, self.versions)) or 'none'}; {pointing or 'no aliases'}"


@dataclass(frozen=True)
class JournalLine:
    """One line of a registry's journal, bound to the one before."""

    values: dict[str, Any]

    def __str__(self) -> str:
        return "  ".join(f"{key} {value}" for key, value in self.values.items() if key not in ("previous", "digest"))


def list_models(project: Project | str | Path = ".") -> tuple[RegisteredModel, ...]:
    """Return the models, versions and aliases of a project's registry."""
    shelf = _registry(project)
    return tuple(
        RegisteredModel(name, tuple(version.version for version in shelf.versions(name)), shelf.aliases(name))
        for name in shelf.names()
    )


def pull(name: str, version: str | int = "production", *, project: Project | str | Path = ".") -> Path:
    """Verify a version (a number or an alias) of a project's registry and return where it is."""
    return _registry(project).pull(name, version)


def promote(
    name: str, version: str | int, alias: str = "production", *, project: Project | str | Path = "."
) -> Version:
    """Move an alias to a version, forward or back; return the version."""
    return _registry(project).promote(name, version, alias)


def journal(project: Project | str | Path = ".") -> tuple[JournalLine, ...]:
    """Return a registry's journal; raises ArtifactError where it was changed."""
    return tuple(JournalLine(entry) for entry in _registry(project).log())


def _registry(project: Project | str | Path) -> Registry:
    from boatyard import registry

    found = resolve(project)
    return registry.open(found.push.registry, found.root)
