"""What the verbs share: their class, which says where in the help they stand, and their options."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from boatyard.plugins import GroupName


class Verb(click.Command):
    """A verb; `place` orders the help as the work goes, not as the alphabet does."""

    def __init__(self, *arguments: Any, place: int = 1000, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.place = place


class VerbGroup(click.Group):
    """A verb with verbs of its own."""

    def __init__(self, *arguments: Any, place: int = 1000, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.place = place


PATH = click.Path(path_type=Path)
PORT = click.IntRange(0, 65535)
FOLDER = click.argument("folder", type=PATH, default=".", required=False)
PACKAGE = click.argument("package")
SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting: --set train.epochs=3"
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
QUIET = click.option("-q", "--quiet", is_flag=True, help="No progress.")
OUT = click.option("-o", "--out", type=PATH, help="Where to write.")
DATASET = click.option("--dataset", type=PATH, help="What preprocess wrote; build/dataset by default.")
CHECKPOINT = click.option("--checkpoint", type=PATH, help="What train wrote; build/checkpoint by default.")
REGISTRY_OF = click.option("--project", "folder", type=PATH, default=".", help="The project whose registry it is.")
CONTEXT = click.option("--context", help="Of the kubeconfig; the current one by default.")


def shown(folder: Path) -> str:
    """Return a folder as the next command has it: nothing where it is the current one."""
    import shlex

    return "" if folder == Path(".") else f" {shlex.quote(str(folder))}"


def print_lines(lines: Iterable[object]) -> None:
    """Print one thing a line."""
    for line in lines:
        click.echo(line)


def print_json(value: Any) -> None:
    """Print a value, a dataclass or several as JSON on one line."""
    import json  # here, as what else only some verbs need: help is to cost no more than click
    from dataclasses import asdict, is_dataclass

    def plain(value: Any) -> Any:
        return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value

    click.echo(json.dumps([plain(item) for item in value] if isinstance(value, list | tuple) else plain(value)))


class OneOfPlugins(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2 only
    """The name of a plug-in of a group; another is wrong usage, which names those that there are."""

    name = "name"

    def __init__(self, group: GroupName) -> None:
        self.group = group

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name; what is installed is looked up when a name is given, not for a help text."""
        from boatyard import plugins
        from boatyard.spelling import hint

        known = plugins.names(self.group)
        if value not in known:
            self.fail(f"no {plugins.GROUPS[self.group].one} {value!r}; {hint(value, known, said='installed are')}")
        return value
