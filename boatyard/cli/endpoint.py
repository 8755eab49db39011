"""`boatyard plan | deploy | status | logs | rollback | delete`: an endpoint, from the package to its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

import boatyard
from boatyard.api.saying import say_at
from boatyard.cli.options import CONTEXT, JSON, PATH, Verb, print_json, print_lines

if TYPE_CHECKING:
    from boatyard.deployment import Change, Deployed, Endpoint

WHAT = click.argument("what", metavar="[PROJECT | PACKAGE]", default=".", required=False)
ENDPOINT = click.argument("endpoint", metavar="[PROJECT | NAME]", default=".", required=False)
SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting: --set serve.cpu=2"
)
PROJECT = click.option(
    "--project",
    "folder",
    type=PATH,
    help="The project whose serve section applies to a PACKAGE.",
)
STORAGE = click.option("--storage", help="URI that the cluster finds the package at; the registry's by default.")
VERSION = click.option("--version", "reference", help="Number or alias in the project's registry.")
NAMESPACE = click.option("-n", "--namespace", help="Of the endpoint; of the project, else of the context by default.")
TIMEOUT = click.option("--timeout", type=click.FloatRange(1), default=600, show_default=True, help="Seconds to serve.")


@click.command(cls=Verb, place=200)
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
    """Say what deploy would change, field by field and why, and whether a node has room; nothing is changed.

    Example:  boatyard plan . --version production
    """
    room: list[str] = []
    changes = boatyard.plan(
        what,
        version=reference,
        project=folder,
        storage=storage,
        set=overrides,
        namespace=namespace,
        context=context,
        say=room.append,
    )
    if as_json:
        print_json(changes)
        return
    click.echo("\n".join(map(str, changes)) if changes else "nothing changes")
    if any(_replaces(change) for change in changes):
        click.echo("pods are replaced one by one; the old ones answer until the new ones do")
    print_lines(room)


@click.command(cls=Verb, place=210)
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
    """Roll a package out, wait for its pods and hold them to its reference outputs; go back when they do not serve.

    The former version serves until the new one does. A deploy that was killed is put right by the next.

    Example:  boatyard deploy . --version production
    """
    deployed = boatyard.deploy(
        what,
        version=reference,
        project=folder,
        storage=storage,
        set=overrides,
        namespace=namespace,
        context=context,
        timeout=timeout,
        say=_silence if as_json else say_at,
    )
    _print_deployed(deployed, as_json)


@click.command(cls=Verb, place=240)
@ENDPOINT
@NAMESPACE
@CONTEXT
@TIMEOUT
@JSON
def rollback(endpoint: str, namespace: str | None, context: str | None, timeout: float, as_json: bool) -> None:
    """Roll out the version that served before, and prove it where its package can be read from here.

    Example:  boatyard rollback .
    """
    teller = _silence if as_json else say_at
    deployed = boatyard.rollback(endpoint, namespace=namespace, context=context, timeout=timeout, say=teller)
    _print_deployed(deployed, as_json)


@click.command(cls=Verb, place=250)
@ENDPOINT
@NAMESPACE
@CONTEXT
def delete(endpoint: str, namespace: str | None, context: str | None) -> None:
    """Remove an endpoint and all that belongs to it; the package stays in the registry.

    Example:  boatyard delete digits -n models
    """
    click.echo(boatyard.delete(endpoint, namespace=namespace, context=context))


@click.command(cls=Verb, place=220)
@ENDPOINT
@NAMESPACE
@CONTEXT
@JSON
def status(endpoint: str, namespace: str | None, context: str | None, as_json: bool) -> None:
    """Show the status: address, replicas, version, digest, age, last deploy, and which version serves.

    Example:  boatyard status digits -n models
    """
    found = boatyard.status(endpoint, namespace=namespace, context=context)
    print_json(found) if as_json else click.echo(_text(found))


@click.command(cls=Verb, place=230)
@ENDPOINT
@NAMESPACE
@CONTEXT
@click.option("-f", "--follow", is_flag=True, help="Go on until the pods end.")
@click.option("--tail", type=click.IntRange(1), help="Only the last lines of each pod.")
def logs(endpoint: str, namespace: str | None, context: str | None, follow: bool, tail: int | None) -> None:
    """Print what an endpoint's pods write.

    Example:  boatyard logs digits -n models -f --tail 20
    """
    print_lines(boatyard.logs(endpoint, namespace=namespace, context=context, follow=follow, tail=tail))


def _silence(sentence: str) -> None: ...


def _replaces(change: Change) -> bool:
    from boatyard.deployment.rendering import RENDERED

    return change.field.endswith(RENDERED) and change.old is not None


def _print_deployed(found: Deployed, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    version = f"version {found.version}" if found.version else f"package {found.digest[:12]}"
    proven = f"{found.proven} reference outputs agree" if found.proven else "not asked"
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
