"""`boatyard init | check | schema`: the project file."""

from __future__ import annotations

from pathlib import Path

import click

import boatyard
from boatyard.cli.options import CONTEXT, FOLDER, JSON, OUT, PATH, SET, Verb, print_json, print_lines, shown
from boatyard.errors import UsageError


@click.command(cls=Verb, place=10)
@FOLDER
@click.option("--data", type=PATH, help="Your data: a file or folder of idx, npy, npz, csv, parquet or image files.")
def init(folder: Path, data: Path | None) -> None:
    """Write a boatyard.yaml with every setting explained.

    Without --data a small sample of handwritten digits comes along, so that `boatyard run` works at once.

    Example:  boatyard init flowers --data flowers.csv
    """
    click.echo(f"wrote {boatyard.init(folder, data)}")
    click.echo(f"next: boatyard {'check' if data else 'run'}{shown(folder)}")


@click.command(cls=Verb, place=20)
@FOLDER
@SET
@click.option(
    "--cluster",
    is_flag=True,
    help="Also say which steps the cluster has room for now, and what a training on it lacks.",
)
@click.option("--namespace", help="With --cluster: where the pipeline's runs are, kubeflow by default.")
@CONTEXT
@JSON
def check(
    folder: Path,
    overrides: tuple[str, ...],
    cluster: bool,
    namespace: str | None,
    context: str | None,
    as_json: bool,
) -> None:
    """Find all that can be known to be wrong before a run: types, settings, data, recipe; print what was derived.

    Example:  boatyard check --set train.epochs=3
    """
    if not cluster and (alone := "--namespace" if namespace else "--context" if context else ""):
        raise UsageError(f"{alone} is an option of --cluster", fix="give both, or neither")
    checked = boatyard.check(folder, set=overrides)
    placed = boatyard.placements(folder, set=overrides, context=context, namespace=namespace) if cluster else ()
    if as_json:
        from dataclasses import asdict

        print_json({**checked.to_dict(), **({"placements": [asdict(each) for each in placed]} if cluster else {})})
        return
    click.echo(checked)
    print_lines(placed)
    click.echo(f"{checked.project.name}: nothing wrong found; next: boatyard run{shown(folder)}")


@click.command(cls=Verb, place=190)
@OUT
def schema(out: Path | None) -> None:
    """Print the JSON schema of boatyard.yaml, for editors.

    Example:  boatyard schema -o boatyard.schema.json
    """
    import json

    text = json.dumps(boatyard.schema(), indent=2) + "\n"
    if out:
        out.write_text(text, encoding="utf-8")
    else:
        click.echo(text, nl=False)
