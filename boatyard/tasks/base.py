"""A task: all that depends on what is predicted, from the project file to the protocols. Nothing else asks its name.

A task is a module of this folder with a `TASK`, or another distribution's entry point of the group `boatyard.tasks`.
This base knows outputs by name, type and shape alone; it serves a task whose answers are plain numbers as it is.
`boatyard.tasks.conformance.check` holds one to the rules.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np

from boatyard import plugins
from boatyard.data.schema import Array, Schema
from boatyard.errors import ArtifactError, ConfigError
from boatyard.spelling import hint, shorten
from boatyard.tasks.parts import Head, Output, Predictions, Problem, Worded
from boatyard.tasks.targets import Target

if TYPE_CHECKING:
    from torch import Tensor, nn

    from boatyard.evaluation.measures import Measure, Sample
    from boatyard.evaluation.report import ReportParts
    from boatyard.prediction.answers import Answers
    from boatyard.project import GateConfig, Project

TOLERANCE = 1e-5  # two builds of ONNX Runtime, or two batch sizes, round differently; a wrong model is far off


class Task(ABC):
    """What is predicted of a row, and how it is learnt, answered, measured and compared.

    `losses` are the names that `train.loss` may have, the first one the default. `headline` are the measures that
    a report opens with, the first before all. `row_measure` is the measure that is the mean of `outcome` over rows.
    """

    name: ClassVar[str]
    summary: ClassVar[str]  # what is predicted, for people: "a label"
    target: ClassVar[Target]
    losses: ClassVar[tuple[str, ...]]
    headline: ClassVar[tuple[str, ...]]
    row_measure: ClassVar[str]
    valid: ClassVar[str] = "finite"  # what every prediction must be, for the gate's sentence
    examples_by: ClassVar[Literal["confidence", "error"]] = "error"  # the number beside a worst example
    roles: ClassVar[tuple[str, ...]] = ()  # files that a package must have beyond those of every package

    # the project file and the schema

    def check(self, project: Project) -> None:
        """Refuse sections that do not go together with the task; raises ValueError, as a pydantic validator does."""
        loss = project.train.loss
        if loss is not None and loss not in self.losses:
            raise ValueError(f"train.loss: no loss {loss!r} for {self.name}; allowed are {', '.join(self.losses)}")
        self._check_gate(project.gate)

    def _check_gate(self, gate: GateConfig) -> None:
        """Refuse rules that no report can satisfy before anything is trained for them."""
        measures = self.measures
        for section, bounds in (("minimum", gate.minimum), ("maximum", gate.maximum)):
            for metric, bound in bounds.items():
                at = f"gate.{section}.{shorten(metric)}"
                if metric not in measures:
                    raise ValueError(f"{at}: no such metric of a {self.name}; {hint(metric, measures)}")
                if wrong := measures[metric].wrong_bound(bound):
                    raise ValueError(f"{at}: {wrong}")

    def wrong_schema(self, schema: Schema) -> str:
        """Say what of a schema cannot be for this task; empty for a good one."""
        return "labels of a number" if schema.labels else ""

    def describe(self, target: str, labels: int) -> str:
        """Say what is predicted: `regression of price`."""
        return f"{self.name} of {target}"

    # the model and its graph

    @abstractmethod
    def outputs(self, schema: Schema) -> tuple[Output, ...]:
        """Return the outputs of the graph, which are those of every answer, in order."""

    @abstractmethod
    def width(self, schema: Schema) -> int:
        """Return how many numbers a model gives for a row; raises DataError where there is nothing to learn."""

    @abstractmethod
    def loss(self, name: str, schema: Schema, statistics: Mapping[str, Any], class_weights: str) -> nn.Module:
        """Make a loss of `losses`: (outputs [N, width], encoded target [N]) to the mean over the rows."""

    @abstractmethod
    def head(self, loss: str | None, schema: Schema, statistics: Mapping[str, Any]) -> Head:
        """Make the head of a model that is trained with a loss; raises DataError for a target that it cannot take."""

    @abstractmethod
    def training_metrics(self, head: Head, outputs: Tensor, target: Tensor) -> dict[str, float]:
        """Return numbers for the log of an epoch: outputs [N, width], target as the loss takes it."""

    def computed(self, schema: Schema) -> tuple[str, ...]:
        """Return the outputs that the head computes; the others come of `nodes`."""
        return tuple(output.name for output in self.outputs(schema))

    def nodes(self, schema: Schema) -> Iterator[Any]:
        """Give the ONNX nodes that make the other outputs of the computed ones."""
        return iter(())

    def wrong_graph(self, found: Mapping[str, Array], expected: Mapping[str, Array], schema: Schema) -> str:
        """Say how the outputs of `nodes` are not those of the model's computed ones; empty where they are."""
        return ""

    # answers

    def to_v1(self, answers: Answers) -> list[Any]:
        """Return a JSON value a row: a number or text where there is one output, else an object by output name."""
        return answers.to_v1()

    def v1_rows(self, answers: Answers) -> Any:
        """Return the same with NumPy's arrays and numbers in it, which orjson writes as short as they read back."""
        # a float32 keeps its few digits in NumPy alone; orjson does not know the scalars of every integer type
        columns = {name: each if each.dtype.kind == "f" else each.tolist() for name, each in answers.items()}
        if len(columns) == 1:
            return next(iter(columns.values()))
        if len(answers) == 1:  # as most requests have: no walk over rows
            return [{name: column[0] for name, column in columns.items()}]
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def read(self, schema: Schema, values: Sequence[Any]) -> Answers:
        """Read what `to_v1` writes, strictly; raises ArtifactError with the row. Keys in any order, none more."""
        from boatyard.prediction.answers import Answers

        outputs = self.outputs(schema)
        columns: dict[str, list[Any]] = {output.name: [] for output in outputs}
        for row, value in enumerate(values):
            cells = {outputs[0].name: value} if len(outputs) == 1 else value
            if not isinstance(cells, dict) or set(cells) != set(columns):
                raise _unlike(row, _form(outputs), value)
            for output in outputs:
                if not _fits(cells[output.name], output):
                    raise _unlike(row, _form((output,)), cells[output.name])
                columns[output.name].append(cells[output.name])
        return Answers({output.name: _column(columns[output.name], output) for output in outputs})

    def difference(self, schema: Schema, expected: Answers, found: Answers, row: int) -> str | None:
        """Say how two answers to a row differ by more than rounding: 1e-5, or 1e-5 of the size of a number above 1."""
        for output in self.outputs(schema):
            one, other = expected[output.name][row], found[output.name][row]
            if not _same(one, other, output):
                return self.apart(output, one, other)
        return None

    def apart(self, output: Output, expected: Any, found: Any) -> str:
        """Say how one output of two answers to a row differs."""
        return f"expected {_told(expected)}, found {_told(found)}"

    # evaluation

    @property
    def measures(self) -> dict[str, Measure]:
        """The measures of this task by name, in the order of a report; those of plug-ins come last."""
        from boatyard.evaluation import measures

        return {measure.name: measure for measure in measures.of(self.name)}

    @property
    def main(self) -> str:
        """The measure that a report opens with."""
        return self.headline[0]

    def invalid(self, schema: Schema, answers: Answers) -> Array:
        """Return bool [N]: rows whose answer is none, which count as wrong and which the gate refuses."""
        return ~answers.finite()

    def predictions(self, schema: Schema, target: Array, answers: Answers) -> Predictions:
        """Return answers as measures take them; raises ArtifactError for texts that the schema does not know."""
        return Predictions(schema, target, dict(answers.items()), self.invalid(schema, answers))

    @abstractmethod
    def row_loss(self, predictions: Predictions) -> Array:
        """Return float64 [N], how wrong each row is; infinite where the answer is invalid. The worst come first."""

    @abstractmethod
    def outcome(self, predictions: Predictions) -> Array:
        """Return bool [N], whether a row is right, or float64 [N], its error (infinite where it is invalid).

        Its mean is `row_measure`. Slices and the gate's comparison with production are made of it: right rows by
        exact and by Tango's score interval, errors by Hall's and Student's.
        """

    @abstractmethod
    def word(self, predictions: Predictions, row: int) -> Worded:
        """Say a row's target and prediction for people."""

    def report_parts(self, sample: Sample) -> ReportParts:
        """Return what a report has beside measures, slices and examples: tables by label, curves, residuals."""
        from boatyard.evaluation.report import ReportParts

        return ReportParts()

    # recipes

    @abstractmethod
    def problem(self, thirds: Array) -> Problem:
        """Return targets that can be told from `thirds`, int64 [N] of 0, 1 and 2: what recipes are tried on."""


