"""Gate: the rules of the project file, sealed before training, held against a report; a verdict with every number.

A verdict that says no is not an error: it is written like any other, so that a refusal is told apart from a crash
everywhere.
"""

from __future__ import annotations

import difflib
import logging
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from boatyard import packages, tasks
from boatyard.data import artifacts, checkpoints
from boatyard.data.datasets import Dataset
from boatyard.data.schema import Array, Schema
from boatyard.errors import ArtifactError, ConfigError
from boatyard.evaluation import batch_size, intervals, measures, predictions
from boatyard.evaluation.metrics import Metric
from boatyard.evaluation.report import PREDICTIONS, Report
from boatyard.prediction import Engine, OnnxRuntime
from boatyard.project import GateConfig, NotWorseConfig
from boatyard.running.progress import Progress

logger = logging.getLogger(__name__)
FILE = "verdict.json"


@dataclass(frozen=True)
class Rule:
    """One rule's outcome: `margin` is found - wanted (wanted - found for a maximum), so negative is what is missing.

    `found` and `margin` are None where there is no such number, which never passes.
    """

    name: str
    wanted: float | None
    found: float | None
    margin: float | None
    passed: bool
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """The gate's answer: yes or no, one sentence, every rule, and the digests of what it is about.

    `notes` qualify it without changing it. `digests` has graph, dataset, report, seal and, where compared, production.
    """

    passed: bool
    sentence: str
    rules: tuple[Rule, ...]
    notes: tuple[str, ...]
    digests: dict[str, str]

    def write(self, path: Path) -> None:
        """Write verdict.json, whole or not at all."""
        artifacts.write_json(path, {"format": 1, "kind": "verdict", **asdict(self)})

    @classmethod
    def read(cls, path: Path) -> Verdict:
        """Read verdict.json; raises ArtifactError when it is not one, or says yes where a rule says no."""
        value = artifacts.read_json(path)
        if not isinstance(value, dict) or value.get("kind") != "verdict" or value.get("format") != 1:
            raise ArtifactError(f"{path}: expected a verdict of format 1; run the gate again")
        try:
            given = {field.name: value[field.name] for field in fields(cls)}
            given["rules"] = tuple(Rule(**rule) for rule in given["rules"])
            verdict = cls(**{**given, "notes": tuple(given["notes"])})
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"{path} is not a verdict of this version ({error}); run the gate again") from error
        if not verdict.rules or verdict.passed is not all(rule.passed is True for rule in verdict.rules):
            raise ArtifactError(f"{path} contradicts its own rules; it was changed, run the gate again")
        return verdict


def gate(config: GateConfig, report: Path, checkpoint: Path, dataset: Dataset, *, production: Path | None) -> Verdict:
    """Hold a report against the rules and, on the same test rows, against the package in production.

    Raises ArtifactError when report, checkpoint and dataset do not belong together or were changed, ConfigError for a
    rule about a metric that the report does not have.
    """
    trained = checkpoints.read(checkpoint)
    found = Report.read(report)
    graph = artifacts.digest_file(trained.graph)
    _same("graph", found.lineage["graph"], graph, report, checkpoint)
    _same("dataset", found.lineage["dataset"], dataset.digest, report, dataset.path)
    digests = {"graph": graph, "dataset": dataset.digest, "report": found.digest, "seal": config.seal}
    rules = [sealed(config, trained.record.seal), *threshold_rules(config, found)]
    notes: list[str] = []
    if config.not_worse:
        rule, more = compare(config.not_worse, found, report, dataset, production)
        rules.append(rule)
        notes += more
        if production:
            digests["production"] = artifacts.digest_file(production / "package.json")
    answer = verdict(tuple(rules), tuple(notes), digests)
    logger.info("gate: %s", answer.sentence)
    return answer


def verdict(rules: tuple[Rule, ...], notes: tuple[str, ...], digests: dict[str, str]) -> Verdict:
    """Say yes when every rule does; the sentence has the rules that say no, or else all of them."""
    failed = [rule for rule in rules if not rule.passed]
    told = "; ".join(rule.sentence for rule in failed or rules)
    return Verdict(not failed, f"{'refused' if failed else 'passed'}: {told}", rules, notes, digests)


