"""How a measure's numbers are written for people: its title, its value, its interval, the line that it is drawn on."""

from __future__ import annotations

from boatyard.evaluation import measures
from boatyard.evaluation.metrics import Metric


def title(name: str) -> str:
    """Return a measure's name for people."""
    measure = measures.titled(name)
    return measure.title if measure else name.replace("_", " ")


def explanation(name: str) -> str:
    """Say in a few words what a measure is; empty for one that is not installed."""
    measure = measures.titled(name)
    return measure.explanation if measure else ""


def is_percent(name: str) -> bool:
    """Say whether a measure is read in percent."""
    measure = measures.titled(name)
    return measure is not None and measure.percent


def number(value: float | None, name: str) -> str:
    """Show a measure's number: in percent, or with four digits that count."""
    if value is None:
        return "–"
    return f"{value * 100:.2f} %" if is_percent(name) else f"{value:.4f}" if abs(value) < 1000 else f"{value:.5g}"


def interval(metric: Metric, name: str) -> str:
    """Show a measure's interval."""
    if metric.low is None or metric.high is None:
        return "–"
    if is_percent(name):
        return f"{metric.low * 100:.2f} – {metric.high * 100:.2f} %"
    return f"{number(metric.low, name)} – {number(metric.high, name)}"


def span(metric: Metric, name: str) -> tuple[float, float]:
    """Choose the ends of the line that a number is drawn on: 0 to 1 for shares, else from 0 to beyond the interval."""
    measure = measures.titled(name)
    if measure is not None and measure.is_share:
        return 0.0, 1.0
    ends = [abs(v) for v in (metric.value, metric.low, metric.high) if v is not None]
    reach = max(ends, default=1.0) * 1.25 or 1.0
    return (-reach, reach) if min(v for v in (metric.value or 0, metric.low or 0)) < 0 else (0.0, reach)
