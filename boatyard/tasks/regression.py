"""Regression: a number in the unit of the target column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from boatyard.data.schema import Array, Schema
from boatyard.errors import DataError
from boatyard.tasks.base import Task
from boatyard.tasks.parts import Head, Output, Predictions, Problem, Worded
from boatyard.tasks.targets import NumberTarget, Target

if TYPE_CHECKING:
    from torch import Tensor, nn

    from boatyard.evaluation.measures import Sample
    from boatyard.evaluation.report import ReportParts
    from boatyard.project import Project

OF_LABELS = ("cross_entropy", "label_smoothing")  # losses that are likely to be left over from a classification


@dataclass(frozen=True)
class Scaled(Head):
    """Values go in as (value - shift) / scale and come out the other way round.

    With `log` the model gives the logarithm of the value (a Poisson rate).
    """

    shift: float = 0.0
    scale: float = 1.0
    log: bool = False

    def encode(self, target: Tensor) -> Tensor:
        return ((target.double() - self.shift) / self.scale).float()

    def decode(self, target: Tensor) -> Tensor:
        return target * self.scale + self.shift

    def answer(self, outputs: Tensor) -> tuple[Tensor, ...]:
        import torch

        values = outputs.float().reshape(-1)
        return (torch.exp(values) if self.log else values * self.scale + self.shift,)

    def unit(self, expected: Array) -> Array | float:
        return self.scale * np.maximum(1.0, np.abs(expected)) if self.log else self.scale


class Regression(Task):
    """A number."""

    name: ClassVar[str] = "regression"
    summary: ClassVar[str] = "a number"
    target: ClassVar[Target] = NumberTarget()
    losses: ClassVar[tuple[str, ...]] = ("mse", "mae", "huber", "poisson")
    headline: ClassVar[tuple[str, ...]] = ("rmse", "r2")
    row_measure: ClassVar[str] = "mae"

    def check(self, project: Project) -> None:
        if project.train.loss in OF_LABELS:
            raise ValueError(f"train.loss is {project.train.loss}, which needs labels; task is {self.name}")
        if project.train.class_weights == "balanced":
            raise ValueError(f"train.class_weights is balanced, which needs labels; task is {self.name}")
        if project.data.labels:
            raise ValueError(f"data.labels names classes; task is {self.name}")
        super().check(project)

    # the model and its graph

    def outputs(self, schema: Schema) -> tuple[Output, ...]:
        return (Output("value", "float32"),)

    def width(self, schema: Schema) -> int:
        return 1

    def loss(self, name: str, schema: Schema, statistics: Mapping[str, Any], class_weights: str) -> nn.Module:
        from boatyard.training import losses

        return losses.of_values(name)

    def head(self, loss: str | None, schema: Schema, statistics: Mapping[str, Any]) -> Head:
        target = statistics["__target__"]
        if loss != "poisson":
            return Scaled(shift=float(target["mean"]), scale=float(target["std"]) or 1.0)
        if target["min"] < 0:
            raise DataError(
                "train.loss is poisson, which counts from 0", fix=f"the least {schema.target} is {target['min']:g}"
            )
        return Scaled(log=True)

    def training_metrics(self, head: Head, outputs: Tensor, target: Tensor) -> dict[str, float]:
        (values,) = head.answer(outputs)
        return {"rmse": float((values - head.decode(target)).double().square().mean().sqrt())}

    # evaluation

    def row_loss(self, predictions: Predictions) -> Array:
        error = abs(predictions.outputs["value"].astype(np.float64) - predictions.target)
        return np.where(np.isfinite(error), error, np.inf)

    def outcome(self, predictions: Predictions) -> Array:
        return self.row_loss(predictions)

    def word(self, predictions: Predictions, row: int) -> Worded:
        value = float(predictions.outputs["value"][row])
        given = "no number" if predictions.invalid[row] else f"{value:.6g}"
        return Worded(f"{float(predictions.target[row]):.6g}", given, False)

    def report_parts(self, sample: Sample) -> ReportParts:
        from boatyard.evaluation.report import ReportParts, Residuals

        return ReportParts(residuals=Residuals.of(sample.target, sample.outputs["value"], sample.seed))

    # recipes

    def problem(self, thirds: Array) -> Problem:
        values = (thirds - thirds.mean()) / thirds.std()
        return Problem((), values.astype(np.float32), {"mean": 0.0, "std": 1.0, "min": -2.0, "max": 2.0})


TASK = Regression()