def _same(what: str, found: str, wanted: str, report: Path, other: Path) -> None:
    if found != wanted:
        raise ArtifactError(
            f"{report} is about {what} {found[:12]}…, {other} is {wanted[:12]}…: they do not belong together; "
            "evaluate again"
        )


def sealed(config: GateConfig, seal: Any) -> Rule:
    """The rules must be those that train wrote down before it started."""
    passed = seal == config.seal
    if passed:
        sentence = f"sealed: the rules are those that were frozen before training ({config.seal[:12]}…)"
    else:
        found = f"{seal[:12]}…" if isinstance(seal, str) and seal else "none"
        sentence = (
            f"sealed: the rules were changed after training (frozen then {found}, now {config.seal[:12]}…): "
            "train again under these rules or restore them"
        )
    return Rule("sealed", 1.0, float(passed), float(passed) - 1.0, passed, sentence)


def threshold_rules(config: GateConfig, report: Report) -> list[Rule]:
    """Make the rules that need the report alone; raises ConfigError for a metric it does not have."""
    _known(config, report)
    least = [_minimum(name, wanted, report, config.bound) for name, wanted in sorted(config.minimum.items())]
    most = [_maximum(name, wanted, report, config.bound) for name, wanted in sorted(config.maximum.items())]
    return [_rows(config.rows, report.rows), _finite(report), *least, *most]


def _known(config: GateConfig, report: Report) -> None:
    for section in ("minimum", "maximum"):
        for name in getattr(config, section):
            if name not in report.metrics:
                near = difflib.get_close_matches(name, report.metrics, n=len(report.metrics), cutoff=0.0)
                raise ConfigError(f"gate.{section}.{name}: the report has no such metric; it has {', '.join(near)}")


def _rows(wanted: int, found: int) -> Rule:
    sentence = f"rows: {found} test rows, expected {wanted} or more: margin {_signed(f'{found - wanted:+d}')}"
    return Rule("rows", float(wanted), float(found), float(found - wanted), found >= wanted, sentence)


def _finite(report: Report) -> Rule:
    bad = report.invalid
    what = tasks.named(report.task).valid
    sentence = f"invalid_predictions: {bad} of {report.rows} predictions are not {what}, expected none"
    if not bad:
        sentence = f"invalid_predictions: 0 of {report.rows}, expected none"
    return Rule("invalid_predictions", 0.0, float(bad), float(-bad), bad == 0, sentence)


def _minimum(name: str, wanted: float, report: Report, bound: str) -> Rule:
    metric = report.metrics[name]
    found = metric.low if bound == "interval" else metric.value
    if found is None:
        return _without(name, wanted, metric, report, "least")
    margin = found - wanted
    rest = f"expected {_f(wanted)} or more: margin {_margin(margin)} on {report.rows} rows"
    return Rule(
        name, wanted, found, margin, margin >= 0, f"{_claim(name, found, metric, report, bound, 'least')}, {rest}"
    )


def _maximum(name: str, wanted: float, report: Report, bound: str) -> Rule:
    metric = report.metrics[name]
    found = metric.high if bound == "interval" else metric.value
    if found is None:
        return _without(name, wanted, metric, report, "most")
    margin = wanted - found
    rest = f"expected {_f(wanted)} or less: margin {_margin(margin)} on {report.rows} rows"
    return Rule(
        name, wanted, found, margin, margin >= 0, f"{_claim(name, found, metric, report, bound, 'most')}, {rest}"
    )


def _claim(name: str, found: float, metric: Metric, report: Report, bound: str, side: str) -> str:
    if bound == "estimate":
        return f"{name} is {_f(found)} (estimate)"
    return f"{name} is at {side} {_f(found)} with {report.confidence * 100:g} % confidence ({metric.method})"


def _without(name: str, wanted: float, metric: Metric, report: Report, side: str) -> Rule:
    why = metric.note or "it has no interval; gate it by bound: estimate"
    if metric.value is not None and metric.method == "none":
        why = "it has no interval; gate it by bound: estimate"
    sentence = f"{name}: expected at {side} {_f(wanted)}, found no number on {report.rows} rows ({why})"
    return Rule(name, wanted, None, None, False, sentence)


def _margin(number: float) -> str:
    """Show how far a number is on the right side of its bound: +0.0347, or −0.0085 on the wrong one."""
    return _signed(f"{'-' if number < 0 else '+'}{_f(abs(number))}")


