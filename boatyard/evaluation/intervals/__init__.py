"""Intervals: how far a number measured on few rows may be from the truth; each with its source.

Every function returns (low, high) of a two-sided interval at `confidence`: each end is beyond the truth in at most
(1 - confidence) / 2 of samples. An end that no method reaches on such rows is infinite, and is not shown.
`benchmarks/intervals.py` measures the error of each end. SciPy is imported where it is needed: reading a report, in
the image that serves, does without it.
"""

from boatyard.evaluation.intervals.areas import CERTAIN, auc
from boatyard.evaluation.intervals.means import (
    MEAN_ROWS,
    SQUARE_ROWS,
    bounded,
    mean,
    mean_of_squares,
    median,
    ratio,
    ratio_of_squares,
    spread_enough,
    student,
)
from boatyard.evaluation.intervals.paired import mcnemar, tango, tango_score
from boatyard.evaluation.intervals.proportions import clopper_pearson, mover, z_value
from boatyard.evaluation.intervals.resampling import percentile, resample_counts, resample_sums

__all__ = (
    "CERTAIN",
    "MEAN_ROWS",
    "SQUARE_ROWS",
    "Pair",
    "auc",
    "bounded",
    "clopper_pearson",
    "mcnemar",
    "mean",
    "mean_of_squares",
    "median",
    "mover",
    "percentile",
    "ratio",
    "ratio_of_squares",
    "resample_counts",
    "resample_sums",
    "spread_enough",
    "student",
    "tango",
    "tango_score",
    "z_value",
)

Pair = tuple[float, float]
