"""What a label that was given tells: confusion, recall and precision, F1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from boatyard.data.schema import Array
from boatyard.evaluation import intervals
from boatyard.evaluation.metrics.areas import AUC, one_auc
from boatyard.evaluation.metrics.values import Metric, metric, nothing, proportion

PER_CLASS = "Clopper-Pearson per class, MOVER"
JACCARD = "Clopper-Pearson on the Jaccard index"


@dataclass(frozen=True)
class ClassScore:
    """One label: how many rows have it (`support`), how many were given it (`predicted`), and its metrics."""

    label: str
    support: int
    predicted: int
    precision: Metric
    recall: Metric
    f1: Metric
    auc: Metric


def confusion(target: Array, predicted: Array, labels: int) -> Array:
    """Return int64 [K, K]: rows by true label, columns by predicted; predictions of -1 (invalid) are in none."""
    valid = predicted >= 0
    cells = target[valid].astype(np.int64) * labels + predicted[valid]
    return np.bincount(cells, minlength=labels * labels).reshape(labels, labels)


def balanced_accuracy(table: Array, support: Array, confidence: float) -> Metric:
    """Mean recall of the labels that occur; interval from each recall's own (exact, combined by MOVER)."""
    seen = support > 0
    recall = np.diag(table)[seen] / support[seen]
    low, high = intervals.clopper_pearson(np.diag(table)[seen], support[seen], confidence)
    pair = intervals.mover(recall, low, high)
    return of_all_labels(float(recall.mean()), pair, PER_CLASS, support)


def of_all_labels(value: float, pair: tuple[float, float], method: str, support: Array) -> Metric:
    """Make a mean over labels: without an interval where a label has no test row, which could be anything."""
    unseen, rows = int((support == 0).sum()), int(support.sum())
    if not unseen:
        return metric(value, pair, method, rows)
    note = f"labels left out, having no test row: {unseen}"
    return metric(value, (-math.inf, math.inf), method, rows, note, "too few rows for an interval")


def f1_scores(table: Array, support: Array) -> Array:
    """Return F1 per label of tables [..., K, K]; NaN for a label that neither occurs nor is predicted."""
    hits = np.diagonal(table, axis1=-2, axis2=-1)
    both = support + table.sum(axis=-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(2 * hits / both)


def macro_f1(table: Array, support: Array, confidence: float) -> Metric:
    """Mean F1 of the labels that occur or are predicted; interval from each F1's own, combined by MOVER."""
    given = table.sum(axis=0)
    some = support + given > 0
    hits = np.diag(table)[some]
    misses = (support + given)[some] - 2 * hits
    values = 2 * hits / (2 * hits + misses)
    low, high = _f1_interval(hits, misses, confidence)
    pair = intervals.mover(values, low, high, _f1_correlation(table[np.ix_(some, some)], values, hits, misses))
    return of_all_labels(float(values.mean()), pair, PER_CLASS, support)


def _f1_correlation(table: Array, values: Array, hits: Array, misses: Array) -> Array:
    """Correlate the labels' F1 by the delta method: a row that is wrong lowers those of two labels.

    A label whose F1 is 0 or 1 shows no variance to go by; it counts as wholly correlated, which is wider.
    """
    both = 2 * hits + misses
    lost = values / both  # of F1 by one row more in its row or column of the table
    covariance = (table + table.T) * np.outer(lost, lost)
    np.fill_diagonal(covariance, hits * ((2 - 2 * values) / both) ** 2 + misses * lost**2)
    spread = np.sqrt(np.diag(covariance))
    known = (values > 0) & (values < 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = covariance / np.outer(spread, spread)
    return np.where(np.outer(known, known), np.clip(np.nan_to_num(found), 0, 1), 1.0)


def _f1_interval(hits: Any, misses: Any, confidence: float) -> tuple[Array, Array]:
    """The exact interval of hits among hits and misses, carried over to F1 = 2J / (1 + J), which rises with J."""
    low, high = intervals.clopper_pearson(hits, np.asarray(hits) + misses, confidence)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def class_scores(
    labels: Sequence[str], target: Array, predicted: Array, probabilities: Array, confidence: float
) -> tuple[ClassScore, ...]:
    """Measure every label on its own: precision, recall and F1 (exact), AUC."""
    table = confusion(target, predicted, len(labels))
    support = np.bincount(target, minlength=len(labels))
    given = table.sum(axis=0)
    broken = bool((predicted < 0).any())
    scores = []
    for k, label in enumerate(labels):
        hits = int(table[k, k])
        area = (
            nothing(AUC, len(target), "some predictions are not a distribution")
            if broken
            else one_auc(target == k, probabilities[:, k], confidence)
        )
        scores.append(
            ClassScore(
                label,
                int(support[k]),
                int(given[k]),
                proportion(hits, int(given[k]), confidence, "" if given[k] else "never predicted"),
                proportion(hits, int(support[k]), confidence, "" if support[k] else "no test row has this label"),
                f1(hits, int(support[k] + given[k]) - 2 * hits, confidence),
                area,
            )
        )
    return tuple(scores)


def f1(hits: int, misses: int, confidence: float) -> Metric:
    """Return the F1 of one label from its hits and its misses of both sorts."""
    if hits + misses == 0:
        return nothing(JACCARD, 0, "neither occurs nor is predicted")
    low, high = _f1_interval(hits, misses, confidence)
    return metric(2 * hits / (2 * hits + misses), (float(low), float(high)), JACCARD, hits + misses)
