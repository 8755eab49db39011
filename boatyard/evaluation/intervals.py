"""Intervals: how far a number measured on few rows may be from the truth. Pure numpy, each with its source.

Every function returns (low, high) of a two-sided interval at `confidence`, unless it says otherwise. SciPy is imported
where it is needed: reading a report, in the image that serves, does without it.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np

from boatyard.data.schema import Array

Pair = tuple[float, float]
RESAMPLED_ROWS = 100_000  # above it a resample's sums are normal to four digits, and drawing rows costs minutes
CHUNK_BYTES = 1 << 26  # of resampling weights held at once


def z_value(confidence: float) -> float:
    """Return the normal quantile of a two-sided confidence: 0.95 → 1.96."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def wilson(successes: Any, rows: Any, confidence: float) -> tuple[Array, Array]:
    """Return Wilson's score interval of proportions, elementwise; [0, 1] where there are no rows.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927) 209-212.
    """
    n = np.asarray(rows, dtype=np.float64)
    k = np.asarray(successes, dtype=np.float64)
    z2 = z_value(confidence) ** 2
    centre = (k + z2 / 2) / (n + z2)
    half = np.sqrt(z2) / (n + z2) * np.sqrt(k * (n - k) / np.maximum(n, 1) + z2 / 4)
    low = np.where(k == 0, 0.0, np.clip(centre - half, 0, 1))
    high = np.where(k == n, 1.0, np.clip(centre + half, 0, 1))
    return low, high


def tango_score(wins: int, losses: int, rows: int, difference: float) -> float:
    """Return Tango's score statistic for H0: P(win) - P(loss) = `difference`, which lies inside (-1, 1).

    The probability of a loss is replaced by its maximum likelihood under H0, the root of a quadratic. At a difference
    of 0 the statistic is McNemar's. T. Tango, Equivalence test and confidence interval for the difference in
    proportions for the paired-sample design, Statistics in Medicine 17 (1998) 891-908, equations 24 to 26.
    """
    b = -(wins + losses) + (2 * rows - wins + losses) * difference
    c = -losses * difference * (1 - difference)
    loss = (math.sqrt(max(b * b - 8 * rows * c, 0.0)) - b) / (4 * rows)
    variance = rows * (2 * loss + difference * (1 - difference))
    excess = wins - losses - rows * difference
    if excess == 0 or variance <= 0:  # at the observed difference with no pair that differs, 0/0 stands for 0
        return math.copysign(math.inf, excess) if excess else 0.0
    return excess / math.sqrt(variance)


def tango(wins: int, losses: int, rows: int, confidence: float) -> Pair:
    """Return Tango's score interval of a difference of paired proportions, (wins - losses) / rows.

    `wins` are rows that only the first got right, `losses` those that only the second did. Its lower end at a two-sided
    confidence of 1 - 2α is the one-sided lower bound at 1 - α. It keeps its level where Wald's and the bootstrap
    do not (few rows, few or no pairs that differ) and never leaves [-1, 1].
    """
    if rows < 1 or min(wins, losses) < 0 or wins + losses > rows:
        raise ValueError(f"{wins} wins and {losses} losses in {rows} rows are not a paired table")
    low = _tango_end(wins, losses, rows, z_value(confidence))
    high = -_tango_end(losses, wins, rows, z_value(confidence))
    return low, high


def _tango_end(wins: int, losses: int, rows: int, z: float) -> float:
    """Find the lower end by halving: the score falls as the difference grows."""
    low, high = -1.0, (wins - losses) / rows
    for _ in range(80):  # 2^-80 of the range is below a float's resolution
        middle = (low + high) / 2
        if tango_score(wins, losses, rows, middle) > z:
            low = middle
        else:
            high = middle
    return low


def mcnemar(wins: int, losses: int) -> float:
    """Return McNemar's exact one-sided p-value of "the first is better": P(wins or more | wins + losses, 1/2)."""
    from scipy import special

    if wins == 0:
        return 1.0
    return float(special.betainc(wins, losses + 1, 0.5))


