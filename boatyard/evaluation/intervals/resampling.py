"""The bootstrap, for measures that have nothing better: rows or counts drawn anew, and percentiles of what they give.

No built-in measure uses it: on few rows and on heavy tails its intervals are too narrow.
"""

from __future__ import annotations

import math

import numpy as np

from boatyard.data.schema import Array

RESAMPLED_ROWS = 100_000  # above it a resample's sums are normal to four digits, and drawing rows costs minutes
CHUNK_BYTES = 1 << 26  # of resampling weights held at once


def percentile(samples: Array, value: float, confidence: float) -> tuple[float, float]:
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
