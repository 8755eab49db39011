"""The difference of two paired proportions: two models that answer the same rows."""

from __future__ import annotations

import math

from boatyard.evaluation.intervals.proportions import crossing, z_value

CORRECTION = 0.5  # of a row: wins and losses are whole numbers, the score takes them for a continuous one


def tango_score(wins: int, losses: int, rows: int, difference: float, correction: float = 0.0) -> float:
    """Return Tango's score statistic for H0: P(win) - P(loss) = `difference`, which lies inside (-1, 1).

    The probability of a loss is replaced by its maximum likelihood under H0, the root of a quadratic. At a difference
    of 0 the statistic is McNemar's. T. Tango, Equivalence test and confidence interval for the difference in
    proportions for the paired-sample design, Statistics in Medicine 17 (1998) 891-908, equations 24 to 26.
    """
    b = -(wins + losses) + (2 * rows - wins + losses) * difference
    c = -losses * difference * (1 - difference)
    loss = (math.sqrt(max(b * b - 8 * rows * c, 0.0)) - b) / (4 * rows)
    variance = rows * (2 * loss + difference * (1 - difference))
    excess = wins - losses - rows * difference - correction
    if excess == 0 or variance <= 0:  # at the observed difference with no pair that differs, 0/0 stands for 0
        return math.copysign(math.inf, excess) if excess else 0.0
    return excess / math.sqrt(variance)


def tango(wins: int, losses: int, rows: int, confidence: float, correction: float = CORRECTION) -> tuple[float, float]:
    """Return Tango's score interval of a difference of paired proportions, (wins - losses) / rows.

    `wins` are rows that only the first got right, `losses` those that only the second did. Its lower end at a two-sided
    confidence of 1 - 2α is the one-sided lower bound at 1 - α. It never leaves [-1, 1]. With the continuity correction
    it keeps its level where Wald's and the bootstrap do not; without, where few pairs differ, the lower end at 0.95 is
    above the truth in up to 5 % of samples instead of 2.5 %.
    """
    if rows < 1 or min(wins, losses) < 0 or wins + losses > rows:
        raise ValueError(f"{wins} wins and {losses} losses in {rows} rows are not a paired table")
    low = _tango_end(wins, losses, rows, z_value(confidence), correction)
    high = -_tango_end(losses, wins, rows, z_value(confidence), correction)
    return low, high


def _tango_end(wins: int, losses: int, rows: int, z: float, correction: float) -> float:
    """Find the lower end by halving: the score falls as the difference grows."""

    def beyond(difference: float) -> bool:
        return difference <= -1 or tango_score(wins, losses, rows, difference, correction) > z

    return crossing((wins - losses) / rows, -1.0, beyond)


def mcnemar(wins: int, losses: int) -> float:
    """Return McNemar's exact one-sided p-value of "the first is better": P(wins or more | wins + losses, 1/2)."""
    from scipy import special

    if wins == 0:
        return 1.0
    return float(special.betainc(wins, losses + 1, 0.5))
