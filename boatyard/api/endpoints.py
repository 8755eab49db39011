"""Endpoints: a package rolled out, watched, taken back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boatyard.api.packages import is_project
from boatyard.api.projects import Overrides, resolve
from boatyard.api.saying import say, say_at
from boatyard.errors import BoatyardError, ConfigError

if TYPE_CHECKING:
    from boatyard.api.models import Model
    from boatyard.deployment import Change, Deployed, Endpoint, Proof
    from boatyard.kubernetes.cluster import Cluster
    from boatyard.packages import Package
    from boatyard.project import Project

Say = Callable[[str], None]


@dataclass(frozen=True)
class Deleted:
    """Whether there was an endpoint of that name to delete."""

    name: str
    namespace: str
    was: bool

    def __str__(self) -> str:
        if self.was:
            return f"{self.name} is deleted"
        return f"no endpoint {self.name} in namespace {self.namespace}; nothing to delete"


def plan(
    what: Project | Model | str | Path = ".",
    *,
    version: str | int | None = None,
    project: Project | str | Path | None = None,
    storage: str | None = None,
    set: Overrides = (),
    namespace: str | None = None,
    context: str | None = None,
    say: Say = say,
) -> tuple[Change, ...]:
    """Return what deploy would change, field by field and why; nothing is changed.

    Where it would make pods, `say` is told whether a node has room for one now, if the nodes can be seen.
    """
    from boatyard import deployment
    from boatyard.api.placing import endpoint_room
    from boatyard.kubernetes import cluster

    objects, _ = objects_of(what, project, version, storage, set, namespace)
    there = cluster.connect(context)
    changes = tuple(deployment.plan(there, objects))
    makes_pods = any(change.object.startswith("InferenceService/") for change in changes)
    if makes_pods and (sentence := endpoint_room(objects, there)):
        say(sentence)
    return changes


def deploy(
    what: Project | Model | str | Path = ".",
    *,
    version: str | int | None = None,
    project: Project | str | Path | None = None,
    storage: str | None = None,
    set: Overrides = (),
    namespace: str | None = None,
    context: str | None = None,
    timeout: float = 600,
    say: Say = say_at,
) -> Deployed:
    """Roll a package out, wait for its pods and hold them to its reference outputs; go back when they do not serve.

    `what` is a project, whose `version` (a number or an alias of its registry) is taken, or a package; of a package,
    `project` is the one whose serve section applies and `storage` the URI that the cluster finds it at.
    """
    from boatyard import deployment
    from boatyard.kubernetes import cluster

    objects, package = objects_of(what, project, version, storage, set, namespace)
    there = cluster.connect(context)
    return deployment.deploy(there, objects, deployment.proof(package), patience=timeout, say=say)


def rollback(
    endpoint: Project | str | Path = ".",
    *,
    namespace: str | None = None,
    context: str | None = None,
    timeout: float = 600,
    say: Say = say_at,
) -> Deployed:
    """Roll out the version that served before, and prove it where its package can be read from here."""
    from boatyard import deployment
    from boatyard.kubernetes import cluster

    there = cluster.connect(context)
    name, space = _named(endpoint, namespace, there)
    return deployment.rollback(there, name, space, _evidence(endpoint, say), patience=timeout, say=say)


def delete(
    endpoint: Project | str | Path = ".", *, namespace: str | None = None, context: str | None = None
) -> Deleted:
    """Remove an endpoint and all that belongs to it; the package stays in the registry."""
    from boatyard import deployment
    from boatyard.kubernetes import cluster

    there = cluster.connect(context)
    name, space = _named(endpoint, namespace, there)
    return Deleted(name, space, deployment.delete(there, name, space))


def status(
    endpoint: Project | str | Path = ".", *, namespace: str | None = None, context: str | None = None
) -> Endpoint:
    """Return an endpoint's address, replicas, version, age and last deploy, and which version's pods serve."""
    from boatyard import deployment
    from boatyard.kubernetes import cluster

    there = cluster.connect(context)
    name, space = _named(endpoint, namespace, there)
    return deployment.status(there, name, space)


def logs(
    endpoint: Project | str | Path = ".",
    *,
    namespace: str | None = None,
    context: str | None = None,
    follow: bool = False,
    tail: int | None = None,
) -> Iterator[str]:
    """Give what an endpoint's pods write, line by line; with `follow` until they end."""
    from boatyard import deployment
    from boatyard.kubernetes import cluster

    there = cluster.connect(context)
    name, space = _named(endpoint, namespace, there)
    return iter(deployment.logs(there, name, space, follow=follow, tail=tail))


