"""`boatyard plan | deploy | status | logs | rollback | delete`: an endpoint, from the package to its end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from boatyard.errors import BoatyardError, ConfigError

if TYPE_CHECKING:
    from boatyard.deployment import Change, Deployed, Endpoint, Proof
    from boatyard.kubernetes.cluster import Cluster
    from boatyard.packages import Package

WHAT = click.argument("what", metavar="[PROJECT | PACKAGE]", default=".", required=False)
ENDPOINT = click.argument("endpoint", metavar="[PROJECT | NAME]", default=".", required=False)
SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting: --set serve.cpu=2"
)
PROJECT = click.option(
    "--project",
    "folder",
    type=click.Path(path_type=Path),
    help="The project whose serve section applies to a PACKAGE.",
)
STORAGE = click.option("--storage", help="URI that the cluster finds the package at; the registry's by default.")
VERSION = click.option("--version", "reference", help="Number or alias in the project's registry.")
NAMESPACE = click.option("-n", "--namespace", help="Of the endpoint; of the project, else of the context by default.")
CONTEXT = click.option("--context", help="Of the kubeconfig; the current one by default.")
TIMEOUT = click.option("--timeout", type=click.FloatRange(1), default=600, show_default=True, help="Seconds to serve.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


@click.command()
@WHAT
@PROJECT
@VERSION
@STORAGE
@SET
@NAMESPACE
@CONTEXT
@JSON
def plan(
    what: str,
    folder: Path | None,
    reference: str | None,
    storage: str | None,
    overrides: tuple[str, ...],
    namespace: str | None,
    context: str | None,
    as_json: bool,
) -> None:
    """Say what deploy would change, field by field and why; nothing is changed.

    Example:  boatyard plan . --version production
    """
    from boatyard import deployment
    from boatyard.kubernetes import cluster

    objects, _ = _wanted(what, folder, reference, storage, overrides, namespace)
    changes = deployment.plan(cluster.connect(context), objects)
    if as_json:
        click.echo(json.dumps([asdict(change) for change in changes]))
        return
    click.echo("\n".join(map(str, changes)) if changes else "nothing changes")
    if any(_replaces(change) for change in changes):
        click.echo("pods are replaced one by one; the old ones answer until the new ones do")


@click.command()
@WHAT
@PROJECT
@VERSION
@STORAGE
@SET
@NAMESPACE
@CONTEXT
@TIMEOUT
@JSON
def deploy(
    what: str,
    folder: Path | None,
    reference: str | None,
    storage: str | None,
    overrides: tuple[str, ...],
    namespace: str | None,
    context: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Roll a package out, wait for its own pods and ask them its golden examples; go back when they do not serve.

    The former version serves until the new one does. A deploy that was killed is put right by the next.

    Example:  boatyard deploy . --version production
    """
    from boatyard import deployment
    from boatyard.kubernetes import cluster

    objects, package = _wanted(what, folder, reference, storage, overrides, namespace)
    there = cluster.connect(context)
    found = deployment.deploy(there, objects, deployment.proof(package), patience=timeout, say=_teller(as_json))
    _deployed(found, as_json)


@click.command()
@ENDPOINT
@NAMESPACE
@CONTEXT
@TIMEOUT
@JSON
def rollback(endpoint: str, namespace: str | None, context: str | None, timeout: float, as_json: bool) -> None:
    """Roll out the version that served before, and prove it where its package can be read from here.

    Example:  boatyard rollback .
    """
    from boatyard import deployment
    from boatyard.kubernetes import cluster

    there = cluster.connect(context)
    name, space = _named(endpoint, namespace, there)
    say = _teller(as_json)
    found = deployment.rollback(there, name, space, _evidence(endpoint, say), patience=timeout, say=say)
    _deployed(found, as_json)


@click.command()
@ENDPOINT
@NAMESPACE
@CONTEXT
def delete(endpoint: str, namespace: str | None, context: str | None) -> None:
    """Remove an endpoint and all that belongs to it; the package stays in the registry.

    Example:  boatyard delete digits -n models
    """
    from boatyard import deployment
    from boatyard.kubernetes import cluster

    there = cluster.connect(context)
    name, space = _named(endpoint, namespace, there)
    was = deployment.delete(there, name, space)
    click.echo(f"{name} is deleted" if was else f"no endpoint {name} in namespace {space}; nothing to delete")


@click.command()
@ENDPOINT
@NAMESPACE
@CONTEXT
@JSON
def status(endpoint: str, namespace: str | None, context: str | None, as_json: bool) -> None:
    """Say what stands: address, replicas, version, digest, age, last deploy, and who answers.

    Example:  boatyard status digits -n models
    """
    from boatyard import deployment
    from boatyard.kubernetes import cluster

    there = cluster.connect(context)
    name, space = _named(endpoint, namespace, there)
    found = deployment.status(there, name, space)
    click.echo(json.dumps(asdict(found)) if as_json else _text(found))


@click.command()
@ENDPOINT
@NAMESPACE
@CONTEXT
@click.option("-f", "--follow", is_flag=True, help="Go on until the pods end.")
@click.option("--tail", type=click.IntRange(1), help="Only the last lines of each pod.")
def logs(endpoint: str, namespace: str | None, context: str | None, follow: bool, tail: int | None) -> None:
    """Print what an endpoint's pods write.

    Example:  boatyard logs digits -n models -f --tail 20
    """
    from boatyard import deployment
    from boatyard.kubernetes import cluster

    there = cluster.connect(context)
    name, space = _named(endpoint, namespace, there)
    for line in deployment.logs(there, name, space, follow=follow, tail=tail):
        click.echo(line)


