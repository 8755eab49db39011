"""A project's registry: what it holds, its aliases moved, its versions removed, its damage found and mended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boatyard.api.projects import resolve
from boatyard.errors import ClusterError, Refused, Unreachable

if TYPE_CHECKING:
    from boatyard.project import Project
    from boatyard.registry import Damage, Registry, Version


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


@dataclass(frozen=True)
class RemovedVersion:
    """A version that is not there any more; `asked` is the cluster that has no endpoint on it, "" when none was."""

    version: Version
    asked: str

    def __str__(self) -> str:
        asked = (
            f"no endpoint at {self.asked} stands on it" if self.asked else "no cluster was asked for endpoints on it"
        )
        return f"{self.version.name}: version {self.version.version} is removed; {asked}"


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


def remove_version(
    name: str,
    version: int,
    *,
    project: Project | str | Path = ".",
    cluster: bool = True,
    context: str | None = None,
) -> RemovedVersion:
    """Remove a version from a project's registry; its number is never given again.

    Raises Refused while an alias stands on it, or an endpoint of the cluster serves it or would go back to it. Where a
    cluster is configured it must answer, unless `cluster` is False.
    """
    found = resolve(project)
    shelf = _registry(found)
    entry = shelf.resolve(name, version)
    asked = _check_endpoints(entry, found.serve.namespace, context) if cluster else ""
    return RemovedVersion(shelf.remove(name, entry.version), asked)


def check_registry(project: Project | str | Path = ".", *, repair: bool = False) -> tuple[Damage, ...]:
    """Return all that is wrong with a project's registry, every byte read; with `repair`, all that was put right."""
    return _registry(project).check(repair=repair)


def journal(project: Project | str | Path = ".") -> tuple[JournalLine, ...]:
    """Return a registry's journal; raises ArtifactError where it was changed."""
    return tuple(JournalLine(entry) for entry in _registry(project).log())


def _check_endpoints(version: Version, namespace: str | None, context: str | None) -> str:
    """Refuse a version that endpoints stand on; return which cluster said that none does, "" without one."""
    from boatyard import deployment
    from boatyard.kubernetes import cluster

    try:
        there = cluster.connect(context)
    except Unreachable as error:
        raise Unreachable(
            f"whether an endpoint stands on version {version.version} cannot be known: {error}",
            fix="let the cluster answer, or give --no-cluster",
        ) from error
    except ClusterError:
        if context:
            raise
        return ""
    if standing := deployment.endpoints_on(there, version.digest, namespace):
        raise Refused(
            f"{', '.join(standing)} stands on version {version.version} of {version.name}",
            fix="deploy another version first, or boatyard delete it",
        )
    return there.host


def _registry(project: Project | str | Path) -> Registry:
    from boatyard import registry

    found = resolve(project)
    return registry.open(found.push.registry, found.root)