def _signed(number: str) -> str:
    return number.replace("-", "−")


def _f(number: float) -> str:
    """Show a number with four decimals, or as many digits as it needs not to look like 0."""
    return f"{number:.4f}" if number == 0 or 1e-3 <= abs(number) < 1e6 else f"{number:.4g}"


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
            f"against the {_f(config.margin)} allowed; move the alias {config.alias} by hand or set gate.not_worse "
            "to null"
        )
        return Rule("not_worse", -config.margin, None, None, False, sentence), []
    notes = _leak(package.lineage.get("dataset"), dataset)
    old = answer(OnnxRuntime(package.model, package.schema), package.schema, dataset)
    new = tasks.of(dataset.schema).outcome(predictions.read(folder / PREDICTIONS, dataset.schema))
    return (not_worse_rows if new.dtype == bool else not_worse_errors)(config, new, old, _title(report)), notes


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


def not_worse_rows(config: NotWorseConfig, new: Array, old: Array, title: str = "accuracy") -> Rule:
    """Non-inferiority of the share of rows that are right, by Tango's score bound.

    Passes when the one-sided lower bound of new - old lies above -margin.
    """
    wins, lost, rows = int((new & ~old).sum()), int((old & ~new).sum()), len(new)
    found = intervals.tango(wins, lost, rows, 2 * config.confidence - 1)[0]
    p = min(intervals.mcnemar(wins, lost), 1.0)
    detail = (
        f"{title} {_f(float(new.mean()))} against {_f(float(old.mean()))} on the same {rows} rows, "
        f"{wins} only this one got right, {lost} only production did; better: exact McNemar p = {p:.3g}"
    )
    return _not_worse(config, found, f"{title} minus production's is at least {found:+.4f}", "Tango's score", detail)


def not_worse_errors(config: NotWorseConfig, new: Array, old: Array, title: str = "mean absolute error") -> Rule:
    """Non-inferiority of the mean absolute error, by the paired t bound of their ratio (Fieller).

    Passes when, with one-sided confidence, the error is less than 1 + margin times production's. A rule about a
    ratio needs no unit; testing the rows' new - (1 + margin) · old takes account of both means' uncertainty.
    """
    if not (np.isfinite(new).all() and np.isfinite(old).all()):
        whose = "this model" if not np.isfinite(new).all() else "production"
        sentence = f"not_worse: {whose} has predictions that are not finite: no number, no margin to compare"
        return Rule("not_worse", -config.margin, None, None, False, sentence)
    found = -error_growth(new, old, config.confidence)
    detail = f"{title} {_f(float(new.mean()))} against {_f(float(old.mean()))} on the same {len(new)} rows"
    if not math.isfinite(found):
        sentence = (
            f"not_worse: no bound on how much the error grew could be found ({detail}; paired t, Fieller), "
            f"expected a growth of {_f(config.margin)} or less"
        )
        return Rule("not_worse", -config.margin, None, None, False, sentence)
    claim = f"the {title} is at most {-found:+.2%} from production's"
    return _not_worse(config, found, claim, "paired t, Fieller", detail)


def error_growth(new: Array, old: Array, confidence: float) -> float:
    """Return the one-sided upper bound of mean(new) / mean(old) - 1; infinite where there is none, 0 if all agree."""
    if np.array_equal(new, old):
        return 0.0

    def beyond(growth: float) -> bool:
        """Whether mean(new) is surely less than 1 + growth times mean(old)."""
        return intervals.student(new - (1 + growth) * old, 2 * confidence - 1)[1] < 0

    low, high = -1.0, 1.0
    while not beyond(high):
        low, high = high, high * 2
        if high > 1e6:
            return math.inf
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return high


def _not_worse(config: NotWorseConfig, found: float, claim: str, method: str, detail: str) -> Rule:
    margin = found + config.margin
    passed = margin > 0
    rest = f"expected more than {_signed(f'{-config.margin:+.4f}')}: margin {_margin(margin)}"
    level = f"with {config.confidence * 100:g} % confidence ({method})"
    return Rule("not_worse", -config.margin, found, margin, passed, f"not_worse: {claim} {level}, {rest} ({detail})")
