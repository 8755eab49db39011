"""Intervals agree with what others published or compute, and keep their level where the usual ones break."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from boatyard.evaluation import intervals


@pytest.mark.parametrize(("k", "n", "confidence"), [(0, 5, 0.95), (5, 5, 0.9), (1, 1, 0.95), (37, 113, 0.99)])
def test_clopper_pearson_is_scipys(k: int, n: int, confidence: float) -> None:
    low, high = intervals.clopper_pearson(k, n, confidence)
    wanted = stats.binomtest(k, n).proportion_ci(confidence, method="exact")
    assert (float(low), float(high)) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_a_proportion_without_rows_says_nothing() -> None:
    low, high = intervals.clopper_pearson(np.array([0]), np.array([0]), 0.95)
    assert (low[0], high[0]) == (0, 1)


def test_tango_gives_the_paper_s_contact_lens_example() -> None:
    """Tango 1998, section 6.1: 43, 0, 1, 0 of 44; z = 1.709 at a margin of 0.1, lower 90 % limit -0.096."""
    assert intervals.tango_score(0, 1, 44, -0.1) == pytest.approx(1.709, abs=5e-4)
    assert intervals.tango(0, 1, 44, 0.90, correction=0)[0] == pytest.approx(-0.096, abs=5e-4)


@pytest.mark.parametrize(
    ("wins", "losses", "n", "confidence", "low", "high"),
    [
        (28, 25, 618, 0.90, -0.0148, 0.0247),  # R's PropCIs::scoreci.mp(25, 28, 618)
        (20, 60, 1000, 0.95, -0.0584, -0.0231),  # R's PropCIs::scoreci.mp(60, 20, 1000)
        (1, 7, 21, 0.95, -0.5172, -0.0260),  # Bentur 2009 in Fagerland, Lydersen, Laake 2014
    ],
)
def test_tango_gives_published_numbers(
    wins: int, losses: int, n: int, confidence: float, low: float, high: float
) -> None:
    assert intervals.tango(wins, losses, n, confidence, correction=0) == pytest.approx((low, high), abs=6e-5)


@given(st.integers(1, 60), st.data())
def test_tango_is_mirrored_bounded_and_holds_the_estimate(n: int, data: st.DataObject) -> None:
    wins = data.draw(st.integers(0, n))
    losses = data.draw(st.integers(0, n - wins))
    low, high = intervals.tango(wins, losses, n, 0.9)
    assert -1 <= low <= (wins - losses) / n <= high <= 1
    assert intervals.tango(losses, wins, n, 0.9) == pytest.approx((-high, -low), abs=1e-12)
    wide = intervals.tango(wins, losses, n, 0.99)
    assert wide[0] <= low and high <= wide[1]


@pytest.mark.parametrize(("wins", "losses", "n"), [(3, 7, 30), (0, 4, 25), (12, 2, 40), (0, 0, 20)])
def test_tango_s_score_uses_the_most_likely_loss_under_the_hypothesis(wins: int, losses: int, n: int) -> None:
    """The closed root is the maximum of the profile likelihood, found here by trying a fine grid."""
    for difference in (-0.3, -0.11, 0.07, 0.25):
        loss = np.linspace(max(0, -difference) + 1e-9, (1 - difference) / 2 - 1e-9, 200_001)
        with np.errstate(divide="ignore"):
            likelihood = (
                (wins * np.log(loss + difference) if wins else 0)
                + (losses * np.log(loss) if losses else 0)
                + (n - wins - losses) * np.log(1 - 2 * loss - difference)
            )
        best = loss[np.argmax(likelihood)]
        variance = n * (2 * best + difference * (1 - difference))
        wanted = (wins - losses - n * difference) / math.sqrt(variance)
        assert intervals.tango_score(wins, losses, n, difference) == pytest.approx(wanted, rel=1e-3, abs=1e-3)


def test_tango_s_ends_solve_the_score_equation() -> None:
    z = intervals.z_value(0.95)
    for wins, losses, n in ((3, 7, 30), (0, 0, 50), (9, 0, 11)):
        low, high = intervals.tango(wins, losses, n, 0.95, correction=0)
        assert intervals.tango_score(wins, losses, n, low) == pytest.approx(z, abs=1e-6)
        if high < 1:
            assert intervals.tango_score(wins, losses, n, high) == pytest.approx(-z, abs=1e-6)


def _chances(n: int, win: float, loss: float) -> dict[tuple[int, int], float]:
    return {
        (w, x): float(stats.multinomial.pmf([w, x, n - w - x], n, [win, loss, 1 - win - loss]))
        for w, x in product(range(n + 1), repeat=2)
        if w + x <= n
    }


@pytest.mark.parametrize(("win", "loss"), [(0.02, 0.05), (0.05, 0.15), (0.1, 0.1), (0.01, 0.06), (0.17, 0.0)])
def test_tango_keeps_its_level_on_few_rows_where_wald_does_not(win: float, loss: float) -> None:
    """Exact chance, over all tables of 30 pairs, that the one-sided 95 % bound lies above the truth."""
    tango = wald = 0.0
    for (wins, losses), chance in _chances(30, win, loss).items():
        tango += chance * (intervals.tango(wins, losses, 30, 0.9)[0] > win - loss)
        estimate = (wins - losses) / 30
        spread = math.sqrt(max(wins + losses - 30 * estimate**2, 0)) / 30
        wald += chance * (estimate - 1.645 * spread > win - loss)
    assert tango <= 0.06
    assert wald >= tango


def test_mcnemar_is_scipys_exact_binomial_test() -> None:
    for wins, losses in ((0, 0), (0, 5), (5, 0), (12, 7), (40, 61)):
        wanted = stats.binomtest(wins, wins + losses, alternative="greater").pvalue if wins + losses else 1.0
        assert intervals.mcnemar(wins, losses) == pytest.approx(wanted, rel=1e-9)


def test_student_is_scipys_and_unbounded_for_one_value() -> None:
    values = np.random.default_rng(0).exponential(size=17)
    wanted = stats.t.interval(0.95, 16, values.mean(), stats.sem(values))
    assert intervals.student(values, 0.95) == pytest.approx(wanted)
    assert intervals.student(values[:1], 0.95) == (-math.inf, math.inf)


@pytest.mark.parametrize("n", [1, 5, 6, 20, 101])
def test_the_median_s_interval_holds_at_its_confidence(n: int) -> None:
    low, high = intervals.median(np.arange(n, dtype=float), 0.95)
    if n < 6:
        assert (low, high) == (-math.inf, math.inf)
        return
    outside = stats.binom.cdf(low, n, 0.5)
    assert 2 * outside <= 0.05 < 2 * stats.binom.cdf(low + 1, n, 0.5)
    assert high == n - 1 - low


def test_auc_is_bounded_where_every_row_is_ranked_right() -> None:
    low, high = intervals.auc(1.0, 0.0, 10, 10, 0.95)
    assert 0.65 < low < 0.95 and high == 1.0
    assert intervals.auc(0.0, 0.0, 10, 10, 0.95) == pytest.approx((0.0, 1 - low))
    assert intervals.auc(1.0, 0.0, 1000, 1000, 0.95)[0] > 0.99


def test_resampled_sums_have_the_mean_and_spread_of_the_bootstrap() -> None:
    values = np.random.default_rng(1).normal(size=(500, 3))
    sums = intervals.resample_sums(values, 4000, seed=2)
    assert sums.mean(axis=0) == pytest.approx(values.sum(axis=0), abs=1.5)
    assert sums.std(axis=0) == pytest.approx(values.std(axis=0) * math.sqrt(500), rel=0.05)
    assert np.array_equal(sums, intervals.resample_sums(values, 4000, seed=2))


def test_many_rows_are_resampled_from_the_normal_limit_with_the_same_spread() -> None:
    rows = intervals.resampling.RESAMPLED_ROWS + 1
    values = np.random.default_rng(1).exponential(size=(rows, 2))
    sums = intervals.resample_sums(values, 2000, seed=2)
    assert sums.mean(axis=0) == pytest.approx(values.sum(axis=0), rel=1e-3)
    assert sums.std(axis=0) == pytest.approx(values.std(axis=0) * math.sqrt(rows), rel=0.06)


def test_resampled_counts_keep_the_total_and_the_shape() -> None:
    table = np.array([[5, 0], [2, 13]])
    drawn = intervals.resample_counts(table, 1000, seed=0)
    assert drawn.shape == (1000, 2, 2)
    assert (drawn.sum(axis=(1, 2)) == 20).all() and (drawn[:, 0, 1] == 0).all()
    assert drawn.mean(axis=0) == pytest.approx(table, abs=0.3)


def test_a_percentile_interval_holds_its_estimate_and_ignores_what_is_not_finite() -> None:
    assert intervals.percentile(np.array([2.0, 3.0, np.nan]), 1.0, 0.9)[0] == 1.0
    assert intervals.percentile(np.array([np.nan]), 1.0, 0.9) == (-math.inf, math.inf)
