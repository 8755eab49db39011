"""Means of numbers that may be skewed or have heavy tails: errors, squared errors, losses that have a bound."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from boatyard.data.schema import Array
from boatyard.evaluation.intervals.proportions import crossing

MEAN_ROWS = 100  # fewer rows of a skewed number do not show its tail: no interval held with 50 (lognormal errors)
SQUARE_ROWS = 300  # the same of squares, whose tail is twice as heavy
LIGHT = 0.15  # skewness / √rows of squares: of normal errors below it from some 300 rows, of t with 3 degrees never
SPREAD = 5  # standard errors of a bounded number's mean per bound / rows from which its skewness is no matter
HALL_SHARE = 0.6  # of the tail that is left to Hall's ends; the whole of it from MANY rows
SQUARE_SHARE = 0.2
MANY = 10_000
STAKE = 0.9  # the greatest share of the capital that is bet on one row
CLOSEST = 1e-12  # of the spread of numbers that are one number


@dataclass(frozen=True)
class ErrorMoments:
    """What the interval of a mean is made of."""

    rows: int
    mean: float
    variance: float  # with rows - 1
    third: float  # central

    @classmethod
    def of(cls, values: Array) -> ErrorMoments:
        centred = values - values.mean()
        square = centred * centred
        return cls(
            len(values),
            float(values.mean()),
            float(square.sum()) / max(len(values) - 1, 1),
            float((square * centred).mean()),
        )

    @property
    def error(self) -> float:
        """The mean's standard error."""
        return math.sqrt(max(self.variance, 0.0) / self.rows)

    @property
    def skewness(self) -> float:
        """Of the mean, not of the values: it falls with the root of the rows."""
        spread = max(self.variance, 0.0) ** 1.5
        return self.third / spread / math.sqrt(self.rows) if spread > 0 else 0.0


def student(values: Array, confidence: float) -> tuple[float, float]:
    """Return Student's t interval of a mean; infinite for fewer than two values. Of skewed numbers it does not hold."""
    if len(values) < 2:
        return -math.inf, math.inf
    return _student(ErrorMoments.of(np.asarray(values, dtype=np.float64)), 1 - confidence)


def mean(values: Array, confidence: float) -> tuple[float, float]:
    """Return the interval of a mean: the outer ends of Student's and of Hall's; infinite for fewer than 100 values.

    Hall's transformation takes the skewness out of t. A sample shows less of it than there is, so his ends are taken
    at a smaller tail on fewer rows. P. Hall, On the removal of skewness by transformation, Journal of the Royal
    Statistical Society B 54 (1992) 221-228.
    """
    if len(values) < MEAN_ROWS:
        return -math.inf, math.inf
    return _outer(ErrorMoments.of(np.asarray(values, dtype=np.float64)), confidence, _share(len(values)))


def _share(rows: int) -> float:
    return 1.0 if rows >= MANY else min(HALL_SHARE, rows / 500)


def _outer(moments: ErrorMoments, confidence: float, share: float) -> tuple[float, float]:
    low, high = _student(moments, 1 - confidence)
    hall_low, hall_high = _hall(moments, (1 - confidence) * share)
    return min(low, hall_low), max(high, hall_high)


def _student(moments: ErrorMoments, tails: float) -> tuple[float, float]:
    half = _quantile(moments.rows, tails) * moments.error
    return moments.mean - half, moments.mean + half


def _hall(moments: ErrorMoments, tails: float) -> tuple[float, float]:
    quantile = _quantile(moments.rows, tails)
    bend, shift = moments.skewness / 3, moments.skewness / 6
    if abs(bend) < 1e-6:
        return _student(moments, tails)
    ends = (np.cbrt(1 + 3 * bend * (np.array([quantile, -quantile]) - shift)) - 1) / bend
    return moments.mean - float(ends[0]) * moments.error, moments.mean - float(ends[1]) * moments.error


def _quantile(rows: int, tails: float) -> float:
    from scipy import special

    return float(special.stdtrit(rows - 1, 1 - tails / 2))


def mean_of_squares(squares: Array, confidence: float) -> tuple[float, float]:
    """Return the interval of a mean of squared numbers; infinite for fewer than 300, and for a heavy tail among more.

    Whether there is one shows in the skewness: of lognormal errors, or of errors with infinite fourth moments, no
    method's upper end holds on some thousand rows.
    """
    moments = ErrorMoments.of(np.asarray(squares, dtype=np.float64))
    if not _light(moments):
        return -math.inf, math.inf
    return _outer(moments, confidence, SQUARE_SHARE)


def _light(moments: ErrorMoments) -> bool:
    return moments.rows >= SQUARE_ROWS and abs(moments.skewness) <= LIGHT


def ratio_of_squares(above: Array, below: Array, confidence: float) -> tuple[float, float]:
    """Return `ratio`'s interval of means of squares, where both have one."""
    if not all(_light(ErrorMoments.of(np.asarray(squares, dtype=np.float64))) for squares in (above, below)):
        return -math.inf, math.inf
    return ratio(above, below, confidence, SQUARE_SHARE)


