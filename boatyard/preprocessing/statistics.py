"""Statistics of the training rows, merged block by block: they parametrise the features in the graph."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from boatyard.schema import Array

SAMPLE = 200_000  # values of a column that its median is taken of; exact up to so many training rows


@dataclass
class Moments:
    """Count, mean, squared deviations, extremes of a column; merged by Chan, Golub and LeVeque's formula (1979)."""

    count: int = 0
    missing: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    kept: list[Array] = field(default_factory=list)

    def add(self, values: Array, sampled: Array | None = None) -> None:
        """Take in float values [N], NaN for missing; `sampled`, bool [N], says which the median is taken of."""
        there = ~np.isnan(values)
        here = values[there].astype(np.float64)
        self.missing += len(values) - len(here)
        if sampled is not None:
            self.kept.append(values[there & sampled].astype(np.float32))
        if not len(here):
            return
        mean, count = float(here.mean()), len(here)
        delta, total = mean - self.mean, self.count + count
        self.squares += float(np.square(here - mean).sum()) + delta * delta * self.count * count / total
        self.mean += delta * count / total
        self.count = total
        self.low, self.high = min(self.low, float(here.min())), max(self.high, float(here.max()))

    def values(self) -> dict[str, Any]:
        """Return them as JSON values: deviation over N, median of the sample."""
        kept = np.concatenate(self.kept) if self.kept else np.zeros(0)
        none = self.count == 0
        return {
            "mean": 0.0 if none else self.mean,
            "std": 0.0 if none else math.sqrt(self.squares / self.count),
            "min": 0.0 if none else self.low,
            "max": 0.0 if none else self.high,
            "median": float(np.median(kept)) if len(kept) else 0.0,
            "missing": self.missing,
            "count": self.count,
        }


@dataclass
class Pixels:
    """Moments by channel: exact from a histogram for uint8, merged for float32."""

    channels: int
    bytes: bool
    counts: Array = field(init=False)
    moments: list[Moments] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros((self.channels, 256), np.int64)
        self.moments = [Moments() for _ in range(self.channels)]

    def add(self, images: Array) -> None:
        """Take in images [N, H, W] or [N, H, W, C]."""
        flat = images.reshape(-1, self.channels)
        for k in range(self.channels):
            if self.bytes:
                self.counts[k] += np.bincount(flat[:, k], minlength=256)
            else:
                self.moments[k].add(flat[:, k])

    def values(self) -> dict[str, Any]:
        """Return mean and deviation by channel, and the extremes of all, in raw units."""
        if not self.bytes:
            found = [m.values() for m in self.moments]
        else:
            found = [self._exact(row) for row in self.counts]
        return {
            "mean": [v["mean"] for v in found],
            "std": [v["std"] for v in found],
            "min": min(v["min"] for v in found),
            "max": max(v["max"] for v in found),
        }

    @staticmethod
    def _exact(counts: Array) -> dict[str, float]:
        level, total = np.arange(256), max(int(counts.sum()), 1)
        mean = float((counts * level).sum() / total)
        used = np.flatnonzero(counts)
        return {
            "mean": mean,
            "std": math.sqrt(float((counts * np.square(level - mean)).sum() / total)),
            "min": float(used[0]) if len(used) else 0.0,
            "max": float(used[-1]) if len(used) else 0.0,
        }


@dataclass
class Counts:
    """How often each value of a category was seen."""

    seen: Counter[str] = field(default_factory=Counter)

    def add(self, values: pa.Array) -> None:
        """Take in a column of text, "" for missing."""
        for entry in pc.value_counts(values):
            self.seen[entry["values"].as_py()] += entry["counts"].as_py()

    def values(self) -> dict[str, Any]:
        """Return the counts, sorted by value."""
        return {"counts": {k: self.seen[k] for k in sorted(self.seen) if k}, "missing": self.seen.get("", 0)}
