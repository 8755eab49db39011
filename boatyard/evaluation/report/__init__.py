"""The report on one graph and one test split: numbers with intervals, and one page for people."""

from boatyard.evaluation.report.values import (
    NUMBERS,
    PAGE,
    PREDICTIONS,
    REPORT_KIND,
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
    "NUMBERS",
    "PAGE",
    "PREDICTIONS",
    "REPORT_KIND",
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
