"""Engines are plug-ins that keep rules; one that breaks them is told which."""

from __future__ import annotations

from typing import Any

import pytest

from boatyard import plugins
from boatyard.errors import Refused
from boatyard.prediction import OnnxRuntime
from boatyard.prediction.engines import conformance


@pytest.mark.parametrize("name", plugins.builtin("engines"))
def test_an_engine_that_is_built_in_keeps_the_rules(name: str) -> None:
    conformance.check(plugins.load("engines", name))


def test_an_engine_that_rounds_or_mixes_rows_is_told_which_rule_it_breaks() -> None:
    class Mixed(OnnxRuntime):
        name = "mixed"

        def _answer(self, inputs: dict[str, Any]) -> list[Any]:
            outputs = super()._answer(inputs)
            return [column if column.dtype == object else column - column.mean(axis=0) for column in outputs]

    with pytest.raises(Refused, match="mixed breaks 4 rules") as refused:
        conformance.check(Mixed)
    assert "answers a row the same in any batch: row 0 is answered otherwise alone" in str(refused.value)


def test_the_choices_of_a_server_are_the_engines_that_there_are() -> None:
    assert plugins.names("engines") == ("onnxruntime", "openvino")
