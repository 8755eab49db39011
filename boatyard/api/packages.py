"""Packages: found wherever they are, verified, shown, rendered for a cluster."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from boatyard.api.projects import Overrides, resolve
from boatyard.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from boatyard.packages import Package
    from boatyard.project import Project


def find_package(where: Project | str | Path) -> Path:
    """Return the folder of a package: one given, one in a bucket, or a version of a project's registry.

    A project, or the folder of one, means its version in production; "flowers@3" and "flowers@staging" a version of
    the project in that folder or, where there is no such folder, of that model in the current project's registry.
    Raises ConfigError when there is none.
    """
    from boatyard import packages, storage

    if not isinstance(where, str | Path):
        return _of_project(where, None)
    text = str(where)
    if storage.in_bucket(text):
        return packages.fetch(text)
    path = storage.parse(text, Path.cwd()) if "://" in text else Path(text)
    if path.exists():
        return _of_project(resolve(path), None) if is_project(path) else path
    name, at, reference = text.rpartition("@")
    if not at:
        raise ConfigError(f"no package or project at {text}")
    return _of_project(resolve(name), reference) if is_project(name) else _of_model(name, reference)


def is_project(where: str | Path) -> bool:
    """Whether a folder has a project file, or a path is one."""
    from boatyard.project import FILE

    path = Path(where)
    return (path / FILE).is_file() or (path.name == FILE and path.is_file())


def verify(package: Project | str | Path) -> Package:
    """Check every file of a package against its digests; raises ArtifactError that says each difference.

    Of one in a bucket the objects themselves are read, not what a cache holds of them.
    """
    from boatyard import packages, storage

    if isinstance(package, str) and storage.in_bucket(package):
        with tempfile.TemporaryDirectory() as folder:
            return packages.verify(packages.fetch(package, to=Path(folder) / "package"))
    path = find_package(package)
    if differing := packages.differences(path):
        said = "\n".join(differing)
        raise ArtifactError(
            f"{said}\n{path} is not as it was packaged: {len(differing)} differences", fix="nothing will load it"
        )
    return packages.verify(path)


def show(package: Project | str | Path) -> Package:
    """Return what a package is: model, schema, labels, metrics, lineage, golden examples; verified."""
    from boatyard import packages

    return packages.verify(find_package(package))


def render(
    package: Project | str | Path,
    *,
    project: Project | str | Path | None = None,
    set: Overrides = (),
    storage: str | None = None,
) -> str:
    """Return the endpoint of a package (InferenceService and budget) as plain YAML for `kubectl apply`.

    `project` is the one whose serve section applies, `storage` the URI that the cluster finds the package at: by
    default where it lies, when that is a bucket. Of a project it is what `deploy` applies.
    """
    from boatyard import deployment
    from boatyard.api import endpoints
    from boatyard.storage import in_bucket

    if isinstance(package, str) and "@" in package and not in_bucket(package) and not Path(package).exists():
        package = find_package(package)
    return deployment.dump(endpoints.objects_of(package, project, None, storage, set, None)[0])


def _of_project(project: Project, reference: str | None) -> Path:
    from boatyard import registry

    shelf = registry.open(project.push.registry, project.root)
    return shelf.pull(project.name, reference or project.push.alias or "production")


def _of_model(name: str, reference: str) -> Path:
    from boatyard import registry

    if not is_project("."):
        raise ConfigError(f"no project at {name}, and none here whose registry may have a model {name}")
    here = resolve(".")
    return registry.open(here.push.registry, here.root).pull(name, reference)
