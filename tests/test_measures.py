"""A measure is one module with an entry point: the project file, the report and the gate know it from then on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import echoes
import numpy as np
import pytest
import toy_range
from sklearn.metrics import cohen_kappa_score

from boatyard import evaluation, gating, project
from boatyard.errors import ConfigError
from boatyard.evaluation import measures
from boatyard.project import EvaluateConfig, GateConfig

VALUES = {"name": "digits", "data": {"source": "csv", "path": "rows.csv", "target": "y"}}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    made = toy_range.installed(tmp_path / "site")
    monkeypatch.syspath_prepend(made)
    yield made


def checked(**gate: object) -> project.Project:
    return project.check({**VALUES, "gate": gate}, "boatyard.yaml")


def test_a_key_of_the_gate_that_no_measure_has_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"gate.minimum.acuracy: no such metric of a classification; did you mean"):
        checked(minimum={"acuracy": 0.9})
    with pytest.raises(ConfigError, match=r"gate.minimum.rmse: no such metric of a classification"):
        checked(minimum={"rmse": 0.9})
    with pytest.raises(ConfigError, match=r"gate.minimum.kappa: no such metric of a classification"):
        checked(minimum={"kappa": 0.9})


def test_a_bound_that_no_model_can_be_held_to_is_refused(site: Path) -> None:
    for wrong, said in (
        ({"accuracy": 90}, "expected a share from 0 to 1, such as 0.9 for 90 %, found 90"),
        ({"kappa": -1.5}, "gate.minimum.kappa: expected a number from -1 to 1, found -1.5"),
        ({"log_loss": -0.5}, "expected a number of 0 or more, found -0.5"),
    ):
        with pytest.raises(ConfigError, match=said):
            checked(minimum=wrong)


def test_a_measure_of_a_plug_in_is_computed_shown_and_gated(site: Path, tmp_path: Path) -> None:
    assert checked(minimum={"kappa": 0.4}).gate.minimum == {"kappa": 0.4}
    random = np.random.default_rng(0)
    target = random.integers(0, 3, 300)
    given = np.where(random.random(300) < 0.8, target, (target + 1) % 3)
    rules = GateConfig(minimum={"kappa": 0.95}, rows=1)
    data = echoes.dataset(tmp_path / "data", echoes.schema(3, ("a", "b", "c")), echoes.certain(given, 3), target)
    checkpoint = echoes.checkpoint(tmp_path / "checkpoint", data, gate=rules)
    report = evaluation.evaluate(EvaluateConfig(bootstrap=300), data, checkpoint, tmp_path / "report")
    kappa = report.metrics["kappa"]
    assert kappa.value == pytest.approx(cohen_kappa_score(target, given))
    assert kappa.low is not None and kappa.high is not None and kappa.low < kappa.value < kappa.high
    assert kappa.method == "bootstrap percentile"
    assert "agreement beyond chance" in (tmp_path / "report" / "report.html").read_text()
    verdict = gating.gate(rules, tmp_path / "report", checkpoint, data, production=None)
    assert (
        not verdict.passed
        and "kappa is at least" in verdict.sentence
        and "expected 0.9500 or more: margin −" in verdict.sentence
    )


def test_an_entry_point_that_is_no_measure_of_its_name_is_refused(site: Path) -> None:
    points = site / "toy_range-1.0.dist-info" / "entry_points.txt"
    points.write_text("[boatyard.measures]\ncohen = toy_range:KAPPA\n")
    with pytest.raises(ConfigError, match="measure cohen: its entry point is no Measure of that name"):
        measures.of("classification")


def test_the_docs_table_has_every_measure_with_its_interval_and_no_other() -> None:
    page = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text()
    table = page.partition("| metric | interval | remark |")[2].partition("\n\n")[0]
    intervals = {}
    for line in table.splitlines()[2:]:
        names, interval, *_ = line.strip("| ").split(" | ")
        intervals |= dict.fromkeys(re.findall(r"`(\w+)`", names), interval)
    assert set(intervals) == {measure.name for measure in measures.MEASURES}
    for measure in measures.MEASURES:
        assert intervals[measure.name].startswith(re.split(r"[ ,]", measure.interval)[0]), measure.name
