"""Two models on the same rows: bounds on how much worse the new one may be, of right rows and of errors."""

from __future__ import annotations

import math

import numpy as np

from boatyard.data.schema import Array
from boatyard.evaluation import intervals
from boatyard.gating.verdicts import Rule, shown, shown_margin, signed
from boatyard.project import NotWorseConfig

METHOD = "Hall and Student, Fieller"


def not_worse_rows(config: NotWorseConfig, new: Array, old: Array, title: str = "accuracy") -> Rule:
    """Non-inferiority of the share of rows that are right, by Tango's score bound.

    Passes when the one-sided lower bound of new - old lies above -margin.
    """
    wins, lost, rows = int((new & ~old).sum()), int((old & ~new).sum()), len(new)
    found = intervals.tango(wins, lost, rows, 2 * config.confidence - 1)[0]
    p = min(intervals.mcnemar(wins, lost), 1.0)
    detail = (
        f"{title} {shown(float(new.mean()))} against {shown(float(old.mean()))} on the same {rows} rows, "
        f"{wins} only this one got right, {lost} only production did; better: exact McNemar p = {p:.3g}"
    )
    return _not_worse(config, found, f"{title} minus production's is at least {found:+.4f}", "Tango's score", detail)


def not_worse_errors(config: NotWorseConfig, new: Array, old: Array, title: str = "mean absolute error") -> Rule:
    """Non-inferiority of the mean absolute error, by a bound of their ratio (Fieller).

    Passes when, with one-sided confidence, the error is less than 1 + margin times production's. A rule about a
    ratio needs no unit; testing the rows' new - (1 + margin) · old takes account of both means' uncertainty.
    """
    if not (np.isfinite(new).all() and np.isfinite(old).all()):
        whose = "this model" if not np.isfinite(new).all() else "production"
        sentence = f"not_worse: {whose} has predictions that are not finite: no number, no margin to compare"
        return Rule("not_worse", -config.margin, None, None, False, sentence)
    found = -error_growth(new, old, config.confidence)
    detail = f"{title} {shown(float(new.mean()))} against {shown(float(old.mean()))} on the same {len(new)} rows"
    if not math.isfinite(found):
        why = "no bound on how much the error grew could be found"
        if len(new) < intervals.MEAN_ROWS:
            why = f"{len(new)} test rows are too few to bound how much the error grew: {intervals.MEAN_ROWS} or more"
        sentence = f"not_worse: {why} ({detail}; {METHOD}), expected a growth of {shown(config.margin)} or less"
        return Rule("not_worse", -config.margin, None, None, False, sentence)
    claim = f"the {title} is at most {-found:+.2%} from production's"
    return _not_worse(config, found, claim, METHOD, detail)


def error_growth(new: Array, old: Array, confidence: float) -> float:
    """Return the one-sided upper bound of mean(new) / mean(old) - 1; infinite where there is none, 0 if all agree."""
    if np.array_equal(new, old):
        return 0.0
    return intervals.ratio(new, old, 2 * confidence - 1)[1] - 1


def _not_worse(config: NotWorseConfig, found: float, claim: str, method: str, detail: str) -> Rule:
    margin = found + config.margin
    passed = margin > 0
    rest = f"expected more than {signed(f'{-config.margin:+.4f}')}: margin {shown_margin(margin)}"
    level = f"with {config.confidence * 100:g} % confidence ({method})"
    return Rule("not_worse", -config.margin, found, margin, passed, f"not_worse: {claim} {level}, {rest} ({detail})")
