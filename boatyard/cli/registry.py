"""`boatyard registry ls | pull | promote | log`: a project's registry."""

from __future__ import annotations

from pathlib import Path

import click

import boatyard
from boatyard.cli.options import FOLDER, JSON, REGISTRY_OF, Verb, VerbGroup, print_json, print_lines


@click.group(cls=VerbGroup, place=180)
def registry() -> None:
    """Inspect a registry and move its aliases."""


@registry.command("ls", cls=Verb)
@FOLDER
@JSON
def registry_ls(folder: Path, as_json: bool) -> None:
    """List models, versions and aliases of a project's registry.

    Example:  boatyard registry ls
    """
    models = boatyard.list_models(folder)
    if as_json:
        values = {model.name: {"versions": list(model.versions), "aliases": model.aliases} for model in models}
        print_json(values)
        return
    print_lines(models or ["nothing there yet"])


@registry.command("pull", cls=Verb)
@click.argument("name")
@click.argument("version", default="production")
@REGISTRY_OF
def registry_pull(name: str, version: str, folder: Path) -> None:
    """Verify a version (a number or an alias) and print where it is.

    Example:  boatyard registry pull digits production
    """
    click.echo(boatyard.pull(name, version, project=folder))


@registry.command("promote", cls=Verb)
@click.argument("name")
@click.argument("version")
@click.argument("alias", default="production")
@REGISTRY_OF
def registry_promote(name: str, version: str, alias: str, folder: Path) -> None:
    """Move an alias to a version, forward or back.

    Example:  boatyard registry promote digits 1 production
    """
    moved = boatyard.promote(name, version, alias, project=folder)
    click.echo(f"{name}: {alias} → {moved.version}")


@registry.command("log", cls=Verb)
@FOLDER
@JSON
def registry_log(folder: Path, as_json: bool) -> None:
    """Show a registry's journal, every line bound to the one before; say where it was changed.

    Example:  boatyard registry log
    """
    for line in boatyard.journal(folder):
        print_json(line.values) if as_json else click.echo(line)
