"""Not worse than production: the version in the registry is asked the same test rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from boatyard import packages, tasks
from boatyard.data.datasets import Dataset
from boatyard.data.schema import Array, Schema
from boatyard.evaluation import batch_size, measures, predictions
from boatyard.evaluation.report import PREDICTIONS, Report
from boatyard.gating.noninferiority import not_worse_errors, not_worse_rows
from boatyard.gating.verdicts import Rule, shown, shown_margin
from boatyard.prediction import Engine, OnnxRuntime
from boatyard.project import NotWorseConfig
from boatyard.running.progress import Progress


def compare(
    config: NotWorseConfig, report: Report, folder: Path, dataset: Dataset, production: Path | None
) -> tuple[Rule, list[str]]:
    """Make the rule "not worse than production", both asked the same test rows; and what qualifies it."""
    if production is None:
        sentence = "not_worse: no version in production yet: nothing to compare with"
        return Rule("not_worse", -config.margin, None, None, True, sentence), []
    package = packages.verify(production)
    if difference := schema_difference(dataset.schema, package.schema):
        sentence = (
            f"not_worse: the version in production cannot be asked the same rows: {difference}; no number, no margin "
            f"against the {shown(config.margin)} allowed; move the alias {config.alias} by hand or set gate.not_worse "
            "to null"
        )
        return Rule("not_worse", -config.margin, None, None, False, sentence), []
    if report.lineage.get("graph") == package.of("graph")[0].sha256:
        return _same(config), []
    notes = _leak(package.lineage.get("dataset"), dataset)
    old = answer(OnnxRuntime(package.model, package.schema), package.schema, dataset)
    new = tasks.of(dataset.schema).outcome(predictions.read(folder / PREDICTIONS, dataset.schema))
    return (not_worse_rows if new.dtype == bool else not_worse_errors)(config, new, old, _title(report)), notes


def _same(config: NotWorseConfig) -> Rule:
    """Pass the very model that is in production: no sample is needed to know that it is not worse than itself."""
    sentence = (
        "not_worse: it is the ONNX model that is in production, byte by byte: the difference is 0, "
        f"margin {shown_margin(config.margin)}"
    )
    return Rule("not_worse", -config.margin, 0.0, config.margin, True, sentence)


def schema_difference(new: Schema, old: Schema) -> str:
    """Say the first way in which two models do not answer the same question; empty when they do.

    What is only fitted (the range allowed, the categories seen) may differ.
    """
    if new.task != old.task:
        return f"it does {old.task}, this one {new.task}"
    ours = {f.name: (f.kind, f.dtype, f.shape) for f in new.fields}
    theirs = {f.name: (f.kind, f.dtype, f.shape) for f in old.fields}
    for name in [*theirs, *ours]:
        if ours.get(name) != theirs.get(name):
            return f"its field {name!r} is {_kind(theirs.get(name))}, here {_kind(ours.get(name))}"
    if list(ours) != list(theirs):
        return f"its fields come in the order {', '.join(theirs)}"
    if set(new.labels) != set(old.labels):
        return f"its labels are {', '.join(old.labels[:10])}, here {', '.join(new.labels[:10])}"
    return ""


def _kind(found: tuple[Any, ...] | None) -> str:
    return "not there" if found is None else f"{found[0]} {found[1]} {list(found[2])}"


def _leak(trained_on: Any, dataset: Dataset) -> list[str]:
    """Say that production may have learnt the very rows that it is now asked."""
    if trained_on == dataset.digest:
        return []
    return [
        f"production was trained on another dataset ({str(trained_on)[:12]}…): test rows of this one may have been "
        "among its training rows, which would flatter production and make the comparison stricter"
    ]


def answer(engine: Engine, schema: Schema, dataset: Dataset) -> Array:
    """Return the task's outcome of a model on the test rows: bool right [N], or float64 errors [N]."""
    task = tasks.of(schema)
    progress, parts = Progress("gate", dataset.rows("test"), "row"), []
    for batch in dataset.batches("test", batch_size(schema)):
        target = tasks.target_as(batch.target, dataset.schema, schema)
        parts.append(task.outcome(task.predictions(schema, target, engine.run(batch.inputs))))
        progress.update(len(batch))
    return np.concatenate(parts)


def _title(report: Report) -> str:
    """Say what the outcome's mean is called: accuracy, mean absolute error."""
    measure = measures.titled(report.slice_metric)
    title = measure.title if measure else report.slice_metric
    return title if title.isupper() else title[0].lower() + title[1:]
