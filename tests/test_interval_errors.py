"""Each end of an interval is beyond the truth as seldom as it says: few rows, rare labels, heavy tails (seeded)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks import intervals as simulated
from boatyard.evaluation import intervals, metrics, slices

SAMPLES = 200


def most(shown: int) -> float:
    """3.5 %, and what chance adds to it in so many intervals (three deviations)."""
    return 0.035 * shown + 3 * math.sqrt(0.035 * shown)


def run(cells: Iterator[simulated.Cell], samples: int) -> dict[str, list[simulated.Ends]]:
    """Return each measure's ends by cell; none is beyond the truth too often, all cells together."""
    found: dict[str, list[simulated.Ends]] = {}
    for cell in cells:
        for name, ends in cell.run(samples, seed=1).items():
            found.setdefault(name, []).append(ends)
    for name, cell_ends in found.items():
        shown = sum(ends.shown for ends in cell_ends)
        assert max(sum(ends.low for ends in cell_ends), sum(ends.high for ends in cell_ends)) <= most(shown), name
    return found


@pytest.mark.parametrize("kind", list(simulated.ERRORS))
def test_intervals_of_errors_hold_or_are_not_shown(kind: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(simulated, "ERRORS", {kind: simulated.ERRORS[kind]})
    monkeypatch.setattr(simulated, "TRUTH_ROWS", 200_000)
    few = run(simulated.numbers((50,)), 20)
    assert not sum(ends.shown for name in ("rmse", "r2", "mae", "bias") for ends in few[name])
    more = run(simulated.numbers((300,)), 100)
    assert all(ends.shown == 100 for ends in more["mae"])
    squares = sum(ends.shown for ends in more["rmse"])
    assert squares > 50 if kind == "normal" else squares <= 2  # of heavy tails no method's upper end holds


@pytest.mark.parametrize(("rows", "share"), [(50, 0.02), (300, 0.05)])
def test_intervals_of_labels_hold_or_are_not_shown(rows: int, share: float, monkeypatch: Any) -> None:
    monkeypatch.setattr(simulated, "SCORES", {"t3": simulated.t3})
    monkeypatch.setattr(simulated, "TRUTH_ROWS", 200_000)
    run(simulated.labels((rows,), (share,)), 50)


def test_the_gate_s_bounds_hold() -> None:
    run(simulated.gates((100,), (0.05,)), 100)


@pytest.mark.parametrize(("positives", "negatives", "distance"), [(2, 98, 1.5), (5, 95, 1.5), (20, 180, 3.0)])
def test_an_area_of_few_positives_is_not_above_the_truth_by_its_lower_end(
    positives: int, negatives: int, distance: float
) -> None:
    truth, random, above = (1 + math.erf(distance / 2)) / 2, np.random.default_rng(1), 0
    target = np.r_[np.ones(positives, int), np.zeros(negatives, int)]
    for _ in range(SAMPLES):
        score = 1 / (1 + np.exp(-(random.normal(size=len(target)) + distance * target)))
        low = metrics.auc(target, np.column_stack([1 - score, score]), 0.95).low
        assert low is not None
        above += low > truth
    assert above <= most(SAMPLES)


def test_a_loss_that_was_not_seen_is_allowed_for() -> None:
    """One row in 100 loses all; most samples of 50 rows have none of them."""
    random = np.random.default_rng(0)
    beyond = sum(intervals.bounded(random.random(50) < 0.01, 1.0, 0.95, 0)[1] < 0.01 for _ in range(SAMPLES))
    assert beyond == 0


@pytest.mark.parametrize("rows", [20, 400])
def test_the_interval_of_a_bounded_mean_is_within_its_bounds_and_holds_the_estimate(rows: int) -> None:
    for values in (np.zeros(rows), np.full(rows, 16.0), np.linspace(0, 16, rows)):
        low, high = intervals.bounded(values, 16.0, 0.95, 0)
        assert 0 <= low <= values.mean() <= high <= 16


def test_a_ratio_of_means_is_exact_where_one_is_a_multiple_of_the_other() -> None:
    values = np.random.default_rng(0).exponential(size=200)
    assert intervals.ratio(1.1 * values, values, 0.95) == pytest.approx((1.1, 1.1), abs=1e-6)
    assert intervals.ratio(values[:50], values[:50], 0.95) == (-math.inf, math.inf)
    assert intervals.ratio(values, np.zeros(200), 0.95) == (-math.inf, math.inf)


@pytest.mark.parametrize("kind", ["97 % right", "few different errors", "t3 errors"])
def test_chance_marks_a_slice_in_few_reports(kind: str) -> None:
    assert simulated.marked(100, 200, 3, kind) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 100)


def test_a_single_wrong_row_is_no_worse_slice() -> None:
    group = slices.SliceGroup("c", tuple("abcdefghij"), np.r_[np.zeros(190, int), np.arange(10)])
    right = np.r_[np.ones(199), 0.0]
    assert not any(part.worse for part in slices.accuracy_slices([group], right, 0.95))
    assert not any(part.worse for part in slices.error_slices([group], 1000 * (1 - right), 0.95))


def test_slices_that_are_worse_are_marked_however_heavy_the_tail() -> None:
    random = np.random.default_rng(0)
    group = slices.SliceGroup("site", ("north", "south"), (np.arange(1000) < 200).astype(int))
    size = abs(random.standard_t(3, 1000)) * np.where(group.codes, 2.0, 1.0)
    assert [part.value for part in slices.error_slices([group], size, 0.95) if part.worse] == ["south"]
    right = random.random(1000) < np.where(group.codes, 0.8, 0.95)
    assert [part.value for part in slices.accuracy_slices([group], right, 0.95) if part.worse] == ["south"]


def test_marks_are_the_same_in_units_that_make_errors_large() -> None:
    size = np.random.default_rng(1).exponential(size=400)
    group = slices.SliceGroup("g", ("a", "b"), (size > 1.5).astype(int))
    plain, large = (slices.error_slices([group], scale * size, 0.95) for scale in (1.0, 1e9))
    assert [part.worse for part in plain] == [part.worse for part in large] == [False, True]
