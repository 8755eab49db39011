"""predictions.parquet: every test row's target and outputs, a column each, written as they come and read back whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from boatyard import tasks
from boatyard.data.schema import Array, Batch, Schema
from boatyard.prediction.answers import Answers
from boatyard.tasks import Output, Predictions

TYPES = {"float32": pa.float32(), "int64": pa.int64(), "str": pa.string()}


def layout(schema: Schema) -> pa.Schema:
    """Return the columns: `row`, `target` (a label as its text) and the task's outputs, a list where a row has many."""
    outputs = [(output.name, _type(output)) for output in tasks.of(schema).outputs(schema)]
    return pa.schema([("row", pa.int64()), ("target", pa.string() if schema.labels else pa.float32()), *outputs])


def table(schema: Schema, batch: Batch, answers: Answers) -> pa.Table:
    """Return a batch and its answers as rows of the file."""
    target = np.array(schema.labels, dtype=object)[batch.target] if schema.labels else batch.target
    outputs = [_cells(answers[output.name], output) for output in tasks.of(schema).outputs(schema)]
    return pa.table([pa.array(batch.rows), pa.array(target), *outputs], schema=layout(schema))


def read(path: Path, schema: Schema) -> Predictions:
    """Read a file of a report that was verified."""
    task, rows = tasks.of(schema), pq.read_table(path)
    answers = Answers({output.name: _column(rows[output.name], output) for output in task.outputs(schema)})
    target = rows["target"].to_numpy()
    if schema.labels:
        index = {label: number for number, label in enumerate(schema.labels)}
        target = np.array([index[label] for label in target], np.int64)
    return task.predictions(schema, target, answers)


def _type(output: Output) -> Any:
    kind = TYPES[output.dtype]
    for _ in output.shape:
        kind = pa.list_(kind)
    return kind


def _cells(values: Array, output: Output) -> Any:
    """Return an output as Arrow holds it: [N, A, B] as lists of A lists of B."""
    cells = pa.array(values.reshape(-1).astype(object) if output.dtype == "str" else values.reshape(-1))
    for axis in range(len(output.shape), 0, -1):
        count = int(np.prod(values.shape[:axis], dtype=int))
        offsets = np.arange(count + 1, dtype=np.int32) * values.shape[axis]
        cells = pa.ListArray.from_arrays(pa.array(offsets), cells)
    return cells


def _column(column: pa.ChunkedArray, output: Output) -> Array:
    flat = column.combine_chunks()
    for _ in output.shape:
        flat = flat.flatten()
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(len(column), *output.shape)
