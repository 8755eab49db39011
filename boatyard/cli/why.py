"""`boatyard why`: the root cause in one sentence, the evidence and the fix."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from boatyard.errors import BoatyardError, ClusterError, ConfigError, Forbidden, MissingKind

if TYPE_CHECKING:
    from boatyard.diagnosis import Answer
    from boatyard.diagnosis.causes import Diagnosis
    from boatyard.kubernetes.cluster import Cluster

KINDS = {
    **dict.fromkeys(("isvc", "inferenceservice", "inferenceservices"), "InferenceService"),
    **dict.fromkeys(("trainjob", "trainjobs"), "TrainJob"),
    **dict.fromkeys(("pod", "pods", "po"), "Pod"),
    **dict.fromkeys(("run", "runs"), "Run"),
}
WORDS = {"InferenceService": "isvc", "TrainJob": "trainjob", "Pod": "pod", "Run": "run"}
LOCAL = re.compile(r"\d{8}-\d{6}")  # how the ids of runs on this machine begin
FOUND = 1


@click.command()
@click.argument("target", metavar="KIND/NAME")
@click.option("-n", "--namespace", help="Where it is; the context's by default.")
@click.option("--context", help="Of the kubeconfig; the current one by default.")
@click.option(
    "--project",
    "folder",
    type=click.Path(path_type=Path),
    default=".",
    help="The project whose run it is.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def why(target: str, namespace: str | None, context: str | None, folder: Path, as_json: bool) -> None:
    """Say what is wrong with an endpoint, a training, a pod or a run: root cause, evidence, fix.

    KIND is isvc, trainjob, pod or run; without it the one of that name is found. Nothing is changed; the ClusterRole
    boatyard-viewer has the rights, and with fewer it says which is missing and goes on. Exit codes: 0 nothing is wrong,
    1 a cause was found (or it could not be looked for), 2 wrong usage.

    Example:  boatyard why isvc/digits -n boatyard
    """
    kind, _, name = target.rpartition("/")
    if kind and kind.lower() not in KINDS:
        raise click.UsageError(f"no kind {kind} is known here; expected isvc, trainjob, pod or run, as in isvc/digits")
    if not name:
        raise click.UsageError(f"{target}: expected KIND/NAME, as in isvc/digits")
    known = KINDS[kind.lower()] if kind else "Run" if LOCAL.match(name) else ""
    run = known == "Run"
    answer = _run(name, folder, namespace, context) if run else _object(known, name, namespace, context)
    if as_json:
        click.echo(json.dumps(answer.values()))
    else:
        click.echo("\n".join(_shown(answer)))
    if not answer.healthy:
        raise SystemExit(FOUND)


def _object(kind: str, name: str, namespace: str | None, context: str | None) -> Answer:
    """Look at an object of the cluster."""
    from boatyard import diagnosis
    from boatyard.kubernetes import cluster

    found = cluster.connect(context)
    space = namespace or found.namespace
    subject = diagnosis.Subject(kind or _guessed(found, name, space), name, space)
    return diagnosis.diagnose(diagnosis.gather(found, subject))


def _guessed(cluster: Cluster, name: str, namespace: str) -> str:
    """Return the one kind that has an object of that name; raises UsageError for several, ConfigError for none."""
    there, hidden = [], None
    for kind in ("InferenceService", "TrainJob", "Pod"):
        try:
            if cluster.get(kind, name, namespace):
                there.append(kind)
        except MissingKind:
            continue
        except Forbidden as error:
            hidden = error
    if len(there) == 1:
        return there[0]
    if hidden:
        raise hidden
    if there:
        raise click.UsageError(f"{name} may be {' or '.join(f'{WORDS[kind]}/{name}' for kind in there)}; say which")
    raise ConfigError(f"nothing is named {name} in namespace {namespace}: no isvc, trainjob, pod; -n asks elsewhere")


def _run(name: str, folder: Path, namespace: str | None, context: str | None) -> Answer:
    """Look for a run on this machine, then for what its steps left in the store, then for its pods."""
    from boatyard import diagnosis
    from boatyard.diagnosis.runs import of_kubeflow, of_local
    from boatyard.running import runs

    root = (folder if folder.is_dir() else folder.parent).absolute()
    if any(each.id.startswith(name) for each in runs.all_of(root)):
        return diagnosis.from_run(of_local(runs.find(root, name), folder))
    found, problems = None, []
    subject = diagnosis.Subject("Run", name, namespace or "kubeflow")
    try:
        found = diagnosis.from_run(of_kubeflow(subject, _in_store(folder, name)))
    except BoatyardError as error:
        problems.append(str(error))
    if found and not found.healthy:
        return found
    try:
        pods = _object("Run", name, namespace, context)
    except ClusterError as error:
        problems.append(str(error))
    else:
        if not pods.healthy or (not found and any(" Pod" in each for each in pods.looked)):
            return pods
    if found:
        return found
    raise ConfigError(f"run {name} is not found: no run of {root} has it; " + "; ".join([*problems, "no pod has it"]))


def _in_store(folder: Path, name: str) -> str:
    """Return the folder of a run on Kubeflow in the store; raises ConfigError, StorageError."""
    from boatyard import project
    from boatyard.running import reasons

    root = project.load(folder, ()).kubeflow.root
    if not root:
        raise ConfigError("the project has no kubeflow.root to look for a run on Kubeflow in")
    return reasons.find(root, name)


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