def objects_of(
    what: Project | Model | str | Path,
    project: Project | str | Path | None,
    version: str | int | None,
    storage: str | None,
    set: Overrides,
    namespace: str | None,
) -> tuple[list[dict[str, Any]], Package]:
    """Return an endpoint's objects and its package: of a project's registry, a folder, or a bucket."""
    from boatyard import deployment, packages, registry
    from boatyard import storage as stores
    from boatyard.project import Project, ServeConfig

    own = _project(what)
    where = project or own
    config = resolve(where, set).serve if where is not None else ServeConfig()
    config = config.model_copy(update={"namespace": namespace}) if namespace else config
    number = None
    if own is not None:
        found = resolve(own, set)
        shelf = registry.open(found.push.registry, found.root)
        entry = shelf.resolve(found.name, version or found.push.alias or "latest")
        path, number = shelf.pull(found.name, entry.version), entry.version
        place = storage or (entry.uri if stores.in_bucket(entry.uri) else None)
    elif version:
        raise ConfigError("--version is of a project's registry", fix="give the project's folder, or no --version")
    else:
        assert not isinstance(what, Project)
        path = _package(what)
        place = storage or (what if isinstance(what, str) and stores.in_bucket(what) else None)
    package = packages.verify(path)
    return deployment.manifests(package, config, place, version=number), package


def _project(what: Any) -> Project | str | Path | None:
    """Return a project, or the path of one; None for a package."""
    from boatyard.project import Project

    if isinstance(what, Project) or (isinstance(what, str | Path) and is_project(what)):
        return what
    return None


def _package(what: Model | str | Path) -> Path:
    """Return a package's folder; one in a bucket is fetched."""
    from boatyard import packages, storage

    if not isinstance(what, str | Path):
        return what.package.path
    if storage.in_bucket(str(what)):
        return packages.fetch(str(what))
    path = storage.parse(str(what), Path.cwd())
    if not path.exists():
        raise ConfigError(f"no package or project at {what}")
    return path


def _named(endpoint: Project | str | Path, namespace: str | None, there: Cluster) -> tuple[str, str]:
    """Return an endpoint's name and namespace: a project's, or the ones given."""
    if (own := _project(endpoint)) is not None:
        found = resolve(own)
        return found.name, namespace or found.serve.namespace
    text = str(endpoint)
    if "/" in text.removeprefix("isvc/") or text in (".", ""):
        raise ConfigError(f"no project at {text}", fix="give the folder of one, or an endpoint's name")
    return text.removeprefix("isvc/"), namespace or there.namespace


def _evidence(endpoint: Project | str | Path, say: Say) -> Callable[[dict[str, Any]], Proof | None]:
    """Return what finds the golden examples of a version that served: in its bucket, else in the project's registry."""
    from boatyard import deployment, packages

    def find(service: dict[str, Any]) -> Proof | None:
        digest = service["metadata"]["annotations"].get("boatyard/digest", "")
        try:
            return deployment.proof(packages.verify(_served(endpoint, service, digest), digest))
        except (BoatyardError, OSError) as error:
            say(f"its package cannot be read from here ({error}); its pods prove themselves when they start")
            return None

    return find


def _served(endpoint: Project | str | Path, service: dict[str, Any], digest: str) -> Path:
    """Return the package that a service serves: from its bucket, or of its digest in the project's registry."""
    from boatyard import packages, registry, storage

    place = service["spec"]["predictor"].get("model", {}).get("storageUri", "")
    if storage.in_bucket(place):
        return packages.fetch(place, digest)
    if (own := _project(endpoint)) is None:
        raise ConfigError(f"{place} is read by the cluster alone", fix="give the project's folder")
    project = resolve(own)
    shelf = registry.open(project.push.registry, project.root)
    for version in shelf.versions(project.name):
        if version.digest == digest:
            return shelf.pull(project.name, version.version)
    raise ConfigError(f"the registry at {shelf.place} has no version with sha256 {digest[:12]}…")
