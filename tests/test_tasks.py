"""Tasks keep rules; what they write they read back, strictly, and one comparison tells two answers apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_range

from boatyard import plugins, tasks
from boatyard.data.schema import Field, Schema
from boatyard.errors import ArtifactError, Refused
from boatyard.prediction import Answers
from boatyard.tasks import conformance

LABELLED = Schema("classification", (Field("a", "number", "float32"),), "y", ("ant", "bee"))
NUMBER = Schema("regression", (Field("a", "number", "float32"),), "y")
SURE = {"label": "ant", "probabilities": [0.75, 0.25]}


@pytest.mark.parametrize("name", plugins.builtin("tasks"))
def test_a_task_that_is_built_in_keeps_the_rules(name: str) -> None:
    conformance.check(tasks.named(name))


def test_the_toy_task_keeps_them_and_one_that_does_not_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(toy_range.installed(tmp_path / "site"))
    conformance.check(toy_range.TASK)

    class Narrow(toy_range.Range):
        row_measure = "covrage"

        def computed(self, schema: Schema) -> tuple[str, ...]:
            return ("bounds", "value")

    with pytest.raises(Refused, match="breaks 2 of 4 rules") as refused:
        conformance.check(Narrow())
    assert "names covrage, which are no measures of it" in str(refused.value)


@pytest.mark.parametrize("schema", [LABELLED, NUMBER], ids=lambda schema: schema.task)
def test_answers_are_read_back_as_they_were_written(schema: Schema) -> None:
    task = tasks.of(schema)
    one: dict[str, Any] = {"label": np.array(["ant", "bee"], object), "probabilities": np.eye(2, dtype=np.float32)}
    answers = Answers(one if schema.labels else {"value": np.array([1.5, -2e30], np.float32)})
    again = task.read(schema, task.to_v1(answers))
    assert all(task.difference(schema, answers, again, row) is None for row in range(2))
    for before, after in zip(answers.outputs(), again.outputs(), strict=True):
        assert before.dtype == after.dtype and np.array_equal(before, after)


@pytest.mark.parametrize(
    ("schema", "wrong"),
    [
        *((NUMBER, value) for value in (None, "1", True, float("nan"), 1e39, 10**400, [1.0], {"value": 1.0})),
        *(
            (LABELLED, value)
            for value in (1.0, {}, {**SURE, "more": 1}, {**SURE, "label": "cat"}, {**SURE, "label": 1})
        ),
        *((LABELLED, {**SURE, "probabilities": value}) for value in ([1.0], [0.5, "x"], [1.5, -0.5], [[0.5, 0.5]], 1)),
    ],
)
def test_a_golden_answer_that_is_none_of_the_tasks_is_refused(schema: Schema, wrong: Any) -> None:
    right = SURE if schema.labels else 1.0
    with pytest.raises(ArtifactError, match="prediction 1: expected"):
        tasks.of(schema).read(schema, [right, wrong])


def test_answers_differ_by_more_than_rounding_alone() -> None:
    def difference(schema: Schema, one: Any, other: Any) -> str | None:
        task = tasks.of(schema)
        return task.difference(schema, task.read(schema, [one]), task.read(schema, [other]), 0)

    assert difference(NUMBER, 1e6, 1e6 + 5) is None
    assert difference(NUMBER, 1e6, 1e6 + 50) == "expected 1e+06, found 1.00005e+06"
    assert difference(LABELLED, SURE, {**SURE, "probabilities": [0.750005, 0.249995]}) is None
    assert difference(LABELLED, SURE, {**SURE, "probabilities": [0.76, 0.24]}) == "a probability is off by 0.01"
    assert difference(LABELLED, SURE, {**SURE, "label": "bee"}) == "expected 'ant', found 'bee'"
