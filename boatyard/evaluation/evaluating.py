"""Evaluate: the exported graph, under the engine that serves, on the test rows that nothing else has seen."""

from __future__ import annotations

import base64
import io
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from boatyard import __version__, tasks
from boatyard.data import artifacts, checkpoints, lineage
from boatyard.data.checkpoints import Checkpoint
from boatyard.data.datasets import Dataset
from boatyard.data.schema import Array, Batch, Schema
from boatyard.errors import ArtifactError, DataError
from boatyard.evaluation import measures, predictions, slices
from boatyard.evaluation.measures import Sample
from boatyard.evaluation.report import NUMBERS, PAGE, PREDICTIONS, REPORT_KIND, Example, Report, page
from boatyard.prediction import Answers, Engine, OnnxRuntime
from boatyard.project import EvaluateConfig
from boatyard.provenance import plug_ins
from boatyard.running.progress import Progress
from boatyard.tasks import Predictions, Task

logger = logging.getLogger(__name__)
BATCH_ROWS, BATCH_BYTES = 1024, 1 << 23  # rows answered at once: enough to be fast, few enough to bound memory
THUMBNAIL = 96  # pixels a side of a picture in the report, at most


@dataclass
class Answered:
    """The test rows as answered so far: what metrics need of every row, and the worst rows whole."""

    schema: Schema
    keep: int
    columns: list[slices.Column]
    predictions: list[Predictions] = field(default_factory=list)
    worst: list[tuple[float, Example]] = field(default_factory=list)

    def add(self, batch: Batch, answers: Answers) -> None:
        """Take a batch and the engine's answers to it."""
        predictions = tasks.of(self.schema).predictions(self.schema, batch.target, answers)
        self.predictions.append(predictions)
        slices.collect(self.columns, self.schema, batch)
        self._remember(batch, predictions)

    def _remember(self, batch: Batch, predictions: Predictions) -> None:
        """Keep the rows with the greatest loss; a row without a number comes first."""
        loss = tasks.of(self.schema).row_loss(predictions)
        for i in np.argsort(-loss, kind="stable")[: self.keep].tolist():
            if len(self.worst) < self.keep or loss[i] > self.worst[-1][0]:
                self.worst.append((float(loss[i]), example(batch, predictions, i, loss[i])))
                self.worst.sort(key=lambda kept: -kept[0])
                del self.worst[self.keep :]


def evaluate(config: EvaluateConfig, dataset: Dataset, checkpoint: Path, out: Path) -> Report:
    """Answer every test row by the checkpoint's graph and write the report.

    Raises ArtifactError when the checkpoint was changed or was trained on another dataset, DataError when there is
    no test row. Answers that are no numbers are counted and reported; `gate` refuses them.
    """
    trained = read_checkpoint(checkpoint, dataset)
    total = dataset.rows("test")
    if total == 0:
        raise DataError(
            f"{dataset.path}", expected="test rows", found="none", fix="give preprocess.split.test a larger share"
        )
    logger.info("evaluate: %d test rows with %s", total, trained.graph)
    with artifacts.new_folder(out) as folder:
        answered = answer(OnnxRuntime(trained.graph, dataset.schema), dataset, config.worst, folder / PREDICTIONS)
        report = measure(config, answered, origin(trained, dataset))
        artifacts.write_json(folder / NUMBERS, report.to_dict())
        artifacts.write_bytes(folder / PAGE, page.render(report).encode())
        made = lineage.made(plug_ins(Path()), evaluate=config)
        artifacts.seal(folder, REPORT_KIND, {"graph": report.lineage["graph"], "dataset": dataset.digest, "made": made})
    main = report.metrics[report.main]
    logger.info("evaluate: %s %s [%s, %s], report at %s", report.main, main.value, main.low, main.high, out)
    return Report.read(out)


