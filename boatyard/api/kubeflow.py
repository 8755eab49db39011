"""The pipeline on Kubeflow: compiled, submitted, followed to the end of its run; the runs that were."""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boatyard.api.projects import Overrides, resolve
from boatyard.api.saying import say, say_at
from boatyard.errors import BoatyardError, ClusterError, ConfigError, Interrupted, UsageError

if TYPE_CHECKING:
    from boatyard.kubernetes.cluster import Cluster
    from boatyard.pipelines.listing import RunSummary
    from boatyard.pipelines.outcomes import RunState
    from boatyard.pipelines.submitting import Backend, Submission, Submitted
    from boatyard.project import Project

Say = Callable[[str], None]
RUNNER = "pipeline-runner"  # the account of runs, unless the project says another


@dataclass(frozen=True)
class KubeflowRun:
    """A run on Kubeflow: where it was submitted, how it stands if it was followed, and why it failed if it did."""

    run: str
    submitted: Submitted | None
    state: RunState | None = None
    error: BoatyardError | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        values = asdict(self.submitted) if self.submitted else {}
        if self.state:
            values |= {"run": self.state.run, "state": self.state.state, "steps": dict(self.state.steps)}
        return {**values, **({"error": str(self.error), "kind": type(self.error).__name__} if self.error else {})}


def compile(project: Project | str | Path = ".", out: str | Path = "pipeline.yaml", *, set: Overrides = ()) -> Path:
    """Write the plain pipeline spec, to upload in the Kubeflow UI or to submit; return its path."""
    from boatyard.pipelines import training

    training.compile(resolve(project, set), Path(out))
    return Path(out)


def submit(
    project: Project | str | Path = ".",
    *,
    set: Overrides = (),
    host: str | None = None,
    namespace: str | None = None,
    run: str | None = None,
    follow: bool = True,
    cached: bool = True,
    check: bool = True,
    say: Say = say_at,
    announce: Say = say,
) -> KubeflowRun:
    """Upload the pipeline to Kubeflow, run it and follow its steps; `host` is BOATYARD_KUBEFLOW's by default.

    With `run` nothing is submitted and that run is followed. What `set` changes becomes the run's parameters. A run
    that failed, or that the gate refused, is raised, unless `check` is off: then it is in `error`. Ctrl-C leaves the
    run alone and raises Interrupted. `announce` is told where its page is, `say` how its steps change.
    """
    from boatyard.pipelines import outcomes, submitting

    address = _address(host)
    with tempfile.TemporaryDirectory() as scratch:
        what = None if run else _submission(project, set, Path(scratch) / "pipeline.yaml", cached, namespace, say)
        backend = submitting.Backend(address, namespace)
        submitted = backend.submit(what) if what else None
    name = run or (submitted.run if submitted else "")
    if submitted:
        announce(f"run {submitted.run}: {_place(submitted)}")
    if not follow:
        return KubeflowRun(name, submitted)
    why = _why(name, project, namespace)
    state = _followed(backend, name, f"boatyard submit --follow {name} --host {address}", why, say)
    error = outcomes.outcome(state, why)
    if error and check:
        raise error
    return KubeflowRun(name, submitted, state, error)


def kubeflow_runs(
    project: Project | str | Path = ".",
    *,
    host: str | None = None,
    namespace: str | None = None,
    limit: int = 20,
    every: bool = False,
    say: Say = say,
) -> tuple[RunSummary, ...]:
    """Return the backend's runs of the project's pipeline, or of `every` one, the latest first, `limit` at most.

    State and steps are the backend's; metric, version and reason are what the steps left below the pipeline root,
    which this machine needs the store's keys for. `say` is told once where they cannot be read.
    """
    from boatyard.pipelines import listing, submitting

    if limit < 1:
        raise UsageError("limit", expected="1 or more", found=str(limit))
    name = None if every else resolve(project).name
    backend = submitting.Backend(_address(host), namespace)
    found = listing.summaries(backend, name, limit, lambda run: _why(run, project, namespace))
    for note in found.notes:
        say(note)
    return found.runs


def _address(host: str | None) -> str:
    """Return the URL of the API, as given or as the environment has it; raises ConfigError where neither says it."""
    from boatyard.settings import Settings

    if address := host or Settings().kubeflow:
        return address
    raise ConfigError(
        expected="the URL of the Kubeflow Pipelines API",
        found="none",
        fix=(
            "give --host, or set BOATYARD_KUBEFLOW (kubectl port-forward -n kubeflow "
            "svc/ml-pipeline 8888 makes it http://localhost:8888)"
        ),
    )


