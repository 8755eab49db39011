"""The report on one graph and one test split: numbers with intervals, and one page for people."""

from boatyard.evaluation.report.values import (
    KIND,
    NUMBERS,
    PAGE,
    PREDICTIONS,
    Bin,
    ClassScore,
    Confusion,
    Example,
    Metric,
    Report,
    ReportParts,
    Residuals,
    Roc,
    Slice,
)

__all__ = [
    "KIND",
    "NUMBERS",
    "PAGE",
    "PREDICTIONS",
    "Bin",
    "ClassScore",
    "Confusion",
    "Example",
    "Metric",
    "Report",
    "ReportParts",
    "Residuals",
    "Roc",
    "Slice",
]
