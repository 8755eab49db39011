"""Each stage as a step runs it: plain values and paths in, files and numbers out; a component is one call of these.

A step's error is written where the runner looks (an `error` event beside the progress) and then raised; its numbers go
to a small JSON file as well as to the UI, because metrics cannot be read back from a Kubeflow backend.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boatyard.data import artifacts
from boatyard.data.lineage import SECTIONS, code_digest, environment, lineage
from boatyard.errors import ConfigError, Refused
from boatyard.project import (
    DataConfig,
    EvaluateConfig,
    GateConfig,
    PreprocessConfig,
    PushConfig,
    ServeConfig,
    StepConfig,
    TrainConfig,
    section,
)
from boatyard.running import releasing, results
from boatyard.running.step import PARENT, follow_parent, step
from boatyard.settings import Settings

if TYPE_CHECKING:
    from boatyard.evaluation.report import Report
    from boatyard.gating import Verdict
    from boatyard.preprocessing.distributed import PreprocessJob
    from boatyard.registry import Version

__all__ = [
    "PARENT",
    "SECTIONS",
    "code_digest",
    "deploy",
    "environment",
    "evaluate",
    "follow_parent",
    "gate",
    "lineage",
    "preprocess",
    "preprocess_clean",
    "preprocess_divide",
    "preprocess_join",
    "preprocess_look",
    "preprocess_merge",
    "preprocess_plan",
    "preprocess_profile",
    "preprocess_split",
    "preprocess_write",
    "push",
    "settle",
    "step",
    "train",
]

logger = logging.getLogger(__name__)
Numbers = dict[str, float]
Values = Mapping[str, Any]
OF_TRAINING = {"normalise", "encode", "augment"}  # of the section preprocess; the rest says what rows there are
ROWS = "rows"  # what a dataset calls files that a step before made: of a temporary folder their digests alone are kept


def preprocess(data: Values, how: Values, task: str, out: str, numbers: str, rows: str = "") -> Numbers:
    """Source files in, dataset out; return rows by split and rows dropped or repaired.

    `rows` are files that a step before made, read in place of `data.path`: the dataset calls that ROWS.
    """
    from boatyard import preprocessing

    with step("preprocess", out):
        dataset = preprocessing.preprocess(
            section(DataConfig, {**data, "path": ROWS} if rows else data),
            section(PreprocessConfig, how),
            Path(out),
            root=Settings().project,
            task=task,
            rows=Path(rows) if rows else None,
        )
        return artifacts.write_numbers(Path(numbers), dataset.numbers())


def preprocess_profile(data: Values, preprocess: Values, task: str, part: int, of: int, out: str) -> None:
    """Profile a part of the source files: what its columns are."""
    from boatyard.preprocessing import distributed

    with step("preprocess-profile", out):
        distributed.profile(_job(data, preprocess, task), part, of, Path(out))


def preprocess_plan(data: Values, how: Values, task: str, looks: Sequence[str], out: str) -> None:
    """Merge the profiles of the parts."""
    from boatyard.preprocessing import distributed

    with step("preprocess-plan", out):
        distributed.plan(_job(data, how, task), [Path(profile) for profile in looks], Path(out))


def preprocess_clean(data: Values, how: Values, task: str, part: int, of: int, plan: str, out: str) -> None:
    """Note what is wrong with the rows of a part."""
    from boatyard.preprocessing import distributed

    with step("preprocess-clean", out):
        distributed.clean(_job(data, how, task), Path(plan), part, of, Path(out))


def preprocess_split(data: Values, preprocess: Values, task: str, plan: str, notes: Sequence[str], out: str) -> None:
    """Decide for every row of all parts where it goes."""
    from boatyard.preprocessing import distributed

    with step("preprocess-split", out):
        distributed.split(_job(data, preprocess, task), Path(plan), [Path(part) for part in notes], Path(out))


def preprocess_write(
    data: Values, how: Values, task: str, part: int, of: int, plan: str, division: str, out: str
) -> None:
    """Write the rows of a part to their splits."""
    from boatyard.preprocessing import distributed

    with step("preprocess-write", out):
        distributed.write(_job(data, how, task), Path(plan), Path(division), part, of, Path(out))


def preprocess_merge(
    data: Values, preprocess: Values, task: str, plan: str, division: str, shards: Sequence[str], out: str, numbers: str
) -> Numbers:
    """Merge the parts to the dataset; return what `preprocess` does."""
    from boatyard.preprocessing import distributed

    with step("preprocess-merge", out):
        written = [Path(part) for part in shards]
        job = _job(data, preprocess, task)
        dataset = distributed.merge(job, Path(plan), Path(division), written, Path(out))
        return artifacts.write_numbers(Path(numbers), dataset.numbers())


def preprocess_look(data: Values, how: Values, task: str, part: int, of: int, out: str) -> None:
    """Do what `preprocess_profile` does, for pipelines that were compiled under this name."""
    preprocess_profile(data, how, task, part, of, out)


def preprocess_divide(data: Values, how: Values, task: str, plan: str, notes: Sequence[str], out: str) -> None:
    """Do what `preprocess_split` does, for pipelines that were compiled under this name."""
    preprocess_split(data, how, task, plan, notes, out)


def preprocess_join(
    data: Values, how: Values, task: str, plan: str, division: str, shards: Sequence[str], out: str, numbers: str
) -> Numbers:
    """Do what `preprocess_merge` does, for pipelines that were compiled under this name."""
    return preprocess_merge(data, how, task, plan, division, shards, out, numbers)


def _job(data: Values, preprocess: Values, task: str) -> PreprocessJob:
    from boatyard.preprocessing.distributed import PreprocessJob

    sections = section(DataConfig, data), section(PreprocessConfig, preprocess)
    return PreprocessJob(*sections, task, Settings().project)


def train(
    config: Values,
    how: Values,
    gate: Values,
    dataset: str,
    out: str,
    numbers: str,
    name: str = "train",
    pod: Values | None = None,
) -> Numbers:
    """Dataset in, checkpoint with the exported graph out; the gate's rules are sealed into it before the first step.

    The section's launcher starts the processes: one here, several on the cluster, as a TrainJob `name`-… whose pods ask
    for what `pod` says (the resources of a step).
    """
    from boatyard.training import launchers

    with step("train", out):
        launch = launchers.Launch(
            section(TrainConfig, config),
            section(PreprocessConfig, how),
            section(GateConfig, gate),
            Path(dataset),
            Path(out),
            name,
            section(StepConfig, pod or {}),
        )
        _check_made_so(launch.dataset, launch.preprocess)
        result = launchers.launcher(launch.train).train(launch)
        return artifacts.write_numbers(Path(numbers), result.numbers())


def _check_made_so(dataset: Path, preprocess: PreprocessConfig) -> None:
    """Raise ConfigError when a dataset's rows were made by other settings than training is given, and records."""
    manifest = artifacts.read_manifest(dataset, "dataset")
    made, given = section(PreprocessConfig, manifest.get("preprocess", {})).values(), preprocess.values()
    for key in sorted({*made, *given} - OF_TRAINING):
        if made.get(key) != given.get(key):
            raise ConfigError(
                f"preprocess.{key} of the train step",
                expected=f"{made.get(key)}, as the dataset was made",
                found=f"{given.get(key)}",
                fix="give train the section that preprocess had",
            )


