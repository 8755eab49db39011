"""How a measure's numbers are written for people: its title, its value, its interval, the line that it is drawn on."""

from __future__ import annotations

from boatyard.evaluation.metrics import Metric

SHARES = {"accuracy", "balanced_accuracy", "macro_f1", "top_3_accuracy"}
EXPLAINED = {
    "accuracy": ("Accuracy", "share of the rows that are right"),
    "balanced_accuracy": ("Balanced accuracy", "mean share of each label's rows that are right"),
    "macro_f1": ("Macro F1", "mean over the labels of the harmonic mean of precision and recall"),
    "top_3_accuracy": ("Top-3 accuracy", "share of the rows whose label is among the three likeliest"),
    "log_loss": ("Log loss", "surprise at the truth, in nats; 0 is best"),
    "brier": ("Brier score", "mean squared distance of the probabilities from the truth; 0 is best"),
    "ece": ("Calibration error (ECE)", "how far the stated probability is from the share that is right; 0 is best"),
    "calibration_rmse": ("Calibration error, debiased", "root mean square, less what chance alone gives; 0 is best"),
    "auc": ("ROC AUC", "chance that a row of a label scores above a row of another; 0.5 is guessing"),
    "rmse": ("RMSE", "root mean squared error, in the target's unit; 0 is best"),
    "mae": ("Mean absolute error", "in the target's unit; 0 is best"),
    "median_absolute_error": ("Median absolute error", "half of the rows are nearer than this; 0 is best"),
    "r2": ("R²", "share of the target's variance that is explained; 1 is best, 0 is guessing the mean"),
    "bias": ("Bias", "mean of predicted minus true; 0 is best"),
}


def title(name: str) -> str:
    """Return a measure's name for people."""
    return EXPLAINED.get(name, (name.replace("_", " "), ""))[0]


def explanation(name: str) -> str:
    """Say in a few words what a measure is; empty where nothing is known of it."""
    return EXPLAINED.get(name, ("", ""))[1]


def number(value: float | None, name: str) -> str:
    """Show a measure's number: shares in percent, others with four digits that count."""
    if value is None:
        return "–"
    return f"{value * 100:.2f} %" if name in SHARES else f"{value:.4f}" if abs(value) < 1000 else f"{value:.5g}"


def interval(metric: Metric, name: str) -> str:
    """Show a measure's interval."""
    if metric.low is None or metric.high is None:
        return "–"
    if name in SHARES:
        return f"{metric.low * 100:.2f} – {metric.high * 100:.2f} %"
    return f"{number(metric.low, name)} – {number(metric.high, name)}"


def span(metric: Metric, name: str) -> tuple[float, float]:
    """Choose the ends of the line that a number is drawn on: 0 to 1 for shares, else from 0 to beyond the interval."""
    if name in SHARES or name == "auc":
        return 0.0, 1.0
    ends = [abs(v) for v in (metric.value, metric.low, metric.high) if v is not None]
    reach = max(ends, default=1.0) * 1.25 or 1.0
    return (-reach, reach) if min(v for v in (metric.value or 0, metric.low or 0)) < 0 else (0.0, reach)
