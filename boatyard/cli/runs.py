"""`boatyard run | runs | report`: the whole pipeline on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import boatyard
from boatyard.cli.options import FOLDER, JSON, QUIET, SET, Verb, print_json, shown
from boatyard.errors import BoatyardError, UsageError

if TYPE_CHECKING:
    from boatyard.pipelines.listing import RunSummary
    from boatyard.running.runs import Run


@click.command(cls=Verb, place=30)
@FOLDER
@SET
@click.option(
    "--resume", "resume", is_flag=True, help="Go on with the latest run that did not end well, as it was compiled."
)
@click.option("--run", "run_id", help="Which run to resume; the beginning of its id is enough.")
@QUIET
@JSON
def run(folder: Path, overrides: tuple[str, ...], resume: bool, run_id: str | None, quiet: bool, as_json: bool) -> None:
    """Run the whole pipeline here: the compiled spec, by Kubeflow's own local runner.

    A step whose settings, inputs and code did not change is not run again.

    Example:  boatyard run --set train.epochs=3
    """
    started: list[Run] = []
    try:
        with _sigterm_as_ctrl_c():
            record = boatyard.run(
                folder, set=overrides, resume=run_id or resume, quiet=quiet or as_json, started=started.append
            )
    except BoatyardError:
        with suppress(BoatyardError, OSError):  # what the summary meets must not hide why the run ended
            _summary(started[0] if started else None, folder, as_json)
            sys.stdout.flush()
        raise
    _summary(record, folder, as_json)


@click.command("runs", cls=Verb, place=40)
@FOLDER
@click.option("--steps", is_flag=True, help="Show each run's steps too, and why one ran again.")
@click.option("--kubeflow", is_flag=True, help="List the pipeline's runs on Kubeflow instead.")
@click.option("--host", help="With --kubeflow: URL of the API; BOATYARD_KUBEFLOW by default.")
@click.option("--namespace", help="With --kubeflow: of the runs, where Kubeflow has several users.")
@click.option("--limit", type=click.IntRange(1), help="With --kubeflow: how many at most.  [default: 20]")
@click.option("--all", "every", is_flag=True, help="With --kubeflow: the runs of every pipeline.")
@JSON
def runs(
    folder: Path,
    steps: bool,
    kubeflow: bool,
    host: str | None,
    namespace: str | None,
    limit: int | None,
    every: bool,
    as_json: bool,
) -> None:
    """List a project's runs, the latest first: those of this machine, or with --kubeflow those of a backend.

    Of a run on Kubeflow the metric, the version pushed and the reason are what its steps left below the pipeline root;
    they are read where this machine has the store's keys (AWS_ACCESS_KEY_ID and so on). Times are UTC.

    Example:  boatyard runs --steps
    """
    given = {"--host": host, "--namespace": namespace, "--limit": limit, "--all": every}
    if kubeflow:
        listed = boatyard.kubeflow_runs(folder, host=host, namespace=namespace, limit=limit or 20, every=every)
        _list_kubeflow(listed, folder, steps, every, as_json)
        return
    if alone := [option for option, value in given.items() if value]:
        raise UsageError(f"{alone[0]} is an option of --kubeflow", fix="give both, or neither")
    found = boatyard.runs(folder)
    if as_json:
        print_json([_values(record) for record in found])
        return
    if not found:
        click.echo(f"no runs yet; `boatyard run{shown(folder)}` makes one")
    for record in found:
        took = sum(step.seconds for step in record.steps)
        click.echo(f"{record.id}  {record.state:<12} {took:8.1f} s  {record.headline()}")
        for step in record.steps if steps else ():
            click.echo(f"    {step.name:<12} {step.state:<10} {step.seconds:8.1f} s  {record.log(step.name)}")
            if step.why:
                click.echo(f"        ran again: {step.why}")


@click.command(cls=Verb, place=50)
@FOLDER
@click.option("--run", "run_id", help="Which run; the latest that was evaluated by default.")
@JSON
def report(folder: Path, run_id: str | None, as_json: bool) -> None:
    """Show a run's metrics with their intervals, and where its page is.

    Example:  boatyard report
    """
    found = boatyard.report(folder, run=run_id)
    if as_json:
        print_json(found.numbers())
        return
    for name, metric in found.metrics.items():
        click.echo(f"{name:<20} {metric}")
    click.echo(f"page: {found.path / 'report.html'}")


def _list_kubeflow(listed: tuple[RunSummary, ...], folder: Path, steps: bool, every: bool, as_json: bool) -> None:
    """Print runs of a backend: the words of those of this machine, and what only these have."""
    if as_json:
        print_json([run.to_dict() for run in listed])
        return
    if not listed:
        click.echo(f"no runs on Kubeflow yet; `boatyard submit{shown(folder)}` makes one")
    for run in listed:
        click.echo("  ".join(_cells(run, every)).rstrip())
        for step, state in (run.steps or {}).items() if steps else ():
            click.echo(f"    {step:<12} {state.lower()}")


def _cells(run: RunSummary, every: bool) -> list[str]:
    took = "" if run.seconds is None else f"{run.seconds:.1f} s"
    result = run.result
    said = [result.headline(), f"version {result.version}" if result.version is not None else ""] if result else []
    name = [run.name, *([run.pipeline] if every and run.pipeline else [])]
    own = [run.run, f"{run.created[:19].replace('T', ' '):<19}", f"{run.state:<12} {took:>10}", *name]
    return [*own, *filter(None, [*said, run.reason])]


def _values(record: Run) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(record), "path": str(record.path), "id": record.id}


def _summary(record: Run | None, folder: Path, as_json: bool) -> None:
    """Say what a run came to: metrics, report, package, and what to type next."""
    from boatyard.running import runs

    if record is None:
        return
    record = runs.read(record.path)
    if as_json:
        print_json(_values(record))
        return
    if record.output("evaluate", "report"):
        found = record.report
        click.echo(f"\n{found.headline()}")
        click.echo(f"report    {found.path / 'report.html'}")
    package = record.output("push", "package")
    if record.state == "succeeded" and package:
        click.echo(f"package   {package}")
        click.echo(f"version   {record.version.uri}")
        click.echo(f"next      boatyard serve{shown(folder) or ' .'}")
    if record.state in ("failed", "interrupted"):
        click.echo(f"next      boatyard run{shown(folder)} --resume")


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Take SIGTERM, as a supervisor sends it, for Ctrl-C: the run is saved, and can be resumed."""
    import signal

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
