"""`boatyard recipes | plugins`: what is installed, to be named in a project file."""

from __future__ import annotations

import click

import boatyard
from boatyard.cli.options import JSON, Verb, print_json, print_lines


@click.command(cls=Verb, place=60)
@click.argument("name", required=False)
def recipes(name: str | None) -> None:
    """List the recipes that are installed, with their settings.

    Example:  boatyard recipes cnn
    """
    print_lines(boatyard.list_recipes(name))


@click.command(cls=Verb, place=65)
@JSON
def plugins(as_json: bool) -> None:
    """List what is built in and installed: recipes, sources, kinds, tasks, measures, engines, launchers, autoscalers.

    Example:  boatyard plugins --json
    """
    found = boatyard.list_plugins()
    if as_json:
        print_json(found)
        return
    print_lines(f"{plugin.group:<12} {plugin.name:<24} {plugin.origin}" for plugin in found)
