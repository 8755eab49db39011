"""Metrics of predictions, each with its interval and the interval's name. Pure numpy: arrays in, values out.

A prediction that is not a number, or not a distribution over the labels, is invalid: it counts as wrong, and metrics
that need all the numbers have no value, with a note that says why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from boatyard.data.schema import Array
from boatyard.evaluation import intervals

CLIP = float(np.finfo(np.float32).eps)  # a probability of exactly 0 would make the log loss infinite
CURVES = 20  # labels with a ROC curve of their own, the worst first
TOP = 3  # of top_3_accuracy, where there are more labels than that


@dataclass(frozen=True, repr=False)
class Metric:
    """A number with its interval: `value`, `low`, `high` are finite or None; `method` names the interval, `n` the rows.

    `note` says what a reader has to know, such as why there is no value.
    """

    value: float | None
    low: float | None
    high: float | None
    method: str
    n: int
    note: str = ""

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        """Say it on one line: 0.9053 [0.8994, 0.9109] Wilson, 10000 rows."""
        if self.value is None:
            return f"no value: {self.note}"
        interval = "" if self.low is None or self.high is None else f" [{self.low:.4f}, {self.high:.4f}] {self.method}"
        return f"{self.value:.4f}{interval}, {self.n} rows"


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


@dataclass(frozen=True)
class Bin:
    """One bin of the calibration curve: confidences in (low, high], their mean, the share right and its interval."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float


@dataclass(frozen=True)
class Roc:
    """A label's ROC curve: false and true positive rates and finite thresholds, rising rates, falling thresholds."""

    label: str
    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    thresholds: tuple[float, ...]


def metric(value: float, interval: tuple[float, float], method: str, n: int, note: str = "") -> Metric:
    """Make a metric; what is not finite becomes None."""
    low, high = (float(end) if math.isfinite(end) else None for end in interval)
    if n < 2 and method.startswith(("bootstrap", "Student")):
        low, high = None, None
        note = note or "one row: no interval"
    return Metric(float(value) if math.isfinite(value) else None, low, high, method, n, note)


def nothing(method: str, n: int, note: str) -> Metric:
    """Make a metric that has no value, and say why."""
    return Metric(None, None, None, method, n, note)


def proportion(successes: int, rows: int, confidence: float, note: str = "") -> Metric:
    """Make a metric of a share of rows, with Wilson's interval."""
    if rows == 0:
        return nothing("Wilson", 0, note or "no rows")
    low, high = intervals.wilson(successes, rows, confidence)
    return metric(successes / rows, (float(low), float(high)), "Wilson", rows, note)


def invalid_rows(probabilities: Array) -> Array:
    """Return bool [N]: the rows of [N, K] that are not a distribution (not finite, negative, or not adding up to 1)."""
    with np.errstate(all="ignore"):
        total = probabilities.sum(axis=1, dtype=np.float64)
        good = np.isfinite(probabilities).all(axis=1) & (probabilities >= -1e-6).all(axis=1) & (abs(total - 1) <= 1e-3)
    return np.asarray(~good)


def confusion(target: Array, predicted: Array, labels: int) -> Array:
    """Return int64 [K, K]: rows by true label, columns by predicted; predictions of -1 (invalid) are in none."""
    valid = predicted >= 0
    cells = target[valid].astype(np.int64) * labels + predicted[valid]
    return np.bincount(cells, minlength=labels * labels).reshape(labels, labels)


def balanced_accuracy(table: Array, support: Array, confidence: float) -> Metric:
    """Mean recall of the labels that occur; interval from each recall's own (Wilson, combined by MOVER)."""
    seen = support > 0
    recall = np.diag(table)[seen] / support[seen]
    low, high = intervals.wilson(np.diag(table)[seen], support[seen], confidence)
    note = "" if seen.all() else f"labels left out, having no test row: {int((~seen).sum())}"
    pair = intervals.mover(recall, low, high)
    return metric(float(recall.mean()), pair, "Wilson per class, MOVER", int(support.sum()), note)


