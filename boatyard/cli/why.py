"""`boatyard why`: the root cause in one sentence, the evidence and the fix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

import boatyard
from boatyard.cli.options import CONTEXT, JSON, PATH, Verb, print_json

if TYPE_CHECKING:
    from boatyard.diagnosis import Answer
    from boatyard.diagnosis.causes import Diagnosis

FOUND = 1  # the exit code when a cause was found


@click.command(cls=Verb, place=260)
@click.argument("target", metavar="KIND/NAME")
@click.option("-n", "--namespace", help="Where it is; the context's by default.")
@CONTEXT
@click.option(
    "--project",
    "folder",
    type=PATH,
    default=".",
    help="The project whose run it is.",
)
@JSON
def why(target: str, namespace: str | None, context: str | None, folder: Path, as_json: bool) -> None:
    """Say what is wrong with an endpoint, a training, a pod or a run: root cause, evidence, fix.

    KIND is isvc, trainjob, pod or run; without it the one of that name is found. Nothing is changed; the ClusterRole
    boatyard-viewer has the rights, and with fewer it says which is missing and goes on. Exit codes: 0 nothing is wrong,
    1 a cause was found (or it could not be looked for), 2 wrong usage.

    Example:  boatyard why isvc/digits -n boatyard
    """
    answer = boatyard.why(target, namespace=namespace, context=context, project=folder)
    if as_json:
        print_json(answer.values())
    else:
        click.echo("\n".join(_shown(answer)))
    if not answer.healthy:
        raise SystemExit(FOUND)


def _shown(answer: Answer) -> list[str]:
    """Return what a person reads."""
    lines = [f"{_bold(str(answer.subject))}{_dim(f' in {answer.subject.namespace}')}"]
    if answer.healthy:
        lines += [
            click.style("✓ ", fg="green") + answer.sentence,
            "",
            _bold("looked at"),
            f"  {', '.join(answer.looked)}",
        ]
    for each in answer.diagnoses[:1]:
        lines += _explained(each)
    if answer.diagnoses[1:]:
        lines += ["", _bold("also"), *(f"  {each.sentence} {_dim(f'({each.cause})')}" for each in answer.diagnoses[1:])]
    if answer.rights:
        lines += ["", _bold("not looked at"), *(f"  {right.said}" for right in answer.rights)]
    return lines


def _explained(found: Diagnosis) -> list[str]:
    """Return the sentence, what it rests on and what cures it."""
    mark, colour = ("… ", "yellow") if found.cause == "starting" else ("✗ ", "red")
    lines = [click.style(mark, fg=colour) + found.sentence, _dim(f"  cause: {found.cause}"), "", _bold("evidence")]
    lines += [line for each in found.evidence for line in (f"  {_dim(each.where)}", f"      {each.text}")]
    return [*lines, "", _bold("fix"), "  " + click.style(found.fix, fg="green")]


def _bold(text: str) -> str:
    return click.style(text, bold=True)


def _dim(text: str) -> str:
    return click.style(text, dim=True)
