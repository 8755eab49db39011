"""Evaluate: the exported graph, under the engine that serves, on the test rows that nothing else has seen."""

from __future__ import annotations

import base64
import io
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from boatyard import __version__
from boatyard.data import artifacts, checkpoints
from boatyard.data.checkpoints import Checkpoint
from boatyard.data.datasets import Dataset
from boatyard.data.schema import Array, Batch, Schema
from boatyard.errors import ArtifactError, DataError
from boatyard.evaluation import metrics, slices
from boatyard.evaluation.report import KIND, NUMBERS, PAGE, PREDICTIONS, Confusion, Example, Report, Residuals, page
from boatyard.prediction import Answers, Engine
from boatyard.project import EvaluateConfig
from boatyard.running.progress import Progress

logger = logging.getLogger(__name__)
BATCH_ROWS, BATCH_BYTES = 1024, 1 << 23  # rows answered at once: enough to be fast, few enough to bound memory
THUMBNAIL = 96  # pixels a side of a picture in the report, at most
POINTS = 1000  # of a regression's scatter plot
CURVES = 20  # labels with a ROC curve of their own, the worst first


@dataclass
class Answered:
    """The test rows as answered so far: what metrics need of every row, and the worst rows whole."""

    schema: Schema
    keep: int
    columns: list[slices.Column]
    rows: list[Array] = field(default_factory=list)
    target: list[Array] = field(default_factory=list)
    predicted: list[Array] = field(default_factory=list)
    numbers: list[Array] = field(default_factory=list)
    worst: list[tuple[float, Example]] = field(default_factory=list)

    def add(self, batch: Batch, answers: Answers) -> None:
        """Take a batch and the engine's answers to it."""
        predicted, numbers = understand(self.schema, answers)
        self.rows.append(batch.rows)
        self.target.append(batch.target)
        self.predicted.append(predicted)
        self.numbers.append(numbers)
        slices.collect(self.columns, self.schema, batch)
        self._remember(batch, predicted, numbers)

    def _remember(self, batch: Batch, predicted: Array, numbers: Array) -> None:
        """Keep the rows with the greatest loss; a row without a number comes first."""
        loss = losses(self.schema, batch.target, predicted, numbers)
        for i in np.argsort(-loss, kind="stable")[: self.keep].tolist():
            if len(self.worst) < self.keep or loss[i] > self.worst[-1][0]:
                self.worst.append((float(loss[i]), example(self.schema, batch, i, predicted[i], numbers[i], loss[i])))
                self.worst.sort(key=lambda one: -one[0])
                del self.worst[self.keep :]


def evaluate(config: EvaluateConfig, dataset: Dataset, checkpoint: Path, out: Path) -> Report:
    """Answer every test row by the checkpoint's graph and write the report.

    Raises ArtifactError when the checkpoint was changed or was trained on another dataset, DataError when there is
    no test row. Answers that are no numbers are counted and reported; `gate` refuses them.
    """
    trained = read_checkpoint(checkpoint, dataset)
    total = dataset.rows("test")
    if total == 0:
        raise DataError(f"{dataset.path}: expected test rows, found none; give preprocess.split.test a larger share")
    logger.info("evaluate: %d test rows with %s", total, trained.graph)
    with artifacts.new_folder(out) as folder:
        answered = answer(Engine(trained.graph, dataset.schema), dataset, config.worst, folder / PREDICTIONS)
        report = measure(config, answered, origin(trained, dataset))
        artifacts.write_json(folder / NUMBERS, report.to_dict())
        artifacts.write_bytes(folder / PAGE, page.render(report).encode())
        artifacts.seal(folder, KIND, {"graph": report.lineage["graph"], "dataset": dataset.digest})
    main = report.metrics[report.main]
    logger.info("evaluate: %s %s [%s, %s], report at %s", report.main, main.value, main.low, main.high, out)
    return Report.read(out)


