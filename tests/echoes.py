"""Models that say what they are told: the answer is columns of the row itself, so a test chooses every prediction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import graphs
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from boatyard import packages
from boatyard.data import artifacts, datasets
from boatyard.data.schema import Array, Batch, Field, Schema
from boatyard.project import GateConfig

LABELS = ("ant", "bee", "cat")


@dataclass(frozen=True)
class Rows(datasets.Dataset):
    """A sealed dataset whose test rows are kept in memory."""

    test: Batch

    def load(self, split: datasets.Split) -> Batch:
        return self.test

    def batches(self, split: datasets.Split, size: int, shard: int | None = None) -> Iterator[Batch]:
        yield from self.test.split(size)


def schema(width: int, labels: Sequence[str] = LABELS) -> Schema:
    """A table of numbers: of so many columns, that hold the answers."""
    fields = tuple(Field(f"c{i}", "number", "float32", nullable=True) for i in range(width))
    return Schema("classification" if labels else "regression", fields, "y", tuple(labels))


def dataset(path: Path, rows: Schema, answers: Array, target: Array, slices: Mapping[str, Array] | None = None) -> Rows:
    """Seal a dataset of these rows: answers float32 [N, columns], target [N]."""
    count = len(target)
    path.mkdir(parents=True)
    about: dict[str, Any] = {
        "schema": rows.to_dict(),
        "statistics": {},
        "rows": {"train": 10, "validation": 5, "test": count},
        "cleaning": [{"reason": "duplicate", "column": None, "count": 2, "action": "drop", "examples": [1, 2]}],
    }
    artifacts.write_bytes(path / "rows.bin", np.asarray(answers, np.float32).tobytes() + np.asarray(target).tobytes())
    artifacts.seal(path, "dataset", about)
    found = datasets.read(path)
    batch = Batch({"features": np.asarray(answers, np.float32)}, target, np.arange(count), slices or {})
    return Rows(found.path, found.digest, found.schema, found.manifest, batch)


def graph(rows: Schema, first: int = 0) -> bytes:
    """Return a graph that answers with its columns from `first` on."""
    count = len(rows.labels) or 1
    columns = np.arange(first, first + count)
    chosen = helper.make_node("Gather", ["features", "columns"], ["chosen"], axis=1)
    constants = {"columns": columns, "flat": np.array([-1])}
    if rows.task == "regression":
        nodes = [chosen, helper.make_node("Reshape", ["chosen", "flat"], ["value"])]
        ends = [helper.make_tensor_value_info("value", TensorProto.FLOAT, ["batch"])]
    else:
        constants["labels"] = np.array(rows.labels, object)
        nodes = [
            chosen,
            helper.make_node("Identity", ["chosen"], ["probabilities"]),
            helper.make_node("ArgMax", ["chosen"], ["best"], axis=1, keepdims=0),
            helper.make_node("Gather", ["labels", "best"], ["label"]),
        ]
        ends = [
            helper.make_tensor_value_info("label", TensorProto.STRING, ["batch"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", count]),
        ]
    start = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", len(rows.fields)])]
    values = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    body = helper.make_graph(nodes, "echo", start, ends, values)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def checkpoint(path: Path, data: datasets.Dataset, first: int = 0, gate: GateConfig | None = None) -> Path:
    """Write a checkpoint as training does, with the gate's seal."""
    about = {"recipe": "echo", "seal": (gate or GateConfig()).seal, "dataset": data.digest, "epoch": 2}
    lines = [f'{{"epoch": {e}, "step": {e}, "train_loss": {1 / e}, "validation_loss": {1.1 / e}}}' for e in (1, 2)]
    artifacts.write_bytes(path / "model.onnx", graph(data.schema, first))
    artifacts.write_bytes(path / "weights.safetensors", (8).to_bytes(8, "little") + b"{}      ")
    artifacts.write_json(path / "schema.json", data.schema.to_dict())
    artifacts.write_json(path / "checkpoint.json", about)
    artifacts.write_bytes(path / "metrics.jsonl", "\n".join(lines).encode())
    artifacts.seal(path, "checkpoint", {"seal": about["seal"], "dataset": data.digest})
    return path


def production(path: Path, data: datasets.Dataset, first: int, trained_on: str = "") -> Path:
    """Pack a version as it would stand in production, answering with the columns from `first` on."""
    made = checkpoint(path / "checkpoint", data, first)
    return packages.pack(
        name="echo",
        checkpoint=made,
        report=graphs.report(path / "report", made),
        verdict=graphs.verdict(path / "verdict.json", made),
        dataset=data,
        out=path / "package",
        golden=2,
        lineage={"dataset": trained_on or data.digest},
    ).path


def certain(predicted: Array, labels: int, sure: float = 0.8) -> Array:
    """Return probabilities float32 [N, K] that put `sure` on the predicted label and share out the rest."""
    rows = np.full((len(predicted), labels), (1 - sure) / (labels - 1), np.float32)
    rows[np.arange(len(predicted)), predicted] = sure
    return rows
