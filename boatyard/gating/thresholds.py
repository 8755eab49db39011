"""The rules that need the report alone: enough rows, no invalid prediction, measures above or below their bounds."""

from __future__ import annotations

from typing import Any

from boatyard import tasks
from boatyard.errors import ConfigError
from boatyard.evaluation.metrics import Metric
from boatyard.evaluation.report import Report
from boatyard.gating.verdicts import Rule, shown, shown_margin, signed
from boatyard.project import GateConfig
from boatyard.spelling import hint


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
                near = hint(name, report.metrics, said="it has")
                raise ConfigError(f"gate.{section}.{name}: the report has no such metric", fix=f"{near}")


def _rows(wanted: int, found: int) -> Rule:
    sentence = f"rows: {found} test rows, expected {wanted} or more: margin {signed(f'{found - wanted:+d}')}"
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
    rest = f"expected {shown(wanted)} or more: margin {shown_margin(margin)} on {report.rows} rows"
    return Rule(
        name, wanted, found, margin, margin >= 0, f"{_claim(name, found, metric, report, bound, 'least')}, {rest}"
    )


def _maximum(name: str, wanted: float, report: Report, bound: str) -> Rule:
    metric = report.metrics[name]
    found = metric.high if bound == "interval" else metric.value
    if found is None:
        return _without(name, wanted, metric, report, "most")
    margin = wanted - found
    rest = f"expected {shown(wanted)} or less: margin {shown_margin(margin)} on {report.rows} rows"
    return Rule(
        name, wanted, found, margin, margin >= 0, f"{_claim(name, found, metric, report, bound, 'most')}, {rest}"
    )


def _claim(name: str, found: float, metric: Metric, report: Report, bound: str, side: str) -> str:
    if bound == "estimate":
        return f"{name} is {shown(found)} (estimate)"
    return f"{name} is at {side} {shown(found)} with {report.confidence * 100:g} % confidence ({metric.method})"


def _without(name: str, wanted: float, metric: Metric, report: Report, side: str) -> Rule:
    """Refuse what has no number to hold to the bound, and say why: too few rows for an interval, as a rule."""
    missing, why = "number", metric.note
    if metric.value is not None:
        missing = "interval"
        why = why if why and metric.method != "none" else "it has no interval"
        why += "; gate it by bound: estimate"
    sentence = f"{name}: expected at {side} {shown(wanted)}, found no {missing} on {report.rows} rows ({why})"
    return Rule(name, wanted, None, None, False, sentence)
