"""A metric: a number with its interval and the interval's name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from boatyard.evaluation import intervals

MEAN = "Hall and Student"  # the interval of a mean that may be skewed


@dataclass(frozen=True, repr=False)
class Metric:
    """A number with its interval: `value`, `low`, `high` are finite or None; `method` names the interval, `n` the rows.

    `note` says what a reader has to know, such as why there is no value.
    """

    value: float | None
    low: float | None
    high: float | None
    method: str
    n: int
    note: str = ""

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        """Say it on one line: 0.9053 [0.8994, 0.9109] Wilson, 10000 rows."""
        if self.value is None:
            return f"no value: {self.note}"
        if self.low is None or self.high is None:
            why = f" ({self.note})" if self.note and self.method != "none" else ""
            return f"{self.value:.4f}, {self.n} rows{why}"
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}] {self.method}, {self.n} rows"


def metric(value: float, interval: tuple[float, float], method: str, n: int, note: str = "", few: str = "") -> Metric:
    """Make a metric; what is not finite becomes None. `few` says why there is no interval, where there is none."""
    low, high = (float(end) if math.isfinite(end) else None for end in interval)
    missing = few if low is None or high is None else ""
    said = "; ".join(part for part in (note, missing) if part)
    return Metric(float(value) if math.isfinite(value) else None, low, high, method, n, said)


def nothing(method: str, n: int, note: str) -> Metric:
    """Make a metric that has no value, and say why."""
    return Metric(None, None, None, method, n, note)


def proportion(successes: int, rows: int, confidence: float, note: str = "") -> Metric:
    """Make a metric of a share of rows, with the exact interval."""
    if rows == 0:
        return nothing("Clopper-Pearson", 0, note or "no rows")
    low, high = intervals.clopper_pearson(successes, rows, confidence)
    return metric(successes / rows, (float(low), float(high)), "Clopper-Pearson", rows, note)


def numbers(found: Mapping[str, Metric]) -> dict[str, float]:
    """Return the values and interval ends as a flat dict of finite floats: accuracy, accuracy_low, accuracy_high …"""
    flat: dict[str, float] = {}
    for name, one in found.items():
        for suffix, value in (("", one.value), ("_low", one.low), ("_high", one.high)):
            if value is not None:
                flat[name + suffix] = value
    return flat
