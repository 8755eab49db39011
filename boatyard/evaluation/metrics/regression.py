"""What predicted numbers are off by."""

from __future__ import annotations

import math

import numpy as np

from boatyard.data.schema import Array
from boatyard.evaluation import intervals
from boatyard.evaluation.metrics.values import MEAN, Metric, metric, nothing

NAMES = ("rmse", "mae", "median_absolute_error", "r2", "bias")
SQUARE, RATIO = "Hall and Student, on squares", "Hall and Student, Fieller"
FEW = f"too few rows for an interval of a mean of errors, which may have a long tail: {intervals.MEAN_ROWS} or more"
HEAVY = (
    f"too few rows for an interval: a mean of squares has one from {intervals.SQUARE_ROWS} rows without a heavy tail, "
    "from more with one"
)


def regression(target: Array, values: Array, *, confidence: float = 0.95) -> dict[str, Metric]:
    """Measure N ≥ 1 predicted numbers: target and values float [N]."""
    rows = len(target)
    bad = int((~np.isfinite(values)).sum())
    if bad:
        return {name: nothing("", rows, f"{bad} of {rows} predictions are not finite") for name in NAMES}
    error = values.astype(np.float64) - target.astype(np.float64)
    size = abs(error)
    return {
        "rmse": _rmse(error**2, confidence),
        "mae": metric(float(size.mean()), _above(intervals.mean(size, confidence)), MEAN, rows, few=FEW),
        "median_absolute_error": metric(
            float(np.median(size)),
            intervals.median(size, confidence),
            "order statistics",
            rows,
            few="too few rows for an interval of a median",
        ),
        "r2": _r2(error**2, target.astype(np.float64), confidence),
        "bias": metric(float(error.mean()), intervals.mean(error, confidence), MEAN, rows, few=FEW),
    }


def _above(pair: tuple[float, float]) -> tuple[float, float]:
    return max(pair[0], 0.0) if math.isfinite(pair[0]) else pair[0], pair[1]


def _rmse(squares: Array, confidence: float) -> Metric:
    low, high = intervals.mean_of_squares(squares, confidence)
    pair = (math.sqrt(max(low, 0.0)), math.sqrt(high)) if math.isfinite(high) else (low, high)
    return metric(math.sqrt(float(squares.mean())), pair, SQUARE, len(squares), few=HEAVY)


def _r2(squares: Array, target: Array, confidence: float) -> Metric:
    """1 - residual / total sum of squares, with the interval of that ratio."""
    rows = len(target)
    total = (target - target.mean()) ** 2
    if not total.mean() > 0:
        return nothing(RATIO, rows, "the target is constant: there is nothing to explain")
    low, high = intervals.ratio_of_squares(squares, total, confidence)
    return metric(1 - float(squares.mean() / total.mean()), (1 - high, 1 - low), RATIO, rows, few=HEAVY)
