"""The stages one by one, in this process: what a run does, with what each made handed to the next.

What is not given is what the stage before left in the project's `build/`, and what is made goes there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boatyard.api.projects import Overrides, resolve
from boatyard.api.saying import say
from boatyard.errors import Refused

if TYPE_CHECKING:
    from boatyard.data.checkpoints import Training
    from boatyard.data.datasets import Dataset
    from boatyard.evaluation.report import Report
    from boatyard.gating import Verdict
    from boatyard.project import Project
    from boatyard.registry import Version


@dataclass(frozen=True)
class Trained:
    """A checkpoint's folder, and what its training came to."""

    path: Path
    training: Training


def preprocess(
    project: Project | str | Path = ".", *, set: Overrides = (), out: str | Path | None = None, quiet: bool = False
) -> Dataset:
    """Read, clean and split the project's data; return the dataset."""
    from boatyard import preprocessing

    found = resolve(project, set)
    path = _out(out, found, "dataset")
    with _stage("preprocess", quiet):
        dataset = preprocessing.preprocess(found.data, found.preprocess, path, root=found.root, task=found.task)
        _note(path, dataset.numbers())
    return dataset


def train(
    project: Project | str | Path = ".",
    data: Dataset | str | Path | None = None,
    *,
    set: Overrides = (),
    out: str | Path | None = None,
    cluster: bool = False,
    namespace: str | None = None,
    quiet: bool = False,
    say: Callable[[str], None] = say,
) -> Trained:
    """Train on a dataset; return the checkpoint. Stopped, the next call goes on where it was.

    With `cluster`, by the train.nodes pods of a TrainJob in the current context's cluster, whose logs are said.
    """
    from boatyard import training
    from boatyard.data import datasets
    from boatyard.settings import Settings
    from boatyard.training import devices

    found = resolve(project, set)
    path, dataset = _out(out, found, "checkpoint"), _path(data, found, "dataset")
    if cluster:
        return Trained(path, _train_on_cluster(found, dataset, path, namespace, say))
    if not quiet and (sentence := devices.shortfall_of(found)):
        say(sentence)
    with _stage("train", quiet):
        result = training.train(
            found.train.alone(),
            found.preprocess,
            datasets.read(dataset),
            path,
            seal=found.gate.seal,
            root=found.root,
            work=Settings().work or path.with_name(f".{path.name}.work"),
        )
        _note(path, result.numbers())
    return Trained(path, result)


def evaluate(
    project: Project | str | Path = ".",
    data: Dataset | str | Path | None = None,
    trained: Trained | str | Path | None = None,
    *,
    set: Overrides = (),
    out: str | Path | None = None,
    quiet: bool = False,
) -> Report:
    """Measure a checkpoint's ONNX model on the test rows; return the report."""
    from boatyard import evaluation
    from boatyard.data import datasets

    found = resolve(project, set)
    path = _out(out, found, "report")
    with _stage("evaluate", quiet):
        dataset, checkpoint = _path(data, found, "dataset"), _path(trained, found, "checkpoint")
        report = evaluation.evaluate(found.evaluate, datasets.read(dataset), checkpoint, path)
        _note(path, report.numbers())
    return report


def gate(
    project: Project | str | Path = ".",
    data: Dataset | str | Path | None = None,
    trained: Trained | str | Path | None = None,
    report: Report | str | Path | None = None,
    *,
    set: Overrides = (),
    out: str | Path | None = None,
    quiet: bool = False,
) -> Verdict:
    """Hold a report against the frozen rules, and against the version in production; return the verdict."""
    from boatyard.running import releasing
    from boatyard.settings import Settings

    found = resolve(project, set)
    with _stage("gate", quiet):
        return releasing.judge(
            found.gate,
            found.push,
            found.name,
            dataset=_path(data, found, "dataset"),
            checkpoint=_path(trained, found, "checkpoint"),
            report=_path(report, found, "report"),
            out=_out(out, found, "verdict.json"),
            root=found.root,
            retries=Settings().retries,
        )


def push(
    project: Project | str | Path = ".",
    data: Dataset | str | Path | None = None,
    trained: Trained | str | Path | None = None,
    report: Report | str | Path | None = None,
    verdict: str | Path | None = None,
    *,
    set: Overrides = (),
    out: str | Path | None = None,
    quiet: bool = False,
) -> Version:
    """Pack what the stages made and register it; return the version. Raises Refused where the gate said no."""
    from boatyard import gating
    from boatyard.data.lineage import SECTIONS
    from boatyard.running import releasing
    from boatyard.settings import Settings

    found = resolve(project, set)
    judged = _path(verdict, found, "verdict.json")
    if not (said := gating.Verdict.read(judged)).passed:
        raise Refused(said.sentence)
    sections = {key: value for key, value in found.values().items() if key in SECTIONS or key in ("name", "task")}
    with _stage("push", quiet):
        return releasing.release(
            found.push,
            sections,
            dataset=_path(data, found, "dataset"),
            checkpoint=_path(trained, found, "checkpoint"),
            report=_path(report, found, "report"),
            verdict=judged,
            out=_out(out, found, "package"),
            root=found.root,
            retries=Settings().retries,
        )


def _train_on_cluster(
    project: Project, dataset: Path, out: Path, namespace: str | None, say: Callable[[str], None]
) -> Training:
    from boatyard.kubernetes import cluster
    from boatyard.training import trainjobs
    from boatyard.training.launchers import trainjob

    return trainjob.train(
        project.train,
        project.preprocess,
        project.gate,
        dataset,
        out,
        cluster=cluster.connect(),
        name=project.name,
        pod=trainjobs.pod_of(project),
        namespace=namespace,
        root=project.root,
        folder=project.kubeflow.folder,
        say=say,
    )


@contextlib.contextmanager
def _stage(name: str, quiet: bool) -> Iterator[None]:
    """Draw a stage's progress, and say in our words what the system refuses it."""
    from boatyard.running.display import drawn, open_display
    from boatyard.running.step import translated

    with drawn(open_display(quiet=quiet)), translated(name):
        yield


def _note(path: Path, numbers: dict[str, float]) -> None:
    """Leave a stage's numbers beside what it made, as a step does."""
    from boatyard.data import artifacts

    artifacts.write_numbers(path.with_name(f"{path.name}.numbers.json"), numbers)


def _out(out: str | Path | None, project: Project, name: str) -> Path:
    return (Path(out) if out else project.root / "build" / name).absolute()


def _path(made: Any, project: Project, name: str) -> Path:
    """Return where a stage's result is: its own path, the one given, or the project's `build/`."""
    return _out(getattr(made, "path", made), project, name)
