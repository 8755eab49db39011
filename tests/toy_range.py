"""A task of the tests alone: the range that a number lies in nine times out of ten, and what follows from it.

Four outputs of three types and two shapes: `value` (the median), `bounds` (low and high), `rounded` (a whole number)
and `side` (a text: which side of zero). Registered by the entry points that `installed` writes; the library knows none
of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from boatyard.data.schema import Array, Schema
from boatyard.evaluation import metrics
from boatyard.evaluation.measures import Measure, Sample
from boatyard.tasks import Head, Output, Predictions, Problem, Task, Worded
from boatyard.tasks.targets import NumberTarget

SIDES = ("negative", "positive")
QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class Quantiles(Head):
    shift: float
    scale: float

    def encode(self, target: Any) -> Any:
        return ((target.double() - self.shift) / self.scale).float()

    def decode(self, target: Any) -> Any:
        return target * self.scale + self.shift

    def answer(self, outputs: Any) -> tuple[Any, ...]:
        import torch

        values = torch.sort(outputs.float(), dim=1).values * self.scale + self.shift
        return values[:, 1], values[:, [0, 2]]

    def unit(self, expected: Array) -> float:
        return self.scale


class Range(Task):
    name: ClassVar[str] = "range"
    summary: ClassVar[str] = "the range of a number"
    target = NumberTarget()
    losses: ClassVar[tuple[str, ...]] = ("pinball",)
    headline: ClassVar[tuple[str, ...]] = ("coverage",)
    row_measure: ClassVar[str] = "coverage"

    def outputs(self, schema: Schema) -> tuple[Output, ...]:
        value, bounds = Output("value", "float32"), Output("bounds", "float32", (2,))
        return value, bounds, Output("rounded", "int64"), Output("side", "str", texts=SIDES)

    def width(self, schema: Schema) -> int:
        return len(QUANTILES)

    def loss(self, name: str, schema: Schema, statistics: Mapping[str, Any], class_weights: str) -> Any:
        import torch

        class Pinball(torch.nn.Module):
            def forward(self, outputs: Any, target: Any) -> Any:
                error = target[:, None] - torch.sort(outputs, dim=1).values
                quantile = torch.tensor(QUANTILES)
                return torch.maximum(quantile * error, (quantile - 1) * error).mean()

        return Pinball()

    def head(self, loss: str | None, schema: Schema, statistics: Mapping[str, Any]) -> Head:
        target = statistics["__target__"]
        return Quantiles(float(target["mean"]), float(target["std"]))

    def training_metrics(self, head: Head, outputs: Any, target: Any) -> dict[str, float]:
        _, bounds = head.answer(outputs)
        truth = head.decode(target)
        return {"coverage": float(((bounds[:, 0] <= truth) & (truth <= bounds[:, 1])).double().mean())}

    def computed(self, schema: Schema) -> tuple[str, ...]:
        return "value", "bounds"

    def nodes(self, schema: Schema) -> Iterator[Any]:
        from onnx import TensorProto, helper

        yield helper.make_node("Round", ["value"], ["/whole"], name="rounded/round")
        yield helper.make_node("Cast", ["/whole"], ["rounded"], name="rounded/cast", to=TensorProto.INT64)
        yield helper.make_node("Sign", ["value"], ["/sign"], name="side/sign")
        yield helper.make_node("Relu", ["/sign"], ["/above"], name="side/above")
        yield helper.make_node("Cast", ["/above"], ["/code"], name="side/code", to=TensorProto.INT64)
        yield helper.make_node(
            "LabelEncoder",
            ["/code"],
            ["side"],
            name="side/decode",
            domain="ai.onnx.ml",
            keys_int64s=[0, 1],
            values_strings=list(SIDES),
            default_string="",
        )

    def wrong_graph(self, found: Mapping[str, Array], expected: Mapping[str, Array], schema: Schema) -> str:
        wrong = int((found["rounded"] != np.round(found["value"])).sum())
        return f"another whole number for {wrong} rows" if wrong else ""

    def row_loss(self, predictions: Predictions) -> Array:
        error = np.abs(predictions.outputs["value"].astype(np.float64) - predictions.target)
        return np.where(predictions.invalid, np.inf, error)

    def outcome(self, predictions: Predictions) -> Array:
        low, high = predictions.outputs["bounds"].T
        return (low <= predictions.target) & (predictions.target <= high)

    def word(self, predictions: Predictions, row: int) -> Worded:
        low, high = predictions.outputs["bounds"][row].tolist()
        right = bool(self.outcome(predictions)[row])
        return Worded(f"{float(predictions.target[row]):.4g}", f"{low:.4g} to {high:.4g}", right)

    def problem(self, thirds: Array) -> Problem:
        values = ((thirds - thirds.mean()) / thirds.std()).astype(np.float32)
        return Problem((), values, {"mean": 0.0, "std": 1.0, "min": -2.0, "max": 2.0})


TASK = Range()


def _coverage(sample: Sample) -> metrics.Metric:
    inside = int(TASK.outcome(sample.predictions).sum())
    return metrics.proportion(inside, len(sample), sample.confidence)


COVERAGE = Measure(
    "coverage",
    "Coverage",
    "share of the rows inside",
    ("range",),
    "greater",
    "Clopper-Pearson",
    _coverage,
    0.0,
    1.0,
    percent=True,
)


def kappa(sample: Sample) -> metrics.Metric:
    """Cohen's kappa, its interval from resampled confusion matrices."""
    from boatyard.evaluation import intervals

    labels = len(sample.schema.labels)
    table = metrics.confusion(sample.target, sample.outputs["label"], labels)
    drawn = intervals.resample_counts(table, sample.bootstrap, sample.seed)
    value = float(_agreement(table[None])[0])
    pair = intervals.percentile(_agreement(drawn), value, sample.confidence)
    return metrics.metric(value, pair, "bootstrap percentile", len(sample))


def _agreement(tables: Array) -> Array:
    shares = tables / tables.sum(axis=(1, 2), keepdims=True)
    observed = np.trace(shares, axis1=1, axis2=2)
    chance = (shares.sum(axis=1) * shares.sum(axis=2)).sum(axis=1)
    return np.asarray((observed - chance) / (1 - chance))


KAPPA = Measure(
    name="kappa",
    title="Cohen's kappa",
    explanation="agreement beyond chance; 1 is best, 0 is chance",
    tasks=("classification",),
    direction="greater",
    interval="bootstrap percentile",
    compute=kappa,
    low=-1.0,
    high=1.0,
)

POINTS = """
[boatyard.tasks]
range = toy_range:TASK

[boatyard.measures]
coverage = toy_range:COVERAGE
kappa = toy_range:KAPPA
"""


def installed(site: Path) -> Path:
    """Make a folder that is to be on the path what pip would make of a distribution with this module."""
    about = site / "toy_range-1.0.dist-info"
    about.mkdir(parents=True)
    shutil.copyfile(__file__, site / "toy_range.py")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-range\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    return site
