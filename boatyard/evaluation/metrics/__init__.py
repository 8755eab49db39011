"""Metrics of predictions, each with its interval and the interval's name. Pure numpy: arrays in, values out.

A prediction that is not a number, or not a distribution over the labels, is invalid: it counts as wrong, and metrics
that need all the numbers have no value, with a note that says why. A metric whose rows are too few for an interval has
none, with a note that says so.
"""

from boatyard.evaluation.metrics.areas import Roc, auc, delong, midranks, one_auc, roc, worst_rocs
from boatyard.evaluation.metrics.labels import (
    ClassScore,
    balanced_accuracy,
    class_scores,
    confusion,
    f1,
    f1_scores,
    macro_f1,
)
from boatyard.evaluation.metrics.probabilities import (
    CLIP,
    TOP,
    Bin,
    bin_of,
    calibration,
    invalid_rows,
    probabilistic,
    row_brier,
    row_loss,
    top_hits,
)
from boatyard.evaluation.metrics.regression import regression
from boatyard.evaluation.metrics.values import MEAN, Metric, metric, nothing, numbers, proportion

__all__ = (
    "CLIP",
    "MEAN",
    "TOP",
    "Bin",
    "ClassScore",
    "Metric",
    "Roc",
    "auc",
    "balanced_accuracy",
    "bin_of",
    "calibration",
    "class_scores",
    "confusion",
    "delong",
    "f1",
    "f1_scores",
    "invalid_rows",
    "macro_f1",
    "metric",
    "midranks",
    "nothing",
    "numbers",
    "one_auc",
    "probabilistic",
    "proportion",
    "regression",
    "roc",
    "row_brier",
    "row_loss",
    "top_hits",
    "worst_rocs",
)