@cache
def named(name: str) -> Task:
    """Return a task by name; raises ConfigError with the nearest name where there is none."""
    return cast(Task, plugins.load("tasks", name, at="task"))


def of(schema: Schema) -> Task:
    """Return the task that a schema is for; raises ArtifactError where it is not installed."""
    try:
        return named(schema.task)
    except ConfigError as error:
        raise ArtifactError(f"schema.json: {error}", fix="install the distribution that brings it") from error


def target_as(target: Array, data: Schema, model: Schema) -> Array:
    """Return targets of a dataset as a model of other label order counts them."""
    if not data.labels or data.labels == model.labels:
        return target
    index = {label: number for number, label in enumerate(model.labels)}
    order = np.array([index[label] for label in data.labels], np.int64)
    return np.asarray(order[target])


def _same(one: Any, other: Any, output: Output) -> bool:
    if output.dtype == "str":
        return bool(np.array_equal(one, other))
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    return bool(np.all(np.abs(a - b) <= TOLERANCE * np.maximum(1.0, np.abs(a))))


def _form(outputs: Sequence[Output]) -> str:
    if len(outputs) > 1:
        return f"an object of {', '.join(output.name for output in outputs)}"
    words = {"float32": "finite number", "int64": "whole number", "str": "text"}
    word, shape = words[outputs[0].dtype], outputs[0].shape
    return f"{'a' if not shape else f'a list {list(shape)} of'} {word}{'s' if shape else ''}"


