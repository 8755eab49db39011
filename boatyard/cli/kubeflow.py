"""`boatyard submit`: the pipeline on Kubeflow, from the project file to the end of its run."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from boatyard.errors import BoatyardError, ConfigError, Interrupted

if TYPE_CHECKING:
    from boatyard.pipelines.submitting import Backend, State, Submission, Submitted
    from boatyard.project import Project


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=".", required=False)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting: --set train.epochs=3")
@click.option(
    "--host", help="URL of the Kubeflow Pipelines API; BOATYARD_KUBEFLOW or KF_PIPELINES_ENDPOINT by default."
)
@click.option("--namespace", help="Of the run, where Kubeflow has several users.")
@click.option("--follow", "run_id", metavar="RUN", help="Submit nothing: follow a run that was submitted before.")
@click.option("--no-follow", "leave", is_flag=True, help="Submit and leave.")
@click.option("--no-cache", is_flag=True, help="Run every step, whatever earlier runs made.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
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
    from boatyard.pipelines import submitting
    from boatyard.settings import Settings

    address = host or Settings().kubeflow
    if not address:
        raise ConfigError(
            "expected the URL of the Kubeflow Pipelines API, found none; give --host, or set BOATYARD_KUBEFLOW "
            "(kubectl port-forward -n kubeflow svc/ml-pipeline 8888 makes it http://localhost:8888)"
        )
    with tempfile.TemporaryDirectory() as scratch:
        what = None if run_id else _submission(folder, overrides, Path(scratch) / "pipeline.yaml", cached=not no_cache)
        backend = submitting.Backend(address, namespace)
        submitted = backend.submit(what) if what else None
    run = run_id or (submitted.run if submitted else "")
    if submitted and not as_json:
        click.echo(f"run {submitted.run}: {submitted.page}", err=True)
    if leave:
        _print(submitted, None, None, as_json)
        return
    again = f"boatyard submit --follow {run} --host {address}"
    state = _followed(backend, run, again, quiet=as_json)
    error = submitting.outcome(state)
    _print(submitted, state, error, as_json)
    if error:
        raise error


def _submission(folder: Path, overrides: tuple[str, ...], spec: Path, cached: bool) -> Submission:
    """Compile the project; what --set changes of a stage's section is a parameter of the run, not another pipeline."""
    from boatyard import project
    from boatyard.pipelines import training
    from boatyard.pipelines.submitting import Submission

    wanted = project.load(folder, overrides)
    _check_reach(wanted)
    written = _written(folder, wanted)
    training.compile(written, spec, cached)
    old, new = written.values(), wanted.values()
    parameters = {key: new[key] for key in _sections() if old[key] != new[key]}
    how = wanted.kubeflow
    return Submission(wanted.name, spec, how.experiment, parameters, how.root, how.service_account)


def _check_reach(project: Project) -> None:
    """Raise ConfigError for data or a registry in a folder that the pods have not, or lose."""
    from boatyard import storage

    how = project.kubeflow
    asked = {
        "data.path": (project.data.path, project.resources.preprocess),
        "push.registry": (project.push.registry, project.resources.push),
    }
    for key, (place, step) in asked.items():
        if storage.in_bucket(place):
            continue
        path = storage.parse(place, Path(how.folder or "/tmp"))
        mounted = any(path.is_relative_to(mount) for mount in {**how.volumes, **step.volumes})
        if not mounted and (key == "push.registry" or not (how.folder or Path(place).is_absolute())):
            raise ConfigError(
                f"{key} is {place}, which the pods would look for at {path}, a folder that ends with each of them; "
                "give an s3:// URI, or a claim in kubeflow.volumes and the folder in it as kubeflow.folder"
            )


def _written(folder: Path, wanted: Project) -> Project:
    """Return the project with its stages' sections as its file has them, where the file alone is a project."""
    from boatyard import project

    try:
        file = project.load(folder)
    except ConfigError:
        return wanted
    return wanted.model_copy(update={key: getattr(file, key) for key in _sections()})


def _sections() -> tuple[str, ...]:
    from boatyard import stages

    return tuple(stages.SECTIONS)


def _followed(backend: Backend, run: str, again: str, quiet: bool) -> State:
    """Follow a run to its end; Ctrl-C leaves it."""
    try:
        return backend.follow(run, _teller(quiet))
    except KeyboardInterrupt:
        raise Interrupted(f"run {run} goes on; follow it again: {again}") from None
    except BoatyardError as error:
        raise type(error)(f"{error}; run {run} may go on, follow it again: {again}") from error


def _teller(quiet: bool) -> Callable[[State], None]:
    """Return what says each change of a step once, and what waits for long for its pod."""
    from boatyard.pipelines.submitting import SLOW

    known: dict[str, str] = {}
    since: dict[str, float] = {}

    def tell(state: State) -> None:
        for step, now in state.steps.items():
            if known.get(step) != now:
                known[step], since[step] = now, time.monotonic()
                _say(f"{step:<12} {now.lower()}", quiet)
            elif now in ("PENDING", "RUNNING") and time.monotonic() - since[step] > SLOW:
                since[step] = float("inf")
                _say(f"{step:<12} {now.lower()} for {SLOW / 60:g} minutes; boatyard why run/{state.run}", quiet)

    return tell


def _say(text: str, quiet: bool) -> None:
    if not quiet:
        click.echo(f"{time.strftime('%H:%M:%S')} {text}", err=True)


def _print(submitted: Submitted | None, state: State | None, error: BoatyardError | None, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_values(submitted, state, error)))
    elif state is None and submitted is not None:
        click.echo(submitted.run)
    elif state is not None and error is None:
        click.echo(f"run {state.run} succeeded")


def _values(submitted: Submitted | None, state: State | None, error: BoatyardError | None) -> dict[str, Any]:
    from dataclasses import asdict

    made = asdict(submitted) if submitted else {}
    stands = {"run": state.run, "state": state.state, "steps": dict(state.steps)} if state else {}
    return {**made, **stands, **({"error": str(error), "kind": type(error).__name__} if error else {})}