def _wanted(
    what: str,
    folder: Path | None,
    reference: str | None,
    storage: str | None,
    overrides: tuple[str, ...],
    namespace: str | None,
) -> tuple[list[dict[str, Any]], Package]:
    """Return an endpoint's objects and its package: of a project's registry, a folder, or a bucket."""
    from boatyard import deployment, packages, project, registry
    from boatyard import storage as stores

    where = folder or (Path(what) if _is_project(what) else None)
    config = project.load(where, overrides).serve if where else project.ServeConfig()
    config = config.model_copy(update={"namespace": namespace}) if namespace else config
    number = None
    if _is_project(what):
        made = project.load(Path(what), overrides)
        shelf = registry.open(made.push.registry, _root(Path(what)))
        version = shelf.resolve(made.name, reference or made.push.alias or "latest")
        path, number = shelf.pull(made.name, version.version), version.version
        place = storage or (version.uri if stores.in_bucket(version.uri) else None)
    elif reference:
        raise ConfigError("--version is of a project's registry; give the project's folder, or no --version")
    else:
        path, place = _package(what), storage or (what if stores.in_bucket(what) else None)
    package = packages.verify(path)
    return deployment.manifests(package, config, place, version=number), package


def _package(text: str) -> Path:
    """Return a package's folder; one in a bucket is fetched."""
    from boatyard import packages, storage

    if storage.in_bucket(text):
        return packages.fetch(text)
    path = storage.parse(text, Path.cwd())
    if not path.exists():
        raise ConfigError(f"no package or project at {text}")
    return path


def _is_project(text: str) -> bool:
    from boatyard.project import FILE

    return (Path(text) / FILE).is_file() or (Path(text).name == FILE and Path(text).is_file())


def _root(folder: Path) -> Path:
    return (folder if folder.is_dir() else folder.parent).absolute()


def _named(text: str, namespace: str | None, there: Cluster) -> tuple[str, str]:
    """Return an endpoint's name and namespace: a project's, or the ones given."""
    from boatyard import project

    if _is_project(text):
        made = project.load(Path(text), ())
        return made.name, namespace or made.serve.namespace
    if "/" in text.removeprefix("isvc/") or text in (".", ""):
        raise ConfigError(f"no project at {text}; give the folder of one, or an endpoint's name")
    return text.removeprefix("isvc/"), namespace or there.namespace


def _evidence(text: str, say: Callable[[str], None]) -> Callable[[dict[str, Any]], Proof | None]:
    """Return what finds the golden examples of a version that served: in its bucket, else in the project's registry."""
    from boatyard import deployment, packages

    def find(service: dict[str, Any]) -> Proof | None:
        digest = service["metadata"]["annotations"].get("boatyard/digest", "")
        try:
            return deployment.proof(packages.verify(_found(text, service, digest), digest))
        except (BoatyardError, OSError) as error:
            say(f"its package cannot be read from here ({error}); its pods prove themselves when they start")
            return None

    return find


def _found(text: str, service: dict[str, Any], digest: str) -> Path:
    from boatyard import packages, project, registry, storage

    place = service["spec"]["predictor"].get("model", {}).get("storageUri", "")
    if storage.in_bucket(place):
        return packages.fetch(place, digest)
    if not _is_project(text):
        raise ConfigError(f"{place} is read by the cluster alone; give the project's folder")
    made = project.load(Path(text), ())
    shelf = registry.open(made.push.registry, _root(Path(text)))
    for version in shelf.versions(made.name):
        if version.digest == digest:
            return shelf.pull(made.name, version.version)
    raise ConfigError(f"the registry at {shelf.place} has no version with sha256 {digest[:12]}…")


def _teller(quiet: bool) -> Callable[[str], None]:
    def say(text: str) -> None:
        if not quiet:
            click.echo(f"{time.strftime('%H:%M:%S')} {text}", err=True)

    return say


def _replaces(change: Change) -> bool:
    from boatyard.deployment.rendering import ROLLED

    return change.field.endswith(ROLLED) and change.old is not None


def _deployed(found: Deployed, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    version = f"version {found.version}" if found.version else f"package {found.digest[:12]}"
    proven = f"{found.proven} golden examples answered right" if found.proven else "not asked"
    click.echo(f"{found.name}: {version} serves, {found.replicas} ready, {proven}, {found.seconds:.0f} s")


def _text(found: Endpoint) -> str:
    from boatyard.deployment.endpoints import age

    lines = {
        "endpoint": f"{found.name} in {found.namespace}, {'ready' if found.ready else 'not ready'}",
        "address": found.url,
        "replicas": f"{found.replicas} of {found.wanted} answer (scales {found.scaling})",
        "version": found.version,
        "digest": found.digest,
        "package": found.storage,
        "age": age(found.created),
        "deployed": f"{age(found.deployed)} ago" if found.deployed else "",
        "former": found.former,
        "deploying": found.deploying,
        "traffic": ", ".join(f"{digest[:12]} {count}" for digest, count in found.traffic.items()),
        "waits for": "; ".join(found.problems),
    }
    return "\n".join(f"{key:<10} {value}" for key, value in lines.items() if value)
