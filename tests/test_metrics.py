"""Metrics agree with scikit-learn's, keep to their bounds, and say so where there is nothing to measure."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn
from sklearn import metrics as reference

from boatyard.data.schema import Schema
from boatyard.evaluation import measures, metrics
from boatyard.evaluation.measures import Sample
from boatyard.tasks import Predictions


def sample(rows: int, labels: int, seed: int = 0, skill: float = 1.5) -> tuple[Any, Any, Any]:
    random = np.random.default_rng(seed)
    target = random.integers(0, labels, rows)
    scores = np.exp(random.normal(size=(rows, labels)) + skill * np.eye(labels)[target])
    probabilities = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
    return target, probabilities.argmax(axis=1), probabilities


def classification(target: Any, predicted: Any, probabilities: Any, **settings: Any) -> dict[str, metrics.Metric]:
    """Measure classified rows as evaluate does; a prediction of -1 is invalid."""
    schema = Schema("classification", (), "y", tuple(map(str, range(probabilities.shape[1]))))
    outputs = {"label": predicted, "probabilities": probabilities}
    predictions = Predictions(schema, target, outputs, predicted < 0)
    return measures.compute(Sample(predictions, **settings), measures.of("classification"))


@pytest.mark.parametrize("labels", [2, 5])
def test_numbers_are_scikit_learns(labels: int) -> None:
    target, predicted, p = sample(400, labels)
    found = classification(target, predicted, p)
    exact = p / p.sum(axis=1, keepdims=True, dtype=np.float64)
    score = p[:, 1] if labels == 2 else exact
    wanted = {
        "accuracy": reference.accuracy_score(target, predicted),
        "balanced_accuracy": reference.balanced_accuracy_score(target, predicted),
        "macro_f1": reference.f1_score(target, predicted, average="macro"),
        "log_loss": reference.log_loss(target, exact),
        "auc": reference.roc_auc_score(target, score, multi_class="ovr"),
    }
    assert {name: found[name].value for name in wanted} == pytest.approx(wanted, rel=1e-5)
    truth = np.eye(labels)[target]
    brier = ((p - truth) ** 2).sum(axis=1).mean() / (2 if labels == 2 else 1)
    assert found["brier"].value == pytest.approx(brier, rel=1e-5)
    if labels == 5:
        wanted_top = reference.top_k_accuracy_score(target, p, k=3)
        assert found["top_3_accuracy"].value == pytest.approx(wanted_top)


def test_a_project_file_can_ask_for_what_is_measured_and_nothing_else() -> None:
    assert list(classification(*sample(50, 5))) == [measure.name for measure in measures.of("classification")]
    assert list(metrics.regression(np.arange(5.0), np.arange(5.0))) == [m.name for m in measures.of("regression")]


def test_every_measure_says_what_it_is_and_how_its_interval_is_made() -> None:
    found = {**classification(*sample(200, 5)), **metrics.regression(np.arange(9.0), np.arange(9.0) + 0.5)}
    for measure in measures.MEASURES:
        assert measure.title and measure.explanation
        assert found[measure.name].method in measure.interval, measure.name
        value = found[measure.name].value
        assert value is not None and not measure.wrong_bound(value), measure.name


def test_classes_are_scikit_learns() -> None:
    target, predicted, p = sample(300, 4)
    scores = metrics.class_scores("abcd", target, predicted, p, 0.95)
    table = reference.precision_recall_fscore_support(target, predicted)
    for k, one in enumerate(scores):
        assert (one.precision.value, one.recall.value, one.f1.value) == pytest.approx(tuple(r[k] for r in table[:3]))
        assert one.support == table[3][k]
        assert one.auc.value == pytest.approx(reference.roc_auc_score(target == k, p[:, k]))
    assert (metrics.confusion(target, predicted, 4) == reference.confusion_matrix(target, predicted)).all()


def test_regression_is_scikit_learns() -> None:
    random = np.random.default_rng(0)
    target = random.normal(1000, 3, 250).astype(np.float32)
    values = (target + random.normal(0.4, 1, 250)).astype(np.float32)
    found = metrics.regression(target, values)
    wanted = {
        "rmse": reference.root_mean_squared_error(target, values),
        "mae": reference.mean_absolute_error(target, values),
        "median_absolute_error": reference.median_absolute_error(target, values),
        "r2": reference.r2_score(target, values),
        "bias": float((values - target).mean()),
    }
    assert {name: one.value for name, one in found.items()} == pytest.approx(wanted, rel=1e-3)


def test_the_roc_curve_is_scikit_learns_with_finite_thresholds() -> None:
    random = np.random.default_rng(0)
    positive, score = random.random(90) < 0.4, random.random(90).astype(np.float32).round(1)
    curve = metrics.roc(positive, score, "yes")
    fpr, tpr, thresholds = reference.roc_curve(positive, score, drop_intermediate=False)
    assert curve is not None
    assert curve.fpr == pytest.approx(fpr) and curve.tpr == pytest.approx(tpr)
    assert curve.thresholds[1:] == pytest.approx(thresholds[1:])
    assert all(map(math.isfinite, curve.thresholds))


def test_a_long_roc_curve_is_thinned_and_keeps_its_area() -> None:
    target, _, p = sample(20_000, 2)
    curve = metrics.roc(target == 1, p[:, 1], "yes", points=120)
    assert curve is not None and len(curve.fpr) <= 123
    assert (curve.fpr[0], curve.tpr[0], curve.fpr[-1], curve.tpr[-1]) == (0, 0, 1, 1)
    area = np.trapezoid(curve.tpr, curve.fpr) if hasattr(np, "trapezoid") else np.trapz(curve.tpr, curve.fpr)
    assert area == pytest.approx(reference.roc_auc_score(target, p[:, 1]), abs=2e-3)


def test_delong_s_variance_is_that_of_the_definition() -> None:
    """By the pairs: the share of negatives below each positive, the share of positives above each negative."""
    random = np.random.default_rng(3)
    positive, score = random.random(60) < 0.4, random.integers(0, 8, 60).astype(np.float32)
    area, influence = metrics.delong(positive, score)
    up, down = score[positive][:, None], score[~positive][None, :]
    wins = (up > down) + 0.5 * (up == down)
    variance = wins.mean(axis=1).var(ddof=1) / len(up) + wins.mean(axis=0).var(ddof=1) / down.size
    assert area == pytest.approx(wins.mean())
    assert (influence**2).sum() == pytest.approx(variance)


def test_calibration_error_is_the_weighted_gap_of_the_bins() -> None:
    target, predicted, p = sample(500, 3)
    bins = metrics.calibration(target == predicted, p.max(axis=1).astype(float), 10, 0.95)
    ece = classification(target, predicted, p, bins=10)["ece"]
    assert ece.value == pytest.approx(sum(b.n / 500 * abs(b.accuracy - b.confidence) for b in bins))
    assert sum(b.n for b in bins) == 500
    assert all(b.low < b.confidence <= b.high and b.accuracy_low <= b.accuracy <= b.accuracy_high for b in bins)
    assert "biased upwards" in ece.note


def test_the_debiased_calibration_error_of_a_calibrated_model_is_about_nothing() -> None:
    random = np.random.default_rng(0)
    sure = random.uniform(0.5, 1, 4000)
    target = (random.random(4000) > sure).astype(np.int64)
    p = np.column_stack([sure, 1 - sure]).astype(np.float32)
    found = classification(target, np.zeros(4000, np.int64), p)
    assert found["calibration_rmse"].value < 0.02  # type: ignore[operator]
    assert found["ece"].value > 0.005  # type: ignore[operator]


def test_perfect_predictions_leave_room_for_doubt() -> None:
    target = np.array([0, 1, 2] * 10)
    found = classification(target, target, np.eye(3, dtype=np.float32)[target])
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "auc"):
        assert found[name].value == 1.0 and found[name].high == 1.0
        assert 0.6 < found[name].low < 1.0  # type: ignore[operator]
    assert found["log_loss"].value == pytest.approx(metrics.CLIP, rel=0.01)


def test_a_probability_of_nought_is_clipped() -> None:
    p = np.array([[1.0, 0.0]], np.float32)
    assert metrics.row_loss(np.array([1]), p)[0] == pytest.approx(-math.log(metrics.CLIP))


def test_a_label_without_rows_is_left_out_and_said() -> None:
    target, predicted = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    p = np.full((4, 3), 0.1, np.float32)
    p[np.arange(4), predicted] = 0.8
    found = classification(target, predicted, p)
    assert (
        found["balanced_accuracy"].value == 0.75
        and "labels left out, having no test row: 1" in found["balanced_accuracy"].note
    )
    assert found["macro_f1"].value == pytest.approx(reference.f1_score(target, predicted, average="macro"))
    last = metrics.class_scores("abc", target, predicted, p, 0.95)[2]
    assert last.recall.value is None and last.recall.note == "no test row has this label"
    assert last.auc.value is None


def test_one_label_alone_has_no_area() -> None:
    found = classification(np.array([1, 1]), np.array([1, 0]), np.full((2, 2), 0.5, np.float32))
    assert found["auc"].value is None and "one label only" in found["auc"].note


def test_one_row_has_values_and_intervals_only_of_what_is_bounded() -> None:
    found = classification(np.array([0]), np.array([0]), np.array([[0.7, 0.3]], np.float32))
    assert found["accuracy"].low == pytest.approx(0.025)
    assert found["brier"].low == pytest.approx(0, abs=0.01) and found["brier"].high == 1.0
    assert found["ece"].low is None and "too few rows" in found["ece"].note
    for name, one in metrics.regression(np.array([1.0]), np.array([2.0])).items():
        assert one.low is None and ("too few rows" in one.note or name == "r2"), name


def test_a_mean_over_labels_has_no_interval_where_a_label_has_no_row() -> None:
    target, predicted, p = sample(300, 3)
    predicted[target == 2], target[target == 2] = 0, 0
    found = classification(target, predicted, p)
    for name in ("balanced_accuracy", "macro_f1", "auc"):
        assert found[name].value is not None and found[name].low is None
        assert "having no test row: 1; too few rows for an interval" in found[name].note


def test_a_constant_target_has_no_r2() -> None:
    found = metrics.regression(np.ones(5), np.arange(5.0))
    assert found["r2"].value is None and "constant" in found["r2"].note


def test_answers_that_are_no_numbers_count_as_wrong_and_are_said() -> None:
    target, predicted, p = sample(50, 3)
    p[:4] = [[np.nan] * 3, [np.inf, 0, 0], [-0.5, 0.5, 1.0], [0.5, 0.5, 0.5]]
    bad = metrics.invalid_rows(p)
    assert bad[:4].all() and not bad[4:].any()
    found = classification(target, np.where(bad, -1, predicted), p)
    assert found["accuracy"].value == pytest.approx((target == predicted)[4:].sum() / 50)
    assert found["log_loss"].value is None and "4 of 50 predictions" in found["log_loss"].note
    assert metrics.regression(np.ones(2), np.array([np.nan, 1]))["mae"].note == "1 of 2 predictions are not finite"


def test_numbers_are_flat_and_finite() -> None:
    found = metrics.numbers(classification(*sample(30, 3)))
    assert {"accuracy", "accuracy_low", "accuracy_high", "log_loss"} <= found.keys()
    assert all(math.isfinite(value) for value in found.values())


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5), st.data())
def test_any_answers_give_finite_numbers_or_none(labels: int, data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 12))
    wild = st.floats(width=32, allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1.0, 0.5])
    p = data.draw(hn.arrays(np.float32, (rows, labels), elements=wild))
    if data.draw(st.booleans()):  # make them distributions
        p = np.nan_to_num(abs(p), posinf=1.0, neginf=1.0).clip(0, 1)
        p = ((p + 1e-6) / (p + 1e-6).sum(axis=1, keepdims=True)).astype(np.float32)
    target = data.draw(hn.arrays(np.int64, rows, elements=st.integers(0, labels - 1)))
    predicted = np.where(metrics.invalid_rows(p), -1, np.nan_to_num(p).argmax(axis=1))
    found = classification(target, predicted, p)
    scores = metrics.class_scores([str(k) for k in range(labels)], target, predicted, p, 0.95)
    json.dumps([asdict(one) for one in (*found.values(), *scores)], allow_nan=False)
    for one in found.values():
        if one.value is not None and one.low is not None and one.high is not None:
            assert one.low - 1e-12 <= one.value <= one.high + 1e-12


@settings(max_examples=60, deadline=None)
@given(hn.arrays(np.float32, st.tuples(st.integers(1, 12), st.just(2)), elements=st.floats(width=32)))
def test_any_values_give_finite_numbers_or_none(pairs: Any) -> None:
    target = np.nan_to_num(pairs[:, 0], posinf=0, neginf=0)
    found = metrics.regression(target, pairs[:, 1])
    json.dumps([asdict(one) for one in found.values()], allow_nan=False)