def _fits(value: Any, output: Output) -> bool:
    """Say whether a JSON value is one of an output's rows: the right shape, and in it elements of the right type."""
    return _shaped(value, output.shape, output)


def _shaped(value: Any, shape: tuple[int, ...], output: Output) -> bool:
    if shape:
        same = isinstance(value, list) and len(value) == shape[0]
        return same and all(_shaped(item, shape[1:], output) for item in value)
    if output.dtype == "str":
        return isinstance(value, str) and (not output.texts or value in output.texts)
    if isinstance(value, bool) or not isinstance(value, int if output.dtype == "int64" else int | float):
        return False
    return output.dtype == "int64" or _is_float32(value)


def _is_float32(value: float) -> bool:
    """Say whether a number is finite as float32 too; a JSON integer may be too great for any float."""
    try:
        return math.isfinite(value) and abs(value) <= float(np.finfo(np.float32).max)
    except OverflowError:
        return False


def _column(values: list[Any], output: Output) -> Array:
    dtype = object if output.dtype == "str" else np.dtype(output.dtype)
    return np.array(values, dtype).reshape(len(values), *output.shape)


def _unlike(row: int, expected: str, found: Any) -> ArtifactError:
    return ArtifactError(f"prediction {row}", expected=f"{expected}", found=f"{shorten(repr(found))[:100]}")


def _told(value: Any) -> str:
    """Say a value of one output in a few words."""
    plain = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    return f"{plain:g}" if isinstance(plain, float) else repr(plain)[:100]
