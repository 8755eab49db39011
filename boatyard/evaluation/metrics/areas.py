"""ROC curves and the areas under them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from boatyard.data.schema import Array
from boatyard.evaluation import intervals
from boatyard.evaluation.metrics.values import Metric, metric, nothing

if TYPE_CHECKING:
    from boatyard.evaluation.metrics.labels import ClassScore

AUC, FEW_AUC = "Korn-Graubard and Newcombe", "Birnbaum-Klose"
CURVES = 20  # labels with a ROC curve of their own, the worst first


@dataclass(frozen=True)
class Roc:
    """A label's ROC curve: false and true positive rates and finite thresholds, rising rates, falling thresholds."""

    label: str
    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    thresholds: tuple[float, ...]


def auc(target: Array, probabilities: Array, confidence: float) -> Metric:
    """Return the mean one-against-the-rest area under the ROC curve; of two labels, the second's.

    The mean's interval is made of the labels' own (MOVER). How far these are correlated comes from the rows' influence,
    summed over the labels, so that what the curves share is counted.
    """
    rows, labels = probabilities.shape
    counts = np.bincount(target, minlength=labels)
    asked = range(labels) if labels > 2 else [labels - 1]
    usable = [k for k in asked if 0 < counts[k] < rows]
    if not usable:
        return nothing(AUC, rows, "the test rows have one label only")
    if len(usable) == 1 and labels == 2:
        return one_auc(target == usable[0], probabilities[:, usable[0]], confidence)
    areas, down, up = [], _Joined(rows), _Joined(rows)
    for k in usable:
        area, influence = delong(target == k, probabilities[:, k])
        low, high = _ends(area, influence, int(counts[k]), confidence)
        areas.append(area)
        down.add(area - low, influence)
        up.add(high - area, influence)
    value = float(np.mean(areas))
    pair = value - down.length() / len(usable), value + up.length() / len(usable)
    if left_out := len(asked) - len(usable):
        note = f"labels left out, having no test row: {left_out}"
        return metric(value, (-math.inf, math.inf), AUC, rows, note, "too few rows for an interval")
    return metric(value, pair, _method(int(counts.min()), rows), rows)


@dataclass
class _Joined:
    """Distances to the ends of several intervals, joined by what their rows' influence has in common."""

    rows: int
    sure: float = 0.0  # of areas without a variance: as if wholly correlated, which is wider

    def __post_init__(self) -> None:
        self.influence = np.zeros(self.rows)

    def add(self, distance: float, influence: Array) -> None:
        error = math.sqrt(float(influence @ influence))
        if error <= 1e-6:
            self.sure += distance
        else:
            self.influence += influence * (distance / error)

    def length(self) -> float:
        return self.sure + math.sqrt(float(self.influence @ self.influence))


def one_auc(positive: Array, score: Array, confidence: float) -> Metric:
    """Return the area of one label against the rest."""
    count, rows = int(positive.sum()), len(positive)
    if not 0 < count < rows:
        return nothing(AUC, rows, "needs rows with this label and rows without")
    value, influence = delong(positive, score)
    return metric(value, _ends(value, influence, count, confidence), _method(count, rows), rows)


def _ends(area: float, influence: Array, positives: int, confidence: float) -> tuple[float, float]:
    negatives = len(influence) - positives
    return intervals.auc(area, float(influence @ influence), positives, negatives, confidence)


def _method(positives: int, rows: int) -> str:
    return FEW_AUC if min(positives, rows - positives) < intervals.CERTAIN else AUC


def delong(positive: Array, score: Array) -> tuple[float, Array]:
    """Return an area under the ROC curve (ties count half) and the rows' influence: its squares sum to the variance.

    E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Comparing the areas under two or more correlated receiver
    operating characteristic curves, Biometrics 44 (1988) 837-845.
    """
    m, n = int(positive.sum()), int((~positive).sum())
    whole = midranks(score)
    above = (whole[positive] - midranks(score[positive])) / n  # of each positive: the share of negatives below it
    below = 1 - (whole[~positive] - midranks(score[~positive])) / m
    area = float(above.mean())
    influence = np.empty(len(score))
    influence[positive] = (above - area) / math.sqrt(m * max(m - 1, 1))
    influence[~positive] = (below - area) / math.sqrt(n * max(n - 1, 1))
    return area, influence


def midranks(values: Array) -> Array:
    """Return float64 ranks from 1, equal values sharing the mean of theirs."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[which])


def roc(positive: Array, score: Array, label: str, points: int = 120) -> Roc | None:
    """Return a ROC curve of at most about `points` points; None when only one side has rows."""
    if not 0 < positive.sum() < len(positive):
        return None
    order = np.argsort(-score, kind="stable")
    ordered, hits = score[order], np.cumsum(positive[order])
    last = np.flatnonzero(np.append(np.diff(ordered) != 0, True))  # the end of each run of equal scores
    tpr = hits[last] / hits[-1]
    fpr = (last + 1 - hits[last]) / (len(score) - hits[-1])
    keep = _thin(tpr, fpr, points)
    first = float(np.nextafter(ordered[0], np.inf, dtype=np.float32))  # above every score: nothing is positive
    return Roc(
        label,
        (0.0, *map(float, fpr[keep])),
        (0.0, *map(float, tpr[keep])),
        (first, *map(float, ordered[last[keep]])),
    )


def worst_rocs(classes: Sequence[ClassScore], target: Array, probabilities: Array) -> tuple[Roc, ...]:
    """Return curves of the labels with the smallest area, in the order of the labels; of two labels, the second's."""
    measured = [k for k, score in enumerate(classes) if score.auc.value is not None]
    if len(classes) == 2:
        measured = measured[-1:]
    worst = sorted(measured, key=lambda k: classes[k].auc.value or 0.0)[:CURVES]
    curves = (roc(target == k, probabilities[:, k], classes[k].label) for k in sorted(worst))
    return tuple(curve for curve in curves if curve)


def _thin(tpr: Array, fpr: Array, points: int) -> Array:
    """Choose points evenly along the curve's length, the ends included."""
    if len(tpr) <= points:
        return np.arange(len(tpr))
    along = tpr + fpr
    return np.unique(np.append(np.searchsorted(along, np.linspace(0, 2, points)).clip(0, len(tpr) - 1), len(tpr) - 1))