def f1_scores(table: Array, support: Array) -> Array:
    """Return F1 per label of tables [..., K, K]; NaN for a label that neither occurs nor is predicted."""
    hits = np.diagonal(table, axis1=-2, axis2=-1)
    both = support + table.sum(axis=-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(2 * hits / both)


def macro_f1(table: Array, support: Array, confidence: float, bootstrap: int, seed: int) -> Metric:
    """Mean F1 of the labels that occur or are predicted; bootstrap of the confusion matrix.

    Where every row is right there is nothing to resample: the lower end is then the mean of the labels' own.
    """
    scores = f1_scores(table, support)
    value, rows = float(np.nanmean(scores)), int(support.sum())
    if table.trace() == rows:
        low = np.mean([_f1_interval(int(n), 0, confidence)[0] for n in support[support > 0]])
        return metric(value, (float(low), 1.0), "mean of Wilson per class (every row is right)", rows)
    lost = support - table.sum(axis=1)  # invalid predictions: a column of their own, so that they are resampled too
    wide = np.concatenate([table, lost[:, None]], axis=1)
    values = []
    for start in range(0, bootstrap, step := max(1, intervals.CHUNK_BYTES // (8 * wide.size))):
        drawn = intervals.resample_counts(wide, min(step, bootstrap - start), seed + start)
        with np.errstate(invalid="ignore"):
            values.append(_nanmean(f1_scores(drawn[..., :-1], drawn.sum(axis=-1))))
    pair = intervals.percentile(np.concatenate(values), value, confidence)
    return metric(value, pair, "bootstrap percentile", rows)


def _nanmean(values: Array) -> Array:
    """Mean over the last axis of what is not NaN, silent where all is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0).sum(axis=-1) / known.sum(axis=-1))


def _f1_interval(hits: int, misses: int, confidence: float) -> tuple[float, float]:
    """Wilson's interval of hits among hits and misses, carried over to F1 = 2J / (1 + J), which rises with J."""
    low, high = intervals.wilson(hits, hits + misses, confidence)
    return float(2 * low / (1 + low)), float(2 * high / (1 + high))


def class_scores(
    labels: Sequence[str], target: Array, predicted: Array, probabilities: Array, confidence: float
) -> tuple[ClassScore, ...]:
    """Measure every label on its own: precision and recall (Wilson), F1 (Wilson on the Jaccard index), AUC (DeLong)."""
    table = confusion(target, predicted, len(labels))
    support = np.bincount(target, minlength=len(labels))
    given = table.sum(axis=0)
    broken = bool((predicted < 0).any())
    scores = []
    for k, label in enumerate(labels):
        hits = int(table[k, k])
        area = (
            nothing("DeLong", len(target), "some predictions are not a distribution")
            if broken
            else _one_auc(target == k, probabilities[:, k], confidence)
        )
        scores.append(
            ClassScore(
                label,
                int(support[k]),
                int(given[k]),
                proportion(hits, int(given[k]), confidence, "" if given[k] else "never predicted"),
                proportion(hits, int(support[k]), confidence, "" if support[k] else "no test row has this label"),
                _f1(hits, int(support[k] + given[k]) - 2 * hits, confidence),
                area,
            )
        )
    return tuple(scores)


def _f1(hits: int, misses: int, confidence: float) -> Metric:
    if hits + misses == 0:
        return nothing("Wilson on the Jaccard index", 0, "neither occurs nor is predicted")
    value = 2 * hits / (2 * hits + misses)
    return metric(value, _f1_interval(hits, misses, confidence), "Wilson on the Jaccard index", hits + misses)


def row_loss(target: Array, probabilities: Array) -> Array:
    """Return float64 [N]: -log of the probability given to the true label, which is clipped to float32's resolution."""
    given = probabilities[np.arange(len(target)), target].astype(np.float64)
    return np.asarray(-np.log(np.clip(given, CLIP, 1 - CLIP)))


def row_brier(target: Array, probabilities: Array) -> Array:
    """Return float64 [N]: the squared distance to the truth, summed over the labels (halved for two, as is usual)."""
    p = probabilities.astype(np.float64)
    given = p[np.arange(len(target)), target]
    whole = (p**2).sum(axis=1) - 2 * given + 1
    return np.asarray(whole / 2 if p.shape[1] == 2 else whole)


def probabilistic(
    target: Array, right: Array, probabilities: Array, *, confidence: float, bootstrap: int, bins: int, seed: int
) -> dict[str, Metric]:
    """Log loss, Brier and calibration errors, from one bootstrap of the rows' contributions to sums."""
    rows = len(target)
    top = probabilities.max(axis=1).astype(np.float64)
    which = bin_of(top, bins)
    gaps = np.zeros((rows, bins))
    gaps[np.arange(rows), which] = right - top
    parts = np.column_stack([row_loss(target, probabilities), row_brier(target, probabilities), gaps])
    sums = intervals.resample_sums(parts, bootstrap, seed) / rows
    means = parts.mean(axis=0)
    ece, eces = float(abs(means[2:]).sum()), abs(sums[:, 2:]).sum(axis=1)
    named = "bootstrap percentile"
    return {
        "log_loss": metric(means[0], intervals.percentile(sums[:, 0], means[0], confidence), named, rows),
        "brier": metric(means[1], intervals.percentile(sums[:, 1], means[1], confidence), named, rows),
        "ece": metric(
            ece,
            intervals.percentile(eces, ece, confidence),
            named,
            rows,
            f"{bins} equal bins of the top label's probability; biased upwards on few rows",
        ),
        "calibration_rmse": _debiased(right, top, which, bins),
    }


def _debiased(right: Array, top: Array, which: Array, bins: int) -> Metric:
    """Root mean square calibration error less what chance alone gives, from bins of two rows or more.

    A. Kumar, P. Liang, T. Ma, Verified uncertainty calibration, NeurIPS 2019, section 4.
    """
    counts = np.bincount(which, minlength=bins)
    full = counts > 1
    if not full.any():
        return nothing("none", len(top), "every bin holds one row")
    n = counts[full]
    accuracy = np.bincount(which, right, bins)[full] / n
    gap = accuracy - np.bincount(which, top, bins)[full] / n
    squared = (n * (gap**2 - accuracy * (1 - accuracy) / (n - 1))).sum() / n.sum()
    note = "root mean square, less the part that chance alone gives (Kumar 2019)"
    return Metric(math.sqrt(max(float(squared), 0.0)), None, None, "none", len(top), note)


def bin_of(confidence: Array, bins: int) -> Array:
    """Return int [N]: the equal-width bin (low, high] of numbers from 0 to 1."""
    return np.asarray(np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1))


def calibration(right: Array, top: Array, bins: int, confidence: float) -> tuple[Bin, ...]:
    """Return the calibration curve of the top label's probability, bins without rows left out."""
    which = bin_of(top, bins)
    counts, hits = np.bincount(which, minlength=bins), np.bincount(which, right, bins)
    mean = np.bincount(which, top, bins) / np.maximum(counts, 1)
    low, high = intervals.wilson(hits, counts, confidence)
    return tuple(
        Bin(
            b / bins,
            (b + 1) / bins,
            int(counts[b]),
            float(mean[b]),
            float(hits[b] / counts[b]),
            float(low[b]),
            float(high[b]),
        )
        for b in np.flatnonzero(counts)
    )


def top_hits(target: Array, probabilities: Array, k: int) -> Array:
    """Return bool [N]: whether fewer than k other labels got as much as the true one (ties count against it)."""
    given = probabilities[np.arange(len(target)), target]
    return np.asarray((probabilities >= given[:, None]).sum(axis=1) - 1 < k)


def auc(target: Array, probabilities: Array, confidence: float) -> Metric:
    """Return the mean one-against-the-rest area under the ROC curve (of two labels: the second's), DeLong's interval.

    E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Comparing the areas under two or more correlated receiver
    operating characteristic curves, Biometrics 44 (1988) 837-845. The mean's variance sums the rows' influence over the
    labels, so that what the curves share is counted.
    """
    rows, labels = probabilities.shape
    counts = np.bincount(target, minlength=labels)
    usable = [k for k in (range(labels) if labels > 2 else [labels - 1]) if 0 < counts[k] < rows]
    if not usable:
        return nothing("DeLong", rows, "the test rows have one label only")
    areas, influence = [], np.zeros(rows)
    for k in usable:
        area, part = delong(target == k, probabilities[:, k])
        areas.append(area)
        influence += part / len(usable)
    value, fewest = float(np.mean(areas)), int(counts[usable].min())
    variance = float((influence**2).sum())
    pair = intervals.auc(value, variance, fewest, rows - fewest, confidence)
    left_out = (labels if labels > 2 else 1) - len(usable)
    note = f"labels left out, having no test row: {left_out}" if left_out else ""
    return metric(value, pair, _auc_method(value, variance, fewest, rows), rows, note)


def _one_auc(positive: Array, score: Array, confidence: float) -> Metric:
    count, rows = int(positive.sum()), len(positive)
    if not 0 < count < rows:
        return nothing("DeLong", rows, "needs rows with this label and rows without")
    value, influence = delong(positive, score)
    variance = float((influence**2).sum())
    pair = intervals.auc(value, variance, count, rows - count, confidence)
    return metric(value, pair, _auc_method(value, variance, count, rows), rows)


def _auc_method(value: float, variance: float, positives: int, rows: int) -> str:
    return (
        "Newcombe's score" if intervals.no_variance(value, variance, positives, rows - positives) else "DeLong, logit"
    )


def delong(positive: Array, score: Array) -> tuple[float, Array]:
    """Return an area under the ROC curve (ties count half) and the rows' influence: its squares sum to the variance."""
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


def regression(
    target: Array, values: Array, *, confidence: float = 0.95, bootstrap: int = 1000, seed: int = 0
) -> dict[str, Metric]:
    """Measure N ≥ 1 predicted numbers: target and values float [N]."""
    rows = len(target)
    bad = int((~np.isfinite(values)).sum())
    if bad:
        note = f"{bad} of {rows} predictions are not finite"
        return {name: nothing("", rows, note) for name in ("rmse", "mae", "median_absolute_error", "r2", "bias")}
    error = values.astype(np.float64) - target.astype(np.float64)
    centred = target.astype(np.float64) - float(np.mean(target, dtype=np.float64))
    size = abs(error)
    sums = intervals.resample_sums(np.column_stack([error**2, centred, centred**2]), bootstrap, seed) / rows
    rmse = math.sqrt(float(np.mean(error**2)))
    return {
        "rmse": metric(
            rmse,
            intervals.percentile(np.sqrt(np.maximum(sums[:, 0], 0)), rmse, confidence),
            "bootstrap percentile",
            rows,
        ),
        "mae": metric(float(size.mean()), _above(intervals.student(size, confidence)), "Student's t", rows),
        "median_absolute_error": metric(
            float(np.median(size)), intervals.median(size, confidence), "order statistics", rows
        ),
        "r2": _r2(error, centred, sums, confidence),
        "bias": metric(float(error.mean()), intervals.student(error, confidence), "Student's t", rows),
    }


def _above(pair: tuple[float, float]) -> tuple[float, float]:
    return max(pair[0], 0.0) if math.isfinite(pair[0]) else pair[0], pair[1]


def _r2(error: Array, centred: Array, sums: Array, confidence: float) -> Metric:
    """1 - residual / total sum of squares; a resample has a mean of its own, hence the two sums of the target."""
    rows, total = len(error), float(np.mean(centred**2))
    if total <= 0:
        return nothing("bootstrap percentile", rows, "the target is constant: there is nothing to explain")
    value = 1 - float(np.mean(error**2)) / total
    spread = sums[:, 2] - sums[:, 1] ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.where(spread > 1e-12 * total, 1 - sums[:, 0] / spread, np.nan)
    return metric(value, intervals.percentile(values, value, confidence), "bootstrap percentile", rows)


def numbers(found: Mapping[str, Metric]) -> dict[str, float]:
    """Return the values and interval ends as a flat dict of finite floats: accuracy, accuracy_low, accuracy_high …"""
    flat: dict[str, float] = {}
    for name, one in found.items():
        for suffix, value in (("", one.value), ("_low", one.low), ("_high", one.high)):
            if value is not None:
                flat[name + suffix] = value
    return flat
