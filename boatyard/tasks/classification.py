"""Classification: one label of two or more; the graph gives a probability for each label and the likeliest one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from boatyard.data.schema import Array, Schema
from boatyard.errors import ArtifactError, DataError
from boatyard.tasks.base import TOLERANCE, Task
from boatyard.tasks.parts import Head, Output, Predictions, Problem, Worded
from boatyard.tasks.targets import LabelTarget, Target

if TYPE_CHECKING:
    from torch import Tensor, nn

    from boatyard.evaluation.measures import Sample
    from boatyard.evaluation.report import ReportParts
    from boatyard.prediction.answers import Answers

CLEAR = 2e-5  # two probabilities nearer than this may be ordered either way by rounding


@dataclass(frozen=True)
class Softmax(Head):
    """Label indices go in as they are; outputs [N, K] come out as probabilities [N, K]."""

    def encode(self, target: Tensor) -> Tensor:
        return target

    def decode(self, target: Tensor) -> Tensor:
        return target

    def answer(self, outputs: Tensor) -> tuple[Tensor, ...]:
        import torch

        return (torch.softmax(outputs.float(), dim=1),)


class Classification(Task):
    """A label, with the probability of every label."""

    name: ClassVar[str] = "classification"
    summary: ClassVar[str] = "a label"
    target: ClassVar[Target] = LabelTarget()
    losses: ClassVar[tuple[str, ...]] = ("cross_entropy", "label_smoothing", "mse")
    headline: ClassVar[tuple[str, ...]] = ("accuracy",)
    row_measure: ClassVar[str] = "accuracy"
    valid: ClassVar[str] = "a distribution of finite numbers"
    examples_by = "confidence"

    def wrong_schema(self, schema: Schema) -> str:
        few = len(schema.labels) < 2 or len(set(schema.labels)) != len(schema.labels)
        return "labels that are not two or more different ones" if few else ""

    def describe(self, target: str, labels: int) -> str:
        return f"classification of {target}, {labels} classes"

    # the model and its graph

    def outputs(self, schema: Schema) -> tuple[Output, ...]:
        label = Output("label", "str", texts=schema.labels)
        return label, Output("probabilities", "float32", (len(schema.labels),))

    def width(self, schema: Schema) -> int:
        if len(schema.labels) < 2:
            raise DataError(expected="two labels or more to tell apart", found=f"{list(schema.labels)}")
        return len(schema.labels)

    def loss(self, name: str, schema: Schema, statistics: Mapping[str, Any], class_weights: str) -> nn.Module:
        from boatyard.training import losses

        weights = losses.balanced(schema, statistics) if class_weights == "balanced" else None
        return losses.of_labels(name, weights)

    def head(self, loss: str | None, schema: Schema, statistics: Mapping[str, Any]) -> Head:
        return Softmax()

    def training_metrics(self, head: Head, outputs: Tensor, target: Tensor) -> dict[str, float]:
        return {"accuracy": float((outputs.argmax(1) == target).double().mean())}

    def computed(self, schema: Schema) -> tuple[str, ...]:
        return ("probabilities",)

    def nodes(self, schema: Schema) -> Iterator[Any]:
        """Name the greatest probability."""
        from onnx import helper

        yield helper.make_node("ArgMax", ["probabilities"], ["/index"], name="label/index", axis=1, keepdims=0)
        yield helper.make_node(
            "LabelEncoder",
            ["/index"],
            ["label"],
            name="label/decode",
            domain="ai.onnx.ml",
            keys_int64s=list(range(len(schema.labels))),
            values_strings=list(schema.labels),
            default_string="",
        )

    def wrong_graph(self, found: Mapping[str, Array], expected: Mapping[str, Array], schema: Schema) -> str:
        """A label may differ only where the two greatest probabilities are as good as equal."""
        probabilities = expected["probabilities"]
        top = np.sort(probabilities, axis=1)
        clear = top[:, -1] - top[:, -2] > CLEAR
        labels = np.asarray(schema.labels, dtype=object)[probabilities.argmax(axis=1)]
        wrong = int(np.sum(clear & (np.asarray(found["label"], dtype=object) != labels)))
        return f"another label than the model for {wrong} of {len(labels)} rows" if wrong else ""

    # answers

    def read(self, schema: Schema, values: Sequence[Any]) -> Answers:
        answers = super().read(schema, values)
        probabilities = answers["probabilities"]
        beyond = ((probabilities < -TOLERANCE) | (probabilities > 1 + TOLERANCE)).any(axis=1)
        if beyond.any():
            row = int(beyond.argmax())
            raise ArtifactError(
                f"prediction {row}", expected="probabilities from 0 to 1", found=f"{probabilities[row]}"
            )
        return answers

    def apart(self, output: Output, expected: Any, found: Any) -> str:
        if output.name == "label":
            return super().apart(output, expected, found)
        return f"a probability is off by {float(np.max(np.abs(expected - found))):g}"

    # evaluation

    def invalid(self, schema: Schema, answers: Answers) -> Array:
        from boatyard.evaluation import metrics

        return metrics.invalid_rows(answers["probabilities"])

    def predictions(self, schema: Schema, target: Array, answers: Answers) -> Predictions:
        index = {label: number for number, label in enumerate(schema.labels)}
        try:
            labels = np.array([index[str(label)] for label in answers["label"]], dtype=np.int64)
        except KeyError as error:
            raise ArtifactError(
                f"the graph answered {error}, which is none of its labels", fix="export it again"
            ) from error
        if len(target) and (target.min() < 0 or target.max() >= len(schema.labels)):
            raise ArtifactError(
                f"the test rows have a label beyond the {len(schema.labels)} of the schema", fix="preprocess again"
            )
        invalid = self.invalid(schema, answers)
        labels[invalid] = -1
        return Predictions(schema, target, {"label": labels, "probabilities": answers["probabilities"]}, invalid)

    def row_loss(self, predictions: Predictions) -> Array:
        from boatyard.evaluation import metrics

        given = np.nan_to_num(predictions.outputs["probabilities"])
        return np.where(predictions.invalid, np.inf, metrics.row_loss(predictions.target, given))

    def outcome(self, predictions: Predictions) -> Array:
        return np.asarray(predictions.target == predictions.outputs["label"])

    def word(self, predictions: Predictions, row: int) -> Worded:
        labels, target = predictions.schema.labels, int(predictions.target[row])
        given = int(predictions.outputs["label"][row])
        if given < 0:
            return Worded(labels[target], "no number", False)
        confidence = float(np.max(predictions.outputs["probabilities"][row]))
        return Worded(labels[target], labels[given], given == target, confidence)

    def report_parts(self, sample: Sample) -> ReportParts:
        from boatyard.evaluation import metrics
        from boatyard.evaluation.report import Confusion, ReportParts

        schema, target, good = sample.schema, sample.target, ~sample.invalid
        labels, probabilities = sample.outputs["label"], sample.outputs["probabilities"]
        classes = metrics.class_scores(schema.labels, target, labels, probabilities, sample.confidence)
        top = probabilities[good].max(axis=1).astype(np.float64)
        right = target[good] == labels[good]
        return ReportParts(
            classes=classes,
            confusion_cells=Confusion.of(schema.labels, metrics.confusion(target, labels, len(schema.labels))),
            calibration=metrics.calibration(right, top, sample.bins, sample.confidence) if good.any() else (),
            rocs=metrics.worst_rocs(classes, target[good], probabilities[good]),
        )

    # recipes

    def problem(self, thirds: Array) -> Problem:
        labels = ("left", "middle", "right")
        counts = np.bincount(thirds, minlength=len(labels)).tolist()
        return Problem(labels, thirds, {"counts": dict(zip(labels, counts, strict=True))})


TASK = Classification()