def ratio(above: Array, below: Array, confidence: float, share: float | None = None) -> tuple[float, float]:
    """Return the interval of mean(above) / mean(below), of the same rows and not negative; infinite for too few rows.

    The ratio r is inside while `mean`'s interval of above - r · below holds 0. E. C. Fieller, Some problems in interval
    estimation, Journal of the Royal Statistical Society B 16 (1954) 175-185.
    """
    if len(above) < MEAN_ROWS or not below.mean() > 0:
        return -math.inf, math.inf
    pair = _Pairs.of(np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64))
    level = share or _share(len(above))
    start = float(above.mean() / below.mean())
    low = crossing(start, 0.0, lambda r: _outer(pair.less(r), confidence, level)[0] > 0)
    top = max(2 * start, 1.0)
    while not _outer(pair.less(top), confidence, level)[1] < 0:
        top *= 2
        if top > 1e6 * max(start, 1.0):
            return low, math.inf
    return low, crossing(start, top, lambda r: _outer(pair.less(r), confidence, level)[1] < 0)


@dataclass(frozen=True)
class _Pairs:
    """Moments of two numbers of a row, from which those of any difference follow without a walk over the rows."""

    rows: int
    means: tuple[float, float]
    second: tuple[float, float, float]  # aa, ab, bb
    third: tuple[float, float, float, float]  # aaa, aab, abb, bbb

    @classmethod
    def of(cls, a: Array, b: Array) -> _Pairs:
        x, y = a - a.mean(), b - b.mean()
        xx, yy = x * x, y * y
        second = tuple(float(v.sum()) / (len(a) - 1) for v in (xx, x * y, yy))
        third = tuple(float(v.mean()) for v in (xx * x, xx * y, x * yy, yy * y))
        return cls(len(a), (float(a.mean()), float(b.mean())), second, third)  # type: ignore[arg-type]

    def less(self, r: float) -> ErrorMoments:
        """Return the moments of a - r · b."""
        (aa, ab, bb), (aaa, aab, abb, bbb) = self.second, self.third
        variance = aa - 2 * r * ab + r * r * bb
        third = aaa - 3 * r * aab + 3 * r * r * abb - r**3 * bbb
        scale = aa + r * r * bb
        if variance <= CLOSEST * scale:  # one is r times the other, up to rounding
            variance, third = 0.0, 0.0
        return ErrorMoments(self.rows, self.means[0] - r * self.means[1], variance, third)


def bounded(values: Array, top: float, confidence: float, seed: int) -> tuple[float, float]:
    """Return the interval of the mean of numbers from 0 to `top`, for any rows and any distribution of them.

    Where the numbers spread enough, `mean`'s. Where they do not (rare large losses may not have been seen at all), the
    betting interval: the means against which no gambler who bets on the rows in turn grows rich. I. Waudby-Smith,
    A. Ramdas, Estimating means of bounded random variables by betting, JRSS B 86 (2024) 1-27.
    """
    values = np.clip(np.asarray(values, dtype=np.float64), 0, top)
    if spread_enough(values, top):
        low, high = mean(values, confidence)
        return max(low, 0.0), min(high, top)
    shuffled = np.random.default_rng(seed).permutation(values / top)  # rows may come sorted
    tail = (1 - confidence) / 2
    return float(top * _betting(shuffled, tail)), float(top * (1 - _betting(1 - shuffled, tail)))


def spread_enough(values: Array, top: float) -> bool:
    """Tell whether numbers from 0 to `top` spread so much that rows which were not seen could hardly move their mean.

    Their skewness is at most top / deviation, so that of their mean is then at most 1 / 5.
    """
    rows = len(values)
    return rows >= MEAN_ROWS and float(values.std(ddof=1)) * math.sqrt(rows) >= SPREAD * top


def _betting(values: Array, tail: float) -> float:
    """Return the lower end of a mean of numbers from 0 to 1: the least that a gambler's wealth does not refute."""
    from scipy import optimize

    count = np.arange(1, len(values) + 1)
    means = (0.5 + np.cumsum(values)) / (count + 1)
    variances = (0.25 + np.cumsum((values - means) ** 2)) / (count + 1)
    past = np.append(0.25, variances[:-1])  # a bet knows the rows before it, no other
    bets = np.sqrt(2 * math.log(1 / tail) / (len(values) * past))

    def excess(m: float) -> float:
        """How far the gambler's greatest wealth is above what refutes a mean of m, in logarithms; it falls with m."""
        wealth = np.cumsum(np.log1p(np.minimum(bets, STAKE / m) * (values - m))).max()
        return float(wealth) - math.log(1 / tail)

    mean = float(values.mean())
    least = mean * 1e-9
    if mean <= 0 or excess(least) <= 0:
        return 0.0
    if excess(mean) >= 0:  # rich for a while, on rows that happen to come first: the estimate stays inside
        return mean
    return float(optimize.brentq(excess, least, mean, xtol=mean * 1e-7))


def median(values: Array, confidence: float) -> tuple[float, float]:
    """Return the interval of a median from order statistics, which holds whatever the distribution.

    Infinite where even the extremes do not reach the confidence (fewer than 6 values at 0.95).
    """
    from scipy import special

    n = len(values)
    ranks = np.arange(n)
    below = np.flatnonzero(special.bdtr(ranks, n, 0.5) <= (1 - confidence) / 2) if n else ranks
    if len(below) == 0:
        return -math.inf, math.inf
    order = np.sort(values)
    rank = int(below[-1])
    return float(order[rank]), float(order[n - 1 - rank])
