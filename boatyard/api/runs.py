"""Runs: the whole pipeline on this machine, those that were, and their reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from boatyard.api.projects import Overrides, check, root_of
from boatyard.api.saying import say
from boatyard.errors import ConfigError

if TYPE_CHECKING:
    from boatyard.evaluation.report import Report
    from boatyard.project import Project
    from boatyard.running.runs import Run


def run(
    project: Project | str | Path = ".",
    *,
    set: Overrides = (),
    resume: bool | str = False,
    quiet: bool = False,
    started: Callable[[Run], None] = lambda run: None,
) -> Run:
    """Run the whole pipeline here, in a process of its own, and return the run.

    A step whose settings, inputs and code did not change is not run again. `resume` goes on with the latest run that
    did not end well, or the one whose id it is; `started` is told the record before the first step. Several may run at
    once, from any thread. Raises Refused where the
    gate said no, Interrupted after Ctrl-C (the run's record stays, and can be resumed), StepFailed, ConfigError.

        run = boatyard.run("flowers", set={"train.epochs": 3})
        run.report.metrics["accuracy"]
    """
    from boatyard.pipelines import process
    from boatyard.running import runs
    from boatyard.running.display import open_display

    if resume:
        if set:
            raise ConfigError("--resume goes on with the spec as it was compiled", fix="start a new run for --set")
        root, spec_of = root_of(project), None
        record = runs.again(_to_resume(runs.find(root, resume if isinstance(resume, str) else None)))
    else:
        root = root_of(project)  # before the file is read: a folder that is not there has no file either
        checked = check(project, set=set)
        spec_of = checked.project
        record = runs.new(spec_of.name, root)
        if not quiet:
            say(
                f"run {record.id}: "
                + ", ".join(f"{key} {value}" for key, value in checked.derived.items() if key != "device")
            )  # the run itself says it
    started(record)
    return process.execute(record, spec_of, root, open_display(quiet=quiet))


def runs(project: Project | str | Path = ".") -> tuple[Run, ...]:
    """Return a project's runs, the latest first."""
    from boatyard.running import runs

    return runs.all_of(root_of(project))


def report(project: Project | str | Path = ".", *, run: str | None = None) -> Report:
    """Return the report of a run, by the beginning of its id, or of the latest that was evaluated."""
    from boatyard.running import runs

    root = root_of(project)
    for record in [runs.find(root, run)] if run else runs.all_of(root):
        if record.output("evaluate", "report"):
            return record.report
    raise ConfigError(f"no evaluated run in {root}", fix="`boatyard run` makes one")


def _to_resume(record: Run) -> Run:
    if record.state == "succeeded":
        raise ConfigError(f"run {record.id} succeeded", fix="there is nothing to resume")
    if record.state == "running":
        raise ConfigError(f"run {record.id} is still running, as process {record.process}")
    if not record.spec.is_file():
        raise ConfigError(f"run {record.id} has no pipeline.yaml", fix="start a new one: boatyard run")
    return record