def _submission(
    project: Project | str | Path, set: Overrides, spec: Path, cached: bool, namespace: str | None, say: Say
) -> Submission:
    """Compile the project; what is set of a stage's section is a parameter of the run, not another pipeline."""
    from boatyard.data.lineage import SECTIONS
    from boatyard.pipelines import training
    from boatyard.pipelines.submitting import Submission

    changed = resolve(project, set)
    _check_reach(changed)
    _look_for_training(changed, namespace, say)
    written = _written(project, changed)
    training.compile(written, spec, cached)
    old, new = written.values(), changed.values()
    parameters = {key: new[key] for key in SECTIONS if old[key] != new[key]}
    config = changed.kubeflow
    return Submission(changed.name, spec, config.experiment, parameters, config.root, config.service_account)


def _check_reach(project: Project) -> None:
    """Raise ConfigError for data or a registry in a folder that the pods have not, or lose."""
    from boatyard import storage

    config = project.kubeflow
    places = {
        "data.path": (project.data.path, project.resources.preprocess),
        "push.registry": (project.push.registry, project.resources.push),
    }
    for key, (place, step) in places.items():
        if storage.in_bucket(place):
            continue
        path = storage.parse(place, Path(config.folder or "/tmp"))
        mounted = any(path.is_relative_to(mount) for mount in {**config.volumes, **step.volumes})
        if not mounted and (key == "push.registry" or not (config.folder or Path(place).is_absolute())):
            raise ConfigError(
                f"{key} is {place}, which the pods would look for at {path}, a folder that ends with each of them",
                fix=("give an s3:// URI, or a claim in kubeflow.volumes and the folder in it as kubeflow.folder"),
            )


def _look_for_training(project: Project, namespace: str | None, say: Say) -> None:
    """Raise ClusterError where the run's namespace lacks what a TrainJob needs, as far as can be seen from here."""
    from boatyard.kubernetes import cluster
    from boatyard.kubernetes.kinds import KUBEFLOW
    from boatyard.training import launchers

    if not launchers.launcher(project.train).elsewhere:
        return
    try:
        there = cluster.connect()
    except ClusterError as error:
        say(f"not looked whether namespace {namespace or KUBEFLOW} can train: {error}")
        return
    check_training(there, project, namespace)


def check_training(there: Cluster, project: Project, namespace: str | None) -> None:
    """Raise ClusterError where a run's namespace lacks what the TrainJob of its train step needs, if it makes one."""
    from boatyard.kubernetes.kinds import KUBEFLOW
    from boatyard.training import launchers, trainjobs

    if launchers.launcher(project.train).elsewhere:
        trainjobs.check(there, namespace or KUBEFLOW, project.train, project.kubeflow.service_account or RUNNER)


def _written(project: Project | str | Path, changed: Project) -> Project:
    """Return the project with its stages' sections as its file has them, where the file alone is a project."""
    from boatyard.data.lineage import SECTIONS

    try:
        file = resolve(project)
    except ConfigError:
        return changed
    return changed.model_copy(update={key: getattr(file, key) for key in SECTIONS})


def _place(submitted: Submitted) -> str:
    """Say where a person finds a run."""
    if submitted.page:
        return submitted.page
    return f"in the Kubeflow UI among Runs, {submitted.name!r} (with BOATYARD_KUBEFLOW_UI=URL this is its page)"


def _why(run: str, project: Project | str | Path, namespace: str | None) -> str:
    """Return the command that says why a run failed, from where the caller is."""
    folder = Path(project) if isinstance(project, str | Path) else project.root
    of = [] if folder == Path() else ["--project", str(folder)]
    return shlex.join(["boatyard", "why", f"run/{run}", *(["-n", namespace] if namespace else []), *of])


def _followed(backend: Backend, run: str, again: str, why: str, say: Say) -> RunState:
    """Follow a run to its end; Ctrl-C leaves it."""
    try:
        return backend.follow(run, _teller(why, say))
    except KeyboardInterrupt:
        raise Interrupted(f"run {run} goes on", fix=f"follow it again: {again}") from None
    except BoatyardError as error:
        raise type(error)(f"{error}; run {run} may go on, follow it again: {again}") from error


def _teller(why: str, say: Say) -> Callable[[RunState], None]:
    """Return what says each change of a step once, and what waits for long for its pod."""
    from boatyard.pipelines.submitting import SLOW_POD_S

    known: dict[str, str] = {}
    since: dict[str, float] = {}

    def tell(state: RunState) -> None:
        for step, now in state.steps.items():
            if known.get(step) != now:
                known[step], since[step] = now, time.monotonic()
                say(f"{step:<12} {now.lower()}")
            elif now in ("PENDING", "RUNNING") and time.monotonic() - since[step] > SLOW_POD_S:
                since[step] = float("inf")
                say(f"{step:<12} {now.lower()} for {SLOW_POD_S / 60:g} minutes; {why}")

    return tell