def read_checkpoint(path: Path, dataset: Dataset) -> Checkpoint:
    """Return a verified checkpoint that was trained on this dataset; raises ArtifactError."""
    checkpoint = checkpoints.read(path)
    if checkpoint.record.dataset != dataset.digest:
        raise ArtifactError(
            f"{path} was trained on dataset {checkpoint.record.dataset[:12]}…, not on "
            f"{dataset.digest[:12]}… at {dataset.path}: its training rows may be among these test "
            "rows",
            fix="train again",
        )
    return checkpoint


def answer(engine: Engine, dataset: Dataset, keep: int, path: Path) -> Answered:
    """Answer the test rows batch by batch, writing each to Parquet as it comes, in bounded memory."""
    schema = dataset.schema
    done = Answered(schema, keep, [])
    progress = Progress("evaluate", dataset.rows("test"), "row")
    with pq.ParquetWriter(path, predictions.layout(schema), compression="zstd") as writer:
        for batch in dataset.batches("test", batch_size(schema)):
            if not done.predictions:
                done.columns = slices.columns(schema, batch.slices)
            answers = engine.run(batch.inputs)
            done.add(batch, answers)
            writer.write_table(predictions.table(schema, batch, answers))
            progress.update(len(batch))
    return done


def batch_size(schema: Schema) -> int:
    """Return how many rows to answer at once."""
    row = sum(math.prod(t.shape) * (1 if t.dtype == "uint8" else 4) for t in schema.tensors())
    return max(1, min(BATCH_ROWS, BATCH_BYTES // max(row, 1)))


def measure(config: EvaluateConfig, answered: Answered, lineage: Mapping[str, Any]) -> Report:
    """Make the report of the answered rows; pure."""
    task = tasks.of(answered.schema)
    sample = Sample(
        Predictions.joined(answered.predictions),
        confidence=config.confidence,
        bootstrap=config.bootstrap,
        bins=config.bins,
        seed=config.seed,
    )
    return Report(
        path=Path(),
        digest="",
        task=task.name,
        target=answered.schema.target,
        rows=len(sample),
        invalid=sample.invalid_rows,
        confidence=config.confidence,
        metrics=measures.compute(sample, tuple(task.measures.values())),
        slices=sliced(task, sample, [column.group() for column in answered.columns]),
        slice_metric=task.row_measure,
        worst=tuple(kept for _, kept in answered.worst),
        training=tuple(lineage["training"]),
        data=lineage["data"],
        lineage={name: value for name, value in lineage.items() if name not in ("training", "data")},
        **vars(task.report_parts(sample)),
    )


def sliced(task: Task, sample: Sample, groups: Sequence[slices.SliceGroup]) -> tuple[slices.Slice, ...]:
    """Measure each slice by the task's outcome of its rows: the share that is right, or the mean error."""
    outcome = task.outcome(sample.predictions)
    if outcome.dtype == bool:
        return slices.accuracy_slices(groups, outcome, sample.confidence)
    if sample.invalid_rows:
        return slices.unmeasured(groups, f"some predictions are not {task.valid}")
    return slices.error_slices(groups, outcome, sample.confidence, sample.seed)


def example(batch: Batch, predictions: Predictions, i: int, loss: float) -> Example:
    """Keep one row as it was, with what the model said of it."""
    schema, row = predictions.schema, batch.take([i])
    worded = tasks.of(schema).word(predictions, i)
    return Example(
        row=int(batch.rows[i]),
        target=worded.target,
        predicted=worded.predicted,
        right=worded.right,
        confidence=worded.confidence,
        loss=float(loss) if math.isfinite(loss) else None,
        picture=picture(slices.values_of(schema, row.inputs, schema.pictured.name)[0]) if schema.pictured else None,
        values={
            field.name: kind.show(field, slices.values_of(schema, row.inputs, field.name)[0])
            for field, kind in zip(schema.fields, schema.kinds, strict=True)
            if not kind.pictured
        },
    )


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
        "checkpoint": checkpoint.lasting,
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
    """Read the numbers of each epoch, where training left them; not how long it took, nor what is not finite."""
    if not path.is_file():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return [{k: float(v) for k, v in line.items() if k not in checkpoints.TIMED and _is_finite(v)} for line in lines]


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
