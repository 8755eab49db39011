"""Tests of a slice against the other rows: exact where rows are few, and for many slices at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from boatyard.data.schema import Array

LEVELS = 64  # of ranks that are told apart: the test stays exact, and permuting costs the same for any number of rows
FIRST = 200  # permutations that most slices need
MOST = 50_000


def more_wrong(wrong: int, rows: int, all_wrong: int, all_rows: int) -> float:
    """Return the one-sided p-value of Fisher's exact test: P(as many wrong or more in a slice of so many rows)."""
    from scipy import special

    most = min(rows, all_wrong)
    if rows == all_rows or wrong * all_rows <= rows * all_wrong:  # no worse than the whole: no candidate
        return 1.0
    k = np.arange(wrong, most + 1)

    def choose(n: Array | int, k: Array | int) -> Array:
        return np.asarray(special.gammaln(np.add(n, 1)) - special.gammaln(np.add(k, 1)) - special.gammaln(n - k + 1))

    logs = choose(all_wrong, k) + choose(all_rows - all_wrong, rows - k) - choose(all_rows, rows)
    return min(float(np.exp(special.logsumexp(logs))), 1.0)


@dataclass(frozen=True)
class Sums:
    """How many numbers, their sum and their sum of squares."""

    rows: int
    total: float
    squares: float

    @classmethod
    def of(cls, values: Array) -> Sums:
        return cls(len(values), float(values.sum()), float(values @ values))

    def without(self, part: Sums) -> Sums:
        return Sums(self.rows - part.rows, self.total - part.total, self.squares - part.squares)

    @property
    def mean(self) -> float:
        return self.total / self.rows

    @property
    def error(self) -> float:
        """The squared standard error of the mean."""
        return max(self.squares - self.total**2 / self.rows, 0.0) / (self.rows - 1) / self.rows


def welch(part: Sums, rest: Sums) -> float:
    """Return the one-sided p-value of Welch's t that the part's mean is greater; 1 where either has less than two rows.

    B. L. Welch, The generalization of Student's problem when several different population variances are involved,
    Biometrika 34 (1947) 28-35.
    """
    from scipy import special

    if min(part.rows, rest.rows) < 2:
        return 1.0
    difference, spread = part.mean - rest.mean, part.error + rest.error
    if difference <= 0 or spread <= 1e-24 * difference**2:
        return 1.0 if difference <= 0 else 0.0
    freedom = spread**2 / (part.error**2 / (part.rows - 1) + rest.error**2 / (rest.rows - 1))
    return float(special.stdtr(freedom, -difference / math.sqrt(spread)))


@dataclass(frozen=True)
class Ranks:
    """The rows' ranks, of few levels: `codes` int [N] into `scores`, their mean ranks, and how many rows have each."""

    codes: Array
    scores: Array
    counts: Array

    @classmethod
    def of(cls, values: Array) -> Ranks:
        distinct, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
        if len(distinct) > LEVELS:
            middle = np.cumsum(counts) - counts / 2
            codes = np.minimum(middle * LEVELS / len(values), LEVELS - 1).astype(np.int64)[codes]
            counts = np.bincount(codes, minlength=LEVELS)
        ends = np.cumsum(counts)
        return cls(codes, (ends - (counts - 1) / 2) / len(values), counts)

    def by_slice(self, slices: Array, number: int) -> Array:
        """Return int [number, levels]: how many rows of each slice have each rank."""
        cells = slices.astype(np.int64) * len(self.scores) + self.codes
        return np.bincount(cells, minlength=number * len(self.scores)).reshape(number, -1)

    def greater(self, found: Array, wanted: float, seed: int) -> float:
        """Return the one-sided p-value that a slice's ranks are greater than the others', by permutation.

        Drawn is which rows the slice has; as many draws as it takes to tell a p-value of `wanted`, unless the first
        few hundred show that it is nowhere near.
        """
        rng = np.random.default_rng(seed)
        score = float(found @ self.scores) * (1 - 1e-12)
        chance = self._permuted(rng, int(found.sum()), score, FIRST)
        if chance > 0.05:
            return chance
        return self._permuted(rng, int(found.sum()), score, min(MOST, math.ceil(20 / wanted)))

    def _permuted(self, rng: np.random.Generator, rows: int, score: float, draws: int) -> float:
        drawn = rng.multivariate_hypergeometric(self.counts, rows, size=draws, method="marginals")
        return (1 + int((drawn @ self.scores >= score).sum())) / (1 + draws)


def holm(chances: Array, level: float) -> Array:
    """Return bool: which p-values are significant though there are so many of them.

    S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    order = np.argsort(chances, kind="stable")
    held = chances[order] <= level / np.arange(len(chances), 0, -1)
    significant = np.zeros(len(chances), dtype=bool)
    significant[order] = np.logical_and.accumulate(held)
    return significant
