"""What probabilities tell: log loss, Brier score, calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from boatyard.data.schema import Array
from boatyard.evaluation import intervals
from boatyard.evaluation.metrics.values import MEAN, Metric, metric, nothing

CLIP = float(np.finfo(np.float32).eps)  # a probability of exactly 0 would make the log loss infinite
TOP = 3  # of top_3_accuracy, where there are more labels than that

BETTING, BANDS = "betting", "what chance gives, by bin"
GAPS = 25  # squared gaps, summed over the rows, from which their mean is about normal


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


def invalid_rows(probabilities: Array) -> Array:
    """Return bool [N]: the rows of [N, K] that are not a distribution (not finite, negative, or not adding up to 1)."""
    with np.errstate(all="ignore"):
        total = probabilities.sum(axis=1, dtype=np.float64)
        good = np.isfinite(probabilities).all(axis=1) & (probabilities >= -1e-6).all(axis=1) & (abs(total - 1) <= 1e-3)
    return np.asarray(~good)


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
    target: Array, right: Array, probabilities: Array, *, confidence: float, bins: int, seed: int
) -> dict[str, Metric]:
    """Log loss, Brier and calibration errors."""
    top = probabilities.max(axis=1).astype(np.float64)
    which = bin_of(top, bins)
    greatest = 1.0 if probabilities.shape[1] == 2 else 2.0
    return {
        "log_loss": _bounded(row_loss(target, probabilities), -math.log(CLIP), confidence, seed),
        "brier": _bounded(row_brier(target, probabilities), greatest, confidence, seed),
        "ece": _ece(right, top, which, bins, confidence),
        "calibration_rmse": _debiased(right, top, which, bins),
    }


def _bounded(values: Array, greatest: float, confidence: float, seed: int) -> Metric:
    method = MEAN if intervals.spread_enough(values, greatest) else BETTING
    pair = intervals.bounded(values, greatest, confidence, seed)
    return metric(float(values.mean()), pair, method, len(values))


def _ece(right: Array, top: Array, which: Array, bins: int, confidence: float) -> Metric:
    """Expected calibration error. Chance alone makes it greater than it is, so its ends are made apart.

    With w the share of rows and g the gap of a bin, ece = Σ w|g| ≥ Σ ± w g for any signs, those of the true gaps too:
    the truth is above the estimate only by as much as a mean of rows' gaps may be off, whose variance is at most
    their mean square. And the truth is below it by no more than Σ w|g - true g|, which for calm gaps is a sum of folded
    normal numbers.
    """
    rows = len(top)
    gap = right - top
    parts, squares = (np.bincount(which, values, bins) / rows for values in (gap, gap**2))
    ece, square = float(abs(parts).sum()), float(squares.sum())
    note = f"{bins} equal bins of the top label's probability; biased upwards on few rows"
    z = intervals.z_value(confidence)
    if square * rows < GAPS:
        few = "too few rows for an interval: too few of them are far from what was said"
        return metric(ece, (-math.inf, math.inf), BANDS, rows, note, few)
    variance = np.maximum(squares - parts**2, 0.0) / rows
    chance = math.sqrt(2 / math.pi) * float(np.sqrt(variance).sum())
    chance += z * math.sqrt((1 - 2 / math.pi) * float(variance.sum()))
    return metric(ece, (max(ece - chance, 0.0), min(ece + z * math.sqrt(square / rows), 1.0)), BANDS, rows, note)


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
    low, high = intervals.clopper_pearson(hits, counts, confidence)
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