def read_checkpoint(path: Path, dataset: Dataset) -> Checkpoint:
    """Return a verified checkpoint that was trained on this dataset; raises ArtifactError."""
    checkpoint = checkpoints.read(path)
    if checkpoint.record.dataset != dataset.digest:
        raise ArtifactError(
            f"{path} was trained on dataset {checkpoint.record.dataset[:12]}…, not on {dataset.digest[:12]}… "
            f"at {dataset.path}: its training rows may be among these test rows; train again"
        )
    return checkpoint


def answer(engine: Engine, dataset: Dataset, keep: int, predictions: Path) -> Answered:
    """Answer the test rows batch by batch, writing each to Parquet as it comes, in bounded memory."""
    schema = dataset.schema
    done = Answered(schema, keep, [])
    progress = Progress("evaluate", dataset.rows("test"), "row")
    with pq.ParquetWriter(predictions, _layout(schema), compression="zstd") as writer:
        for batch in dataset.batches("test", batch_size(schema)):
            if not done.rows:
                done.columns = slices.columns(schema, batch.slices)
            answers = engine.run(batch.inputs)
            done.add(batch, answers)
            writer.write_table(_table(schema, batch, answers))
            progress.update(len(batch))
    return done


def batch_size(schema: Schema) -> int:
    """Return how many rows to answer at once."""
    row = sum(math.prod(t.shape) * (1 if t.dtype == "uint8" else 4) for t in schema.tensors())
    return max(1, min(BATCH_ROWS, BATCH_BYTES // max(row, 1)))


def understand(schema: Schema, answers: Answers) -> tuple[Array, Array]:
    """Return predicted label indices [N] (-1: invalid) and probabilities [N, K], or values [N] twice for regression.

    Raises ArtifactError for a label that the schema does not have.
    """
    if schema.task == "regression":
        assert answers.values is not None
        return answers.values, answers.values
    assert answers.labels is not None and answers.probabilities is not None
    known = {label: i for i, label in enumerate(schema.labels)}
    try:
        predicted = np.array([known[str(label)] for label in answers.labels], dtype=np.int64)
    except KeyError as error:
        raise ArtifactError(f"the graph answered {error}, which is none of its labels; export it again") from error
    predicted[metrics.invalid_rows(answers.probabilities)] = -1
    return predicted, answers.probabilities


def losses(schema: Schema, target: Array, predicted: Array, numbers: Array) -> Array:
    """Return how wrong each row is, [N]: log loss or absolute error; infinite where the answer is no number."""
    if schema.task == "regression":
        error = abs(numbers.astype(np.float64) - target)
        return np.where(np.isfinite(error), error, np.inf)
    return np.where(predicted < 0, np.inf, metrics.row_loss(target, np.nan_to_num(numbers)))


def measure(config: EvaluateConfig, answered: Answered, lineage: Mapping[str, Any]) -> Report:
    """Make the report of the answered rows; pure."""
    target, predicted, numbers = (
        np.concatenate(parts) for parts in (answered.target, answered.predicted, answered.numbers)
    )
    groups = [column.group() for column in answered.columns]
    find = _regression if answered.schema.task == "regression" else _classification
    own = find(config, answered.schema, target, predicted, numbers, groups)
    return Report(
        path=Path(),
        digest="",
        task=answered.schema.task,
        target=answered.schema.target,
        rows=len(target),
        confidence=config.confidence,
        worst=tuple(one for _, one in answered.worst),
        training=tuple(lineage["training"]),
        data=lineage["data"],
        lineage={name: value for name, value in lineage.items() if name not in ("training", "data")},
        **own,
    )


def _classification(
    config: EvaluateConfig,
    schema: Schema,
    target: Array,
    predicted: Array,
    probabilities: Array,
    groups: list[slices.Group],
) -> dict[str, Any]:
    if target.min() < 0 or target.max() >= len(schema.labels):
        raise ArtifactError(
            f"the test rows have a label beyond the {len(schema.labels)} of the schema; preprocess again"
        )
    right, good = target == predicted, predicted >= 0
    found = metrics.classification(
        target,
        predicted,
        probabilities,
        confidence=config.confidence,
        bootstrap=config.bootstrap,
        bins=config.bins,
        seed=config.seed,
    )
    classes = metrics.class_scores(schema.labels, target, predicted, probabilities, config.confidence)
    top = probabilities[good].max(axis=1).astype(np.float64)
    return {
        "invalid": int((~good).sum()),
        "metrics": found,
        "classes": classes,
        "confusion_cells": Confusion.of(schema.labels, metrics.confusion(target, predicted, len(schema.labels))),
        "calibration": metrics.calibration(right[good], top, config.bins, config.confidence) if good.any() else (),
        "rocs": _rocs(classes, target[good], probabilities[good]),
        "slices": slices.accuracy_slices(groups, right, config.confidence),
        "slice_metric": "accuracy",
        "residuals": None,
    }


def _rocs(classes: tuple[metrics.ClassScore, ...], target: Array, probabilities: Array) -> tuple[metrics.Roc, ...]:
    """Curves of the labels with the smallest area, in the order of the labels; of two labels, the second's."""
    wanted = [k for k, one in enumerate(classes) if one.auc.value is not None]
    if len(classes) == 2:
        wanted = wanted[-1:]
    worst = sorted(wanted, key=lambda k: classes[k].auc.value or 0.0)[:CURVES]
    curves = (metrics.roc(target == k, probabilities[:, k], classes[k].label) for k in sorted(worst))
    return tuple(curve for curve in curves if curve)


def _regression(
    config: EvaluateConfig, schema: Schema, target: Array, _: Array, values: Array, groups: list[slices.Group]
) -> dict[str, Any]:
    bad = int((~np.isfinite(values)).sum())
    found = metrics.regression(
        target, values, confidence=config.confidence, bootstrap=config.bootstrap, seed=config.seed
    )
    size = abs(values.astype(np.float64) - target)
    return {
        "invalid": bad,
        "metrics": found,
        "classes": (),
        "confusion_cells": None,
        "calibration": (),
        "rocs": (),
        "slices": slices.unmeasured(groups, "some predictions are not finite")
        if bad
        else slices.error_slices(groups, size, config.confidence),
        "slice_metric": "mae",
        "residuals": _residuals(target, values, config.seed),
    }


def _residuals(target: Array, values: Array, seed: int) -> Residuals | None:
    good = np.isfinite(values)
    if not good.any():
        return None
    x, y = target[good].astype(np.float64), values[good].astype(np.float64)
    some = np.sort(np.random.default_rng(seed).permutation(len(x))[:POINTS])
    counts, edges = histogram(y - x)
    return Residuals(
        tuple((float(a), float(b)) for a, b in zip(x[some], y[some], strict=True)),
        tuple(map(float, edges)),
        tuple(map(int, counts)),
    )


def histogram(values: Array) -> tuple[Array, Array]:
    """Count numbers in 5 to 40 bins, with room around numbers that are nearly equal; return counts and edges."""
    low, high = float(values.min()), float(values.max())
    scale = max(abs(low), abs(high), 1e-9)
    room = 0.0 if high - low > 1e-9 * scale else 1e-6 * scale
    return np.histogram(values, bins=min(40, max(5, math.isqrt(len(values)))), range=(low - room, high + room))


def example(schema: Schema, batch: Batch, i: int, predicted: Any, numbers: Any, loss: float) -> Example:
    """Keep one row as it was, with what the model said of it."""
    number = float(np.max(numbers))
    finite = math.isfinite(number)
    if schema.task == "regression":
        target, right = f"{float(batch.target[i]):.6g}", False
        given = f"{number:.6g}" if finite else "no number"
    else:
        target, right = schema.labels[int(batch.target[i])], bool(predicted == batch.target[i])
        given = schema.labels[int(predicted)] if predicted >= 0 else "no number"
    one = batch.take([i])
    return Example(
        row=int(batch.rows[i]),
        target=target,
        predicted=given,
        right=right,
        confidence=number if finite and schema.task == "classification" and predicted >= 0 else None,
        loss=float(loss) if math.isfinite(loss) else None,
        picture=picture(next(iter(one.inputs.values()))[0]) if schema.is_image else None,
        values={}
        if schema.is_image
        else {f.name: _show(slices.values_of(schema, one.inputs, f.name)[0]) for f in schema.fields},
    )


def _show(value: Any) -> str:
    if isinstance(value, str):
        return value or slices.MISSING
    return f"{float(value):.6g}" if math.isfinite(value) else slices.MISSING


def picture(pixels: Array) -> str:
    """Return an image [H, W] or [H, W, C] as a small data URI: PNG as it is, or a JPEG when it has to be shrunk."""
    values = pixels.astype(np.float64)
    if pixels.dtype != np.uint8:  # floats have no range of their own: show from the darkest to the brightest
        values = np.nan_to_num(values)
        low, high = values.min(), values.max()
        values = (values - low) * (255 / (high - low) if high > low else 0)
    if values.ndim == 3 and values.shape[2] not in (3, 4):
        values = values[:, :, 0]
    image = Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert("L" if values.ndim == 2 else "RGB")
    small, out = max(image.size) <= THUMBNAIL, io.BytesIO()
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    image.save(out, "PNG" if small else "JPEG", **({"optimize": True} if small else {"quality": 85}))
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"


def origin(checkpoint: Checkpoint, dataset: Dataset) -> dict[str, Any]:
    """Say what was evaluated and by what: digests, versions, the training's numbers and the data's counts."""
    record = checkpoint.record
    return {
        "graph": artifacts.digest_file(checkpoint.graph),
        "dataset": dataset.digest,
        "checkpoint": checkpoint.digest,
        "schema": dataset.schema.digest,
        "seal": record.seal,
        "recipe": record.recipe,
        "parameters": record.training.parameters if record.training else None,
        "best_epoch": record.epoch,
        "engine": f"onnxruntime {metadata.version('onnxruntime')}",
        "boatyard": __version__,
        "training": history(checkpoint.metrics),
        "data": {"rows": dataset.manifest["rows"], "cleaning": _cleaning(dataset)},
    }


def _cleaning(dataset: Dataset) -> list[dict[str, Any]]:
    wanted = ("reason", "column", "count", "action")
    return [{key: one.get(key) for key in wanted} for one in dataset.manifest.get("cleaning", [])]


def history(path: Path) -> list[dict[str, float]]:
    """Read the numbers of each epoch, where training left them; what is not finite is left out."""
    if not path.is_file():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return [{k: float(v) for k, v in line.items() if isinstance(v, int | float) and math.isfinite(v)} for line in lines]


def _layout(schema: Schema) -> pa.Schema:
    if schema.task == "regression":
        return pa.schema([("row", pa.int64()), ("target", pa.float32()), ("value", pa.float32())])
    probabilities = ("probabilities", pa.list_(pa.float32()))
    return pa.schema([("row", pa.int64()), ("target", pa.string()), ("label", pa.string()), probabilities])


def _table(schema: Schema, batch: Batch, answers: Answers) -> pa.Table:
    if schema.task == "regression":
        return pa.table([batch.rows, batch.target, answers.values], schema=_layout(schema))
    assert answers.probabilities is not None and answers.labels is not None
    labels = np.array(schema.labels, dtype=object)
    flat = answers.probabilities
    offsets = np.arange(len(flat) + 1, dtype=np.int32) * flat.shape[1]
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat.reshape(-1)))
    return pa.table(
        [pa.array(batch.rows), pa.array(labels[batch.target]), pa.array(answers.labels.astype(object)), lists],
        schema=_layout(schema),
    )
