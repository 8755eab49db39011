"""`boatyard compile | submit`: the pipeline on Kubeflow, from the project file to the end of its run."""

from __future__ import annotations

from pathlib import Path

import click

import boatyard
from boatyard.cli.options import FOLDER, JSON, PATH, SET, Verb, print_json


@click.command("compile", cls=Verb, place=130)
@FOLDER
@SET
@click.option("-o", "--out", type=PATH, default="pipeline.yaml", show_default=True, help="Where to write.")
def compile_(folder: Path, overrides: tuple[str, ...], out: Path) -> None:
    """Write the plain pipeline spec, to upload in the Kubeflow UI or to submit.

    Example:  boatyard compile -o pipeline.yaml
    """
    click.echo(f"wrote {boatyard.compile(folder, out, set=overrides)}")


@click.command(cls=Verb, place=140)
@FOLDER
@SET
@click.option(
    "--host", help="URL of the Kubeflow Pipelines API; BOATYARD_KUBEFLOW or KF_PIPELINES_ENDPOINT by default."
)
@click.option("--namespace", help="Of the run, where Kubeflow has several users.")
@click.option("--follow", "run_id", metavar="RUN", help="Submit nothing: follow a run that was submitted before.")
@click.option("--no-follow", "leave", is_flag=True, help="Submit and leave.")
@click.option("--no-cache", is_flag=True, help="Run every step, whatever earlier runs made.")
@JSON
def submit(
    folder: Path,
    overrides: tuple[str, ...],
    host: str | None,
    namespace: str | None,
    run_id: str | None,
    leave: bool,
    no_cache: bool,
    as_json: bool,
) -> None:
    """Upload the pipeline to Kubeflow, run it and follow its steps; exit 3 when the gate refuses.

    The project's kubeflow section says root, experiment, service account and what every pod has; --set becomes the
    run's parameters. Ctrl-C leaves the run alone.

    Example:  boatyard submit --host http://localhost:8888 --set train.epochs=3
    """
    run = boatyard.submit(
        folder,
        set=overrides,
        host=host,
        namespace=namespace,
        run=run_id,
        follow=not leave,
        cached=not no_cache,
        check=False,
        **(dict.fromkeys(("say", "announce"), lambda sentence: None) if as_json else {}),
    )
    if as_json:
        print_json(run.to_dict())
    elif run.state is None:
        click.echo(run.run)
    elif run.error is None:
        click.echo(f"run {run.run} succeeded")
    if run.error:
        raise run.error