def student(values: Array, confidence: float) -> Pair:
    """Return Student's t interval of a mean; infinite for fewer than two values."""
    from scipy import special

    n = len(values)
    if n < 2:
        return -math.inf, math.inf
    half = float(special.stdtrit(n - 1, (1 + confidence) / 2)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def median(values: Array, confidence: float) -> Pair:
    """Return the interval of a median from order statistics, which holds whatever the distribution.

    Infinite where even the extremes do not reach the confidence (fewer than 6 values at 0.95).
    """
    from scipy import special

    n = len(values)
    ranks = np.arange(n)
    below = np.flatnonzero(special.bdtr(ranks, n, 0.5) <= (1 - confidence) / 2) if n else ranks
    if len(below) == 0:
        return -math.inf, math.inf
    order = np.sort(values)
    rank = int(below[-1])
    return float(order[rank]), float(order[n - 1 - rank])


def mover(values: Array, low: Array, high: Array) -> Pair:
    """Return the interval of a mean of independent estimates from each one's own interval.

    G. Y. Zou and A. Donner, Construction of confidence limits about effect measures, Statistics in Medicine
    27 (2008) 1693-1702.
    """
    mean = float(np.mean(values))
    count = len(values)
    down = math.sqrt(float(np.sum((values - low) ** 2))) / count
    up = math.sqrt(float(np.sum((high - values) ** 2))) / count
    return mean - down, mean + up


def auc(value: float, variance: float, positives: int, negatives: int, confidence: float) -> Pair:
    """Return the interval of an area under the ROC curve from DeLong's variance, on the logit scale.

    An area of 0 or 1, or of one row against the rest, has no variance to go by: there it is Newcombe's score interval.
    """
    if no_variance(value, variance, positives, negatives):
        return auc_score(value, positives, negatives, confidence)
    logit = math.log(value / (1 - value))
    half = z_value(confidence) * math.sqrt(variance) / (value * (1 - value))
    return (1 + math.tanh((logit - half) / 2)) / 2, (1 + math.tanh((logit + half) / 2)) / 2


def no_variance(value: float, variance: float, positives: int, negatives: int) -> bool:
    """Tell whether DeLong's variance says nothing about an area."""
    return variance <= 1e-12 or not 0 < value < 1 or min(positives, negatives) < 2


def auc_score(value: float, positives: int, negatives: int, confidence: float) -> Pair:
    """Return the score interval of an area under the ROC curve, finite at 0 and 1.

    Hanley and McNeil's variance at the limit itself, with Newcombe's method 5: R. G. Newcombe, Confidence intervals
    for an effect size measure based on the Mann-Whitney statistic, part 2, Statistics in Medicine 25 (2006) 559-573.
    """
    z = z_value(confidence)
    balance = (positives + negatives) / 2 - 1

    def inside(area: float) -> bool:
        spread = 1 + balance * ((1 - area) / (2 - area) + area / (1 + area))
        return abs(area - value) <= z * math.sqrt(area * (1 - area) * spread / (positives * negatives))

    return _last_inside(inside, value, 0.0), _last_inside(inside, value, 1.0)


def _last_inside(inside: Any, start: float, end: float) -> float:
    """Halve between a point inside an interval and one beyond it; `end` itself when it is inside."""
    if start == end:
        return end
    for _ in range(60):
        middle = (start + end) / 2
        if inside(middle):
            start = middle
        else:
            end = middle
    return start


def percentile(samples: Array, value: float, confidence: float) -> Pair:
    """Return the bootstrap percentile interval, stretched to hold the estimate; infinite when no sample is finite."""
    samples = samples[np.isfinite(samples)]
    if len(samples) == 0:
        return -math.inf, math.inf
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    return min(float(low), value), max(float(high), value)


def resample_sums(contributions: Array, resamples: int, seed: int) -> Array:
    """Return [resamples, M]: the column sums of [N, M] contributions over rows drawn with replacement.

    Memory is bounded (64 MiB of weights at once). Above 100,000 rows the sums are drawn from their normal limit.
    """
    rng = np.random.default_rng(seed)
    rows = len(contributions)
    values = np.asarray(contributions, dtype=np.float64)
    if rows > RESAMPLED_ROWS:
        covariance = np.atleast_2d(np.cov(values, rowvar=False)) * rows
        return rng.multivariate_normal(values.sum(axis=0), covariance, size=resamples, method="svd")
    at_once = max(1, CHUNK_BYTES // (8 * max(rows, 1)))
    sums = np.empty((resamples, values.shape[1]))
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        weights = np.empty((count, rows))
        for line in weights:
            line[:] = np.bincount(rng.integers(0, rows, rows), minlength=rows)
        sums[start : start + count] = weights @ values
    return sums


def resample_counts(counts: Array, resamples: int, seed: int) -> Array:
    """Return [resamples, *counts.shape]: a table of counts as it would be had other rows been drawn.

    Drawing rows and counting again is drawing from this multinomial, at the cost of the cells instead of the rows.
    """
    rng = np.random.default_rng(seed)
    flat = counts.ravel()
    seen = np.flatnonzero(flat)
    total = int(flat.sum())
    drawn = np.zeros((resamples, flat.size), dtype=np.int64)
    if total:
        drawn[:, seen] = rng.multinomial(total, flat[seen] / total, size=resamples)
    return drawn.reshape(resamples, *counts.shape)