def evaluate(config: Values, dataset: str, checkpoint: str, out: str, numbers: str) -> Report:
    """Dataset and checkpoint in, report out; return the report."""
    from boatyard import evaluation
    from boatyard.data import datasets

    with step("evaluate", out):
        report = evaluation.evaluate(
            section(EvaluateConfig, config), datasets.read(Path(dataset)), Path(checkpoint), Path(out)
        )
        artifacts.write_numbers(Path(numbers), report.numbers())
        return report


def gate(config: Values, push: Values, name: str, dataset: str, checkpoint: str, report: str, out: str) -> Verdict:
    """Report in, verdict out; the version in production, where there is one, is asked the same test rows."""
    with step("gate", out):
        settings = Settings()
        verdict = releasing.judge(
            section(GateConfig, config),
            section(PushConfig, push),
            name,
            dataset=Path(dataset),
            checkpoint=Path(checkpoint),
            report=Path(report),
            out=Path(out),
            root=settings.project,
            retries=settings.retries,
        )
        results.record("gate", _measured(Path(report), verdict), out)
        return verdict


def _measured(report: Path, verdict: Verdict) -> results.RunResult:
    """Return what a report opens with, and what the gate said of it."""
    from boatyard.evaluation.report import Report

    found = Report.read(report)
    metric = found.metrics[found.main]
    numbers = metric.value, metric.low, metric.high, found.confidence
    return results.RunResult(found.main, *numbers, verdict.passed, verdict.sentence)


def push(
    config: Values,
    project: Values,
    dataset: str,
    checkpoint: str,
    report: str,
    verdict: str,
    out: str,
) -> Version:
    """Everything in, package out, and into the registry; return the version."""
    with step("push", out):
        settings = Settings()
        version = releasing.release(
            section(PushConfig, config),
            project,
            dataset=Path(dataset),
            checkpoint=Path(checkpoint),
            report=Path(report),
            verdict=Path(verdict),
            out=Path(out),
            root=settings.project,
            retries=settings.retries,
        )
        pushed = results.RunResult(version=version.version, uri=version.uri, digest=version.digest)
        results.record("push", pushed, out)
        return version


def deploy(config: Values, version: str, uri: str, package: str, out: str, number: int | None = None) -> str:
    """Roll a version out and prove it; return the digest that serves.

    `number` is the version's in the registry; without it, as in older specs, the registry's URI may say it.
    Pods take the package from the registry where that is in a bucket, else from where the pipeline has it (`uri`).
    """
    from boatyard import deployment, packages, storage
    from boatyard.kubernetes import cluster

    with step("deploy", out):
        found = packages.verify(Path(package))
        place = next((one for one in (version, uri) if storage.in_bucket(one)), None)
        if number is None and (match := re.search(r"/versions/(\d+)/?$", version)):
            number = int(match[1])
        objects = deployment.manifests(found, section(ServeConfig, config), place, version=number)
        serves = deployment.deploy(cluster.connect(), objects, deployment.proof(found), say=logger.info)
        artifacts.write_json(Path(out), asdict(serves))
        return serves.digest


def settle(verdict: str) -> None:
    """End a run: raise Refused with the gate's sentence unless it passed."""
    from boatyard import gating

    with step("verdict", verdict):
        found = gating.Verdict.read(Path(verdict))
        if not found.passed:
            raise Refused(found.sentence)
        logger.info("%s", found.sentence)
