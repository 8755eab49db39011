"""Shares of rows, and means of shares."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np

from boatyard.data.schema import Array


def z_value(confidence: float) -> float:
    """Return the normal quantile of a two-sided confidence: 0.95 → 1.96."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def clopper_pearson(successes: Any, rows: Any, confidence: float) -> tuple[Array, Array]:
    """Return the exact interval of proportions, elementwise; [0, 1] where there are no rows.

    Each end is beyond the truth in at most (1 - confidence) / 2 of samples, whatever the rows and the share. Neither
    count needs to be whole. C. J. Clopper, E. S. Pearson, The use of confidence or fiducial limits illustrated in the
    case of the binomial, Biometrika 26 (1934) 404-413.
    """
    from scipy import special

    n = np.asarray(rows, dtype=np.float64)
    k = np.clip(np.asarray(successes, dtype=np.float64), 0, n)
    tail = (1 - confidence) / 2
    some, lacks = k > 0, n - k > 0
    low = np.where(some, special.betaincinv(np.where(some, k, 1), n - k + 1, tail), 0.0)
    high = np.where(lacks, special.betaincinv(k + 1, np.where(lacks, n - k, 1), 1 - tail), 1.0)
    return low, high


def mover(values: Array, low: Array, high: Array, correlation: Array | None = None) -> tuple[float, float]:
    """Return the interval of a mean of estimates from each one's own and their correlation (none: independent).

    G. Y. Zou and A. Donner, Construction of confidence limits about effect measures, Statistics in Medicine
    27 (2008) 1693-1702; with correlation, G. Y. Zou, Psychological Methods 12 (2007) 399-413.
    """
    matrix = np.eye(len(values)) if correlation is None else correlation
    mean, down, up = float(np.mean(values)), values - low, high - values
    return mean - _length(down, matrix) / len(values), mean + _length(up, matrix) / len(values)


def _length(parts: Array, correlation: Array) -> float:
    return math.sqrt(max(float(parts @ correlation @ parts), 0.0))


def crossing(inside: float, beyond: float, is_beyond: Callable[[float], bool]) -> float:
    """Halve between a number that is inside an interval and one that is beyond its end; `beyond` where it is inside."""
    if not is_beyond(beyond):
        return beyond
    for _ in range(60):  # 2^-60 of the range is below a float's resolution
        middle = (inside + beyond) / 2
        inside, beyond = (inside, middle) if is_beyond(middle) else (middle, beyond)
    return beyond
