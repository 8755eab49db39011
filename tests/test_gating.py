"""The gate says yes or no, and why in numbers; it cannot be moved after training, nor by another model's report."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import echoes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from boatyard import evaluation, gating
from boatyard.data import artifacts
from boatyard.errors import ArtifactError, ConfigError
from boatyard.evaluation import intervals
from boatyard.gating import Verdict, gate
from boatyard.project import EvaluateConfig, GateConfig, NotWorseConfig

ALONE = GateConfig(not_worse=None)


class Case:
    """A dataset whose first columns answer for the candidate and whose last for production, evaluated."""

    def __init__(self, path: Path, new: Any, target: Any, *, old: Any = None, labels: Any = echoes.LABELS) -> None:
        width = len(labels) or 1
        answers = np.asarray(new, np.float32) if old is None else np.concatenate([new, old], axis=1)
        self.path, self.width = path, width
        self.data = echoes.dataset(path / "dataset", echoes.schema(answers.shape[1], labels), answers, target)
        self.report = path / "report"

    def gate(self, config: GateConfig, *, production: Path | None = None, sealed: GateConfig | None = None) -> Verdict:
        self.checkpoint = echoes.checkpoint(self.path / "checkpoint", self.data, gate=sealed or config)
        evaluation.evaluate(EvaluateConfig(bootstrap=200), self.data, self.checkpoint, self.report)
        return gate(config, self.report, self.checkpoint, self.data, production=production)

    def production(self, trained_on: str = "") -> Path:
        plain = np.full((2, len(self.data.schema.fields)), 1 / self.width)  # its golden examples
        rows = echoes.dataset(self.path / "golden", self.data.schema, plain, np.zeros(2, np.int64))
        return echoes.production(self.path / "old", rows, self.width, trained_on or self.data.digest)


def right(rows: int, wrong: int, labels: int = 3) -> tuple[Any, Any]:
    """Return target and answers of which the first `wrong` are wrong."""
    target = np.arange(rows) % labels
    return target, echoes.certain(np.where(np.arange(rows) < wrong, (target + 1) % labels, target), labels)


def rule(verdict: Verdict, name: str) -> gating.Rule:
    return next(rule for rule in verdict.rules if rule.name == name)


def test_a_model_above_its_minimum_passes_with_the_margin_said(tmp_path: Path) -> None:
    target, answers = right(1000, 50)
    verdict = Case(tmp_path, answers, target).gate(GateConfig(minimum={"accuracy": 0.9}, not_worse=None))
    assert verdict.passed
    assert (
        "accuracy is at least 0.9346 with 95 % confidence (Clopper-Pearson), "
        "expected 0.9000 or more: margin +0.0346 on 1000 rows" in (verdict.sentence)
    )


def test_a_refusal_names_rule_number_and_margin(tmp_path: Path) -> None:
    target, answers = right(1000, 80)
    verdict = Case(tmp_path, answers, target).gate(GateConfig(minimum={"accuracy": 0.91}, not_worse=None))
    assert not verdict.passed
    assert verdict.sentence == (
        "refused: accuracy is at least 0.9014 with 95 % confidence (Clopper-Pearson), expected 0.9100 or more: "
        "margin −0.0086 on 1000 rows"
    )
    found = rule(verdict, "accuracy")
    assert found.margin == pytest.approx(found.found - 0.91)  # type: ignore[operator]


def test_the_estimate_may_be_gated_instead_of_the_interval(tmp_path: Path) -> None:
    target, answers = right(1000, 80)
    config = GateConfig(minimum={"accuracy": 0.91}, bound="estimate", not_worse=None)
    verdict = Case(tmp_path, answers, target).gate(config)
    assert verdict.passed and "accuracy is 0.9200 (estimate)" in verdict.sentence


def test_a_maximum_is_held_against_the_upper_end(tmp_path: Path) -> None:
    target, answers = right(300, 30)
    verdict = Case(tmp_path, answers, target).gate(GateConfig(maximum={"log_loss": 0.4}, not_worse=None))
    found = rule(verdict, "log_loss")
    assert not verdict.passed and found.found is not None and found.found > 0.43
    assert found.margin == pytest.approx(0.4 - found.found)
    assert "expected 0.4000 or less: margin −" in verdict.sentence and "on 300 rows" in verdict.sentence


def test_too_few_rows_mean_no_however_good_they_are(tmp_path: Path) -> None:
    target, answers = right(99, 0)
    verdict = Case(tmp_path, answers, target).gate(ALONE)
    assert verdict.sentence == "refused: rows: 99 test rows, expected 100 or more: margin −1"


def test_answers_that_are_no_numbers_are_refused_in_a_sentence(tmp_path: Path) -> None:
    target, answers = right(300, 0)
    answers[:3] = np.nan
    verdict = Case(tmp_path, answers, target).gate(GateConfig(minimum={"auc": 0.5}, not_worse=None))
    assert "invalid_predictions: 3 of 300 predictions are not a distribution of finite numbers" in verdict.sentence
    assert "auc: expected at least 0.5000, found no number" in verdict.sentence
    path = tmp_path / "verdict.json"
    verdict.write(path)
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))


def test_an_unknown_metric_is_the_author_s_error_with_the_nearest_first(tmp_path: Path) -> None:
    target, answers = right(100, 0)
    with pytest.raises(
        ConfigError, match=r"gate\.minimum\.acuracy: the report has no such metric; did you mean accuracy"
    ):
        Case(tmp_path, answers, target).gate(GateConfig(minimum={"acuracy": 0.9}, not_worse=None))


def test_a_metric_without_an_interval_says_how_to_gate_it(tmp_path: Path) -> None:
    target, answers = right(200, 10)
    verdict = Case(tmp_path, answers, target).gate(GateConfig(maximum={"calibration_rmse": 0.5}, not_worse=None))
    assert "it has no interval; gate it by bound: estimate" in verdict.sentence


def test_rules_changed_after_training_are_refused(tmp_path: Path) -> None:
    target, answers = right(300, 20)
    loose = GateConfig(minimum={"accuracy": 0.5}, not_worse=None)
    strict = GateConfig(minimum={"accuracy": 0.99}, not_worse=None)
    verdict = Case(tmp_path, answers, target).gate(loose, sealed=strict)
    assert not verdict.passed
    assert f"the rules were changed after training (frozen then {strict.seal[:12]}…, now {loose.seal[:12]}…)" in (
        verdict.sentence
    )


def test_a_report_on_another_graph_is_refused(tmp_path: Path) -> None:
    target, answers = right(200, 0)
    case = Case(tmp_path, answers, target, old=answers)
    case.gate(ALONE)
    other = echoes.checkpoint(tmp_path / "other", case.data, first=3, gate=ALONE)
    with pytest.raises(ArtifactError, match=r"is about graph .* they do not belong together; evaluate again"):
        gate(ALONE, case.report, other, case.data, production=None)


def test_a_report_on_another_dataset_is_refused(tmp_path: Path) -> None:
    target, answers = right(200, 0)
    case = Case(tmp_path, answers, target)
    case.gate(ALONE)
    other = echoes.dataset(tmp_path / "other", case.data.schema, answers, (target + 1) % 3)
    with pytest.raises(ArtifactError, match="is about dataset"):
        gate(ALONE, case.report, case.checkpoint, other, production=None)


def test_a_changed_report_is_refused(tmp_path: Path) -> None:
    target, answers = right(200, 100)
    case = Case(tmp_path, answers, target)
    case.gate(ALONE)
    numbers = case.report / "report.json"
    numbers.write_text(numbers.read_text().replace("0.5", "0.9"))
    with pytest.raises(ArtifactError, match=r"report\.json"):
        gate(ALONE, case.report, case.checkpoint, case.data, production=None)


# Against the version in production


def pairs(tmp_path: Path, rows: int, new_wrong: int, old_wrong: int, both: int = 0) -> Case:
    """Candidate and production wrong on rows of their own, and on `both` together."""
    index, target = np.arange(rows), np.arange(rows) % 3
    new = index < new_wrong + both
    old = (index < both) | ((index >= new_wrong + both) & (index < new_wrong + both + old_wrong))
    answers = [echoes.certain(np.where(wrong, (target + 1) % 3, target), 3) for wrong in (new, old)]
    return Case(tmp_path, answers[0], target, old=answers[1])


def test_nothing_in_production_is_nothing_to_compare_with(tmp_path: Path) -> None:
    target, answers = right(200, 0)
    verdict = Case(tmp_path, answers, target).gate(GateConfig())
    assert verdict.passed
    assert "no version in production yet: nothing to compare with" in rule(verdict, "not_worse").sentence


def test_the_same_model_is_not_worse_on_enough_rows(tmp_path: Path) -> None:
    case = pairs(tmp_path, 1000, 0, 0, both=50)
    verdict = case.gate(GateConfig(), production=case.production())
    found = rule(verdict, "not_worse")
    assert verdict.passed and found.found == pytest.approx(intervals.tango(0, 0, 1000, 0.9)[0])
    assert verdict.digests["production"] == artifacts.digest_file(tmp_path / "old" / "package" / "package.json")


def test_a_worse_model_is_refused_by_tango_s_bound_on_the_same_rows(tmp_path: Path) -> None:
    case = pairs(tmp_path, 1000, 40, 10, both=30)
    verdict = case.gate(GateConfig(), production=case.production())
    found = rule(verdict, "not_worse")
    low = intervals.tango(10, 40, 1000, 0.9)[0]
    assert not verdict.passed and found.found == pytest.approx(low) and found.margin == pytest.approx(low + 0.01)
    assert (
        f"not_worse: accuracy minus production's is at least {low:+.4f} with 95 % confidence (Tango's score), "
        f"expected more than −0.0100: margin −{-low - 0.01:.4f} (accuracy 0.9300 against 0.9600 on the same 1000 rows, "
        "10 only this one got right, 40 only production did"
    ) in verdict.sentence


def test_a_better_model_passes_and_says_how_surely_it_is_better(tmp_path: Path) -> None:
    case = pairs(tmp_path, 1000, 5, 60)
    verdict = case.gate(GateConfig(), production=case.production())
    p = float(rule(verdict, "not_worse").sentence.split("exact McNemar p = ")[1].rstrip(")"))
    assert verdict.passed and p < 1e-9


def test_too_few_rows_cannot_show_that_a_model_is_not_worse(tmp_path: Path) -> None:
    case = pairs(tmp_path, 120, 0, 0)
    verdict = case.gate(GateConfig(), production=case.production())
    assert not verdict.passed and [r.name for r in verdict.rules if not r.passed] == ["not_worse"]


def test_a_version_trained_on_other_data_is_compared_with_a_note(tmp_path: Path) -> None:
    case = pairs(tmp_path, 1000, 0, 20)
    verdict = case.gate(GateConfig(), production=case.production(trained_on="f" * 64))
    assert verdict.passed and "may have been among its training rows" in verdict.notes[0]


def test_a_version_with_other_fields_is_refused_in_a_sentence(tmp_path: Path) -> None:
    case = pairs(tmp_path, 200, 0, 0)
    other = Case(tmp_path / "other", right(200, 0)[1], right(200, 0)[0])
    verdict = case.gate(GateConfig(), production=echoes.production(tmp_path / "p", other.data, 0))
    assert "the version in production cannot be asked the same rows: its field 'c3' is not there" in verdict.sentence


def test_a_version_with_other_labels_is_refused_in_a_sentence(tmp_path: Path) -> None:
    target, answers = right(200, 0)
    case = Case(tmp_path, answers, target)
    other = Case(tmp_path / "other", answers, target, labels=("ant", "bee", "dog"))
    verdict = case.gate(GateConfig(), production=echoes.production(tmp_path / "p", other.data, 0))
    assert "its labels are ant, bee, dog, here ant, bee, cat" in verdict.sentence


def test_labels_in_another_order_are_the_same_labels(tmp_path: Path) -> None:
    target, answers = right(1000, 10)
    case = Case(tmp_path, answers, target)
    turned = Case(tmp_path / "other", answers, target, labels=("cat", "ant", "bee"))
    verdict = case.gate(GateConfig(), production=echoes.production(tmp_path / "p", turned.data, 0))
    assert "accuracy 0.9900 against 0.0100" in rule(verdict, "not_worse").sentence


def test_a_changed_version_in_production_is_an_error_not_a_verdict(tmp_path: Path) -> None:
    case = pairs(tmp_path, 200, 0, 0)
    production = case.production()
    (production / "labels.json").write_text("[]")
    with pytest.raises(ArtifactError, match=r"labels\.json"):
        case.gate(GateConfig(), production=production)


def errors(path: Path, new: Any, old: Any) -> Case:
    target = np.linspace(5, 50, len(new)).astype(np.float32)
    return Case(path, (target + new)[:, None], target, old=(target + old)[:, None], labels=())


def test_a_regression_is_compared_by_its_paired_errors(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    old = random.normal(0, 1, 2000)
    better, worse = errors(tmp_path / "a", old * 0.95, old), errors(tmp_path / "b", old * 1.05, old)
    first = better.gate(GateConfig(), production=better.production())
    second = worse.gate(GateConfig(), production=worse.production())
    assert first.passed and rule(first, "not_worse").found == pytest.approx(0.05, abs=1e-3)
    assert not second.passed and "Hall and Student, Fieller" in second.sentence and "margin −" in second.sentence


def test_a_regression_against_a_perfect_one_is_refused_without_a_crash(tmp_path: Path) -> None:
    case = errors(tmp_path, np.full(200, 0.5), np.zeros(200))
    verdict = case.gate(GateConfig(), production=case.production())
    assert not verdict.passed and "no bound on how much the error grew" in verdict.sentence


def test_the_error_s_growth_bound_holds_as_often_as_it_says() -> None:
    random, held = np.random.default_rng(0), 0
    for _ in range(400):
        old = abs(random.normal(0, 1, 120))
        new = abs(old + random.normal(0, 0.3, 120)) * 1.1
        held += gating.error_growth(new, old, 0.95) >= 0.1482  # the growth over 4,000,000 such pairs
    assert held >= 364


# The verdict as a file


def test_a_verdict_is_read_as_it_was_written(tmp_path: Path) -> None:
    target, answers = right(200, 50)
    verdict = Case(tmp_path, answers, target).gate(GateConfig(minimum={"accuracy": 0.9}))
    verdict.write(tmp_path / "verdict.json")
    assert Verdict.read(tmp_path / "verdict.json") == verdict
    assert set(verdict.digests) == {"graph", "dataset", "report", "seal"}


def test_a_verdict_that_contradicts_its_rules_is_not_read(tmp_path: Path) -> None:
    target, answers = right(99, 0)
    path = tmp_path / "verdict.json"
    Case(tmp_path, answers, target).gate(ALONE).write(path)
    artifacts.write_json(path, {**json.loads(path.read_text()), "passed": True})
    with pytest.raises(ArtifactError, match="contradicts its own rules"):
        Verdict.read(path)


@pytest.mark.parametrize("value", [[], {}, {"kind": "verdict", "format": 1}, {"kind": "dataset"}])
def test_what_is_no_verdict_is_not_read(tmp_path: Path, value: Any) -> None:
    artifacts.write_json(tmp_path / "verdict.json", value)
    with pytest.raises(ArtifactError, match="run the gate again"):
        Verdict.read(tmp_path / "verdict.json")


def test_a_refusal_keeps_the_report(tmp_path: Path) -> None:
    target, answers = right(99, 0)
    case = Case(tmp_path, answers, target)
    case.gate(ALONE)
    artifacts.verify(case.report, "report")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(2, 8), st.booleans(), st.data())
def test_any_answers_lead_to_a_verdict(tmp_path: Path, rows: int, labelled: bool, data: st.DataObject) -> None:
    labels = echoes.LABELS if labelled else ()
    width, path = len(labels) or 1, tmp_path / str(len(list(tmp_path.iterdir())))
    new = data.draw(hn.arrays(np.float32, (rows, width), elements=st.floats(width=32) | st.sampled_from([0.0, 1.0])))
    target: Any = np.arange(rows) % 3 if labelled else np.arange(rows, dtype=np.float32)
    old = echoes.certain(target, 3) if labelled else target[:, None] + 1
    case = Case(path, new, target, old=old, labels=labels)
    metric = "accuracy" if labelled else "r2"
    config = GateConfig(minimum={metric: 0.5}, rows=1)
    verdict = case.gate(config, production=case.production())
    verdict.write(path / "verdict.json")
    json.loads((path / "verdict.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert verdict.sentence.startswith("passed: " if verdict.passed else "refused: ")
    for one in verdict.rules:
        assert one.sentence.startswith(one.name) and (not verdict.passed or one.passed)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.data())
def test_every_rule_names_itself_its_number_and_its_margin(rows: int, data: st.DataObject) -> None:
    new = data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows).map(np.array))
    old = data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows).map(np.array))
    found = gating.not_worse_rows(NotWorseConfig(margin=0.05), new, old)
    assert found.sentence.startswith("not_worse: ") and f"{found.found:+.4f}" in found.sentence
    assert found.passed == (found.margin > 0) and math.isfinite(found.margin)  # type: ignore[operator, arg-type]
    assert found.margin == pytest.approx(found.found + 0.05)  # type: ignore[operator]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.floats(0, 2.0**100, width=32)] * 2), min_size=1, max_size=20))
def test_any_errors_lead_to_a_rule_of_finite_numbers(both: list[tuple[float, float]]) -> None:
    new, old = (np.array(side, np.float64) for side in zip(*both, strict=True))
    found = gating.not_worse_errors(NotWorseConfig(), new, old)
    assert found.found is None or math.isfinite(found.found)
    assert not (found.passed and new.mean() > 1.01 * old.mean())
