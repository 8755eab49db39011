"""`boatyard registry ls | pull | promote | remove | log | check`: a project's registry."""

from __future__ import annotations

from pathlib import Path

import click

import boatyard
from boatyard.cli.options import CONTEXT, FOLDER, JSON, REGISTRY_OF, Verb, VerbGroup, print_json, print_lines
from boatyard.errors import ArtifactError


@click.group(cls=VerbGroup, place=180)
def registry() -> None:
    """Inspect a registry, move its aliases, remove versions, mend what was damaged."""


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


@registry.command("remove", cls=Verb)
@click.argument("name")
@click.argument("version", type=click.IntRange(1))
@REGISTRY_OF
@CONTEXT
@click.option("--no-cluster", is_flag=True, help="Do not ask the cluster for endpoints that stand on the version.")
def registry_remove(name: str, version: int, folder: Path, context: str | None, no_cluster: bool) -> None:
    """Remove a version that no alias and no endpoint stands on; its number is never given again.

    Example:  boatyard registry remove digits 1
    """
    click.echo(boatyard.remove_version(name, version, project=folder, cluster=not no_cluster, context=context))


@registry.command("check", cls=Verb)
@FOLDER
@click.option("--repair", is_flag=True, help="Make what is wrong agree with the journal, and say what was done.")
@JSON
def registry_check(folder: Path, repair: bool, as_json: bool) -> None:
    """Read every byte of a registry and say what is wrong; with --repair put it right.

    Nothing is deleted: what has no place in the registry is kept in its folder .set-aside.

    Example:  boatyard registry check --repair
    """
    problems = boatyard.check_registry(folder, repair=repair)
    if as_json:
        print_json([vars(problem) for problem in problems])
    else:
        print_lines(problems or ["all is as the journal says"])
    if problems and not repair:
        raise ArtifactError(
            f"{len(problems)} {'thing is' if len(problems) == 1 else 'things are'} wrong",
            fix="boatyard registry check --repair does what the arrows say",
        )


@registry.command("log", cls=Verb)
@FOLDER
@JSON
def registry_log(folder: Path, as_json: bool) -> None:
    """Show a registry's journal, every line bound to the one before; say where it was changed.

    Example:  boatyard registry log
    """
    for line in boatyard.journal(folder):
        print_json(line.values) if as_json else click.echo(line)
