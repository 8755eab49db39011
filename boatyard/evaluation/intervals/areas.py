"""The area under a ROC curve: the chance that a positive row scores above a negative one."""

from __future__ import annotations

import math

from boatyard.evaluation.intervals.proportions import clopper_pearson, crossing, z_value

CERTAIN = 50  # rows on the smaller side from which a variance says enough


def auc(value: float, variance: float, positives: int, negatives: int, confidence: float) -> tuple[float, float]:
    """Return the interval of an area from DeLong's variance.

    With fewer than 50 rows on a side the variance is a guess, too small just where the few rows happen to lie well.
    There the greatest variance that any scores can have stands for it, that of a share of as many rows as the smaller
    side has (Z. W. Birnbaum, O. M. Klose, Annals of Mathematical Statistics 28 (1957) 933-945). With more, the outer
    ends of two are taken: the exact interval at the effective number of rows, and Newcombe's score interval, which
    covers where the variance comes out too small.
    """
    fewer = min(positives, negatives)
    if fewer < CERTAIN:
        return _exact(value, fewer, confidence)
    low, high = _exact(value, _effective_rows(value, variance, fewer, confidence), confidence)
    score_low, score_high = _score(value, positives, negatives, confidence)
    return min(low, score_low), max(high, score_high)


def _exact(value: float, rows: float, confidence: float) -> tuple[float, float]:
    low, high = clopper_pearson(value * rows, rows, confidence)
    return float(low), float(high)


def _effective_rows(value: float, variance: float, fewer: int, confidence: float) -> float:
    """Return how many rows a share of this variance would have.

    E. L. Korn, B. I. Graubard, Survey Methodology 24 (1998) 193-201; with t's quantile for the variance of few rows.
    """
    from scipy import special

    if variance <= 1e-12 or not 0 < value < 1:
        return float(fewer)
    quantile = float(special.stdtrit(fewer - 1, (1 + confidence) / 2))
    return max(value * (1 - value) / variance * (z_value(confidence) / quantile) ** 2, float(fewer))


def _score(value: float, positives: int, negatives: int, confidence: float) -> tuple[float, float]:
    """Return the score interval with Hanley and McNeil's variance at the limit itself.

    Method 5 of R. G. Newcombe, Confidence intervals for an effect size measure based on the Mann-Whitney statistic,
    part 2, Statistics in Medicine 25 (2006) 559-573.
    """
    z = z_value(confidence)
    balance = (positives + negatives) / 2 - 1

    def beyond(area: float) -> bool:
        spread = 1 + balance * ((1 - area) / (2 - area) + area / (1 + area))
        return abs(area - value) > z * math.sqrt(area * (1 - area) * spread / (positives * negatives))

    return crossing(value, 0.0, beyond), crossing(value, 1.0, beyond)
