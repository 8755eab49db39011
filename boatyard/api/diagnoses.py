"""Why: what is wrong with an endpoint, a training, a pod or a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from boatyard.api.projects import resolve, root_of
from boatyard.errors import BoatyardError, ClusterError, ConfigError, Forbidden, MissingKind, UsageError

if TYPE_CHECKING:
    from boatyard.diagnosis import Answer
    from boatyard.kubernetes.cluster import Cluster
    from boatyard.project import Project

KINDS = {
    **dict.fromkeys(("isvc", "inferenceservice", "inferenceservices"), "InferenceService"),
    **dict.fromkeys(("trainjob", "trainjobs"), "TrainJob"),
    **dict.fromkeys(("pod", "pods", "po"), "Pod"),
    **dict.fromkeys(("run", "runs"), "Run"),
}
WORDS = {"InferenceService": "isvc", "TrainJob": "trainjob", "Pod": "pod", "Run": "run"}
LOCAL = re.compile(r"\d{8}-\d{6}")  # how the ids of runs on this machine begin


def why(
    target: str,
    *,
    namespace: str | None = None,
    context: str | None = None,
    project: Project | str | Path = ".",
) -> Answer:
    """Return the root cause of what is wrong with `isvc/NAME`, `trainjob/…`, `pod/…` or `run/…`, evidence and fix.

    Nothing is changed. Without a kind, the one of that name is found; a run is one of `project`. Raises UsageError for
    what names nothing or several, ConfigError where nothing has the name, ClusterError.
    """
    kind, _, name = target.rpartition("/")
    if kind and kind.lower() not in KINDS:
        raise UsageError(f"no kind {kind} is known here; expected isvc, trainjob, pod or run, as in isvc/digits")
    if not name:
        raise UsageError(f"{target}: expected KIND/NAME, as in isvc/digits")
    known = KINDS[kind.lower()] if kind else "Run" if LOCAL.match(name) else ""
    if known == "Run":
        return _run(name, project, namespace, context)
    return _object(known, name, namespace, context)


def _object(kind: str, name: str, namespace: str | None, context: str | None) -> Answer:
    """Look at an object of the cluster."""
    from boatyard import diagnosis
    from boatyard.kubernetes import cluster

    found = cluster.connect(context)
    space = namespace or found.namespace
    if kind == "Run":
        space = namespace or diagnosis.namespace_of(found, name, space)
        return diagnosis.diagnose_run(found, diagnosis.ObjectReference(kind, name, space))
    subject = diagnosis.ObjectReference(kind or _guessed(found, name, space), name, space)
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
        raise UsageError(f"{name} may be {' or '.join(f'{WORDS[kind]}/{name}' for kind in there)}; say which")
    raise ConfigError(
        f"nothing is named {name} in namespace {namespace}: no isvc, trainjob, pod", fix="-n asks elsewhere"
    )


def _run(name: str, project: Project | str | Path, namespace: str | None, context: str | None) -> Answer:
    """Look for a run on this machine, then for what its steps left in the store, then for its pods."""
    from boatyard import diagnosis
    from boatyard.diagnosis.runs import of_kubeflow, of_local
    from boatyard.running import runs

    root = root_of(project)
    if any(run.id.startswith(name) for run in runs.all_of(root)):
        return diagnosis.from_run(of_local(runs.find(root, name), _folder(project)))
    found, problems = None, []
    subject = diagnosis.ObjectReference("Run", name, namespace or "kubeflow")
    try:
        found = diagnosis.from_run(of_kubeflow(subject, _in_store(project, name)))
    except BoatyardError as error:
        problems.append(str(error))
    if found and not found.healthy:
        return found
    try:
        pods = _object("Run", name, namespace, context)
    except ClusterError as error:
        problems.append(str(error))
    else:
        if not pods.healthy or (not found and any(" Pod" in looked for looked in pods.looked)):
            return pods
    if found:
        return found
    raise ConfigError(f"run {name} is not found: no run of {root} has it; " + "; ".join([*problems, "no pod has it"]))


def _folder(project: Project | str | Path) -> Path:
    """Return the project's folder as the caller names it, for the commands that are advised."""
    return Path(project) if isinstance(project, str | Path) else project.root


def _in_store(project: Project | str | Path, name: str) -> str:
    """Return the folder of a run on Kubeflow in the store; raises ConfigError, StorageError."""
    from boatyard.running import reasons

    root = resolve(project).kubeflow.root
    if not root:
        raise ConfigError("the project has no kubeflow.root to look for a run on Kubeflow in")
    return reasons.find(root, name)
