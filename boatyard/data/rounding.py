"""Whether float32, in which numbers are stored and learnt from, can tell a column's values apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from boatyard.data.schema import Array

# A deviation of 300 times the rounding error is one of some 90 steps of float32: what is lost is below 1 % of a bin of
# a hundred, and below what a model in float32 could learn anyway.
LOST = 1 / 300
NOISE = 1e-12  # of the greatest value: what sums in float64 leave behind is no difference between values


@dataclass(frozen=True)
class Rounding:
    """Moments of numbers and the squared error of storing them as float32, which merge in the blocks' order."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0  # about the mean
    lost: float = 0.0  # squared errors, summed
    low: float = 0.0
    high: float = 0.0

    @classmethod
    def of(cls, values: Array) -> Rounding:
        """Take float64 values; what is missing, or beyond float32 altogether, does not count."""
        with np.errstate(over="ignore", invalid="ignore"):
            lost = values - values.astype(np.float32)
        there = np.isfinite(lost)
        if not there.any():
            return cls()
        here, lost = (values, lost) if there.all() else (values[there], lost[there])
        mean = float(here.mean())
        centred = here - mean
        squares, errors = float(centred @ centred), float(lost @ lost)
        return cls(len(here), mean, squares, errors, float(here.min()), float(here.max()))

    def merged(self, more: Rounding) -> Rounding:
        """Take in the next block."""
        if not self.count or not more.count:
            return self if self.count else more
        total, delta = self.count + more.count, more.mean - self.mean
        return Rounding(
            total,
            self.mean + delta * more.count / total,
            self.squares + more.squares + delta * delta * self.count * more.count / total,
            self.lost + more.lost,
            min(self.low, more.low),
            max(self.high, more.high),
        )

    @property
    def material(self) -> bool:
        """Whether values that differ would be stored as the same, or as good as the same, number."""
        if self.high - self.low <= NOISE * max(abs(self.low), abs(self.high)):
            return False
        return self.lost > LOST**2 * self.squares

    def sentence(self) -> tuple[str, str]:
        """Return what was found, and what to do."""
        step = float(np.spacing(np.float32(max(abs(self.low), abs(self.high)))))
        spread = math.sqrt(self.squares / max(self.count, 1))
        found = f"values from {self.low!r} to {self.high!r} that differ by {spread:.3g}: its steps there are {step:.3g}"
        return found, f"subtract an offset near {self.mean:.6g} from the column first, or scale what is left"
