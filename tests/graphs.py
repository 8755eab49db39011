"""Small graphs, schemas and packages for the tests of what serves them; nothing is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from boatyard import packages
from boatyard.data import artifacts, datasets
from boatyard.data.schema import Batch, Field, Schema, Task, Tensor
from boatyard.packages import manifest

LABELS = ("ant", "bee", "cat")
ELEMENTS = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT, "str": TensorProto.STRING}


def image_schema(shape: tuple[int, ...] = (4, 4), dtype: Any = "uint8") -> Schema:
    return Schema("classification", (Field("image", "image", dtype, shape),), "label", LABELS)


def numbers_schema(task: Task = "regression") -> Schema:
    fields = (
        Field("age", "number", "float32", minimum=0, maximum=120),
        Field("height", "number", "float32", nullable=True),
    )
    return Schema(task, fields, "y", LABELS if task == "classification" else ())


def mixed_schema(task: Task = "classification") -> Schema:
    fields = (
        Field("age", "number", "float32", nullable=True),
        Field("colour", "category", "str", nullable=True, categories=("blue", "red")),
        Field("city", "category", "str", categories=("Bonn", "Köln")),
    )
    return Schema(task, fields, "y", LABELS if task == "classification" else ())


def graph(schema: Schema, seed: int = 0) -> bytes:
    """Return a graph with the schema's inputs and outputs: all numbers side by side, times random weights."""
    nodes, columns, width = [], [], 0
    for tensor in schema.tensors():
        nodes += _column(tensor)
        columns.append(f"{tensor.name}/flat")
        width += int(np.prod(tensor.shape, dtype=int))
    outputs = len(schema.labels) or 1
    weights = np.random.default_rng(seed).normal(0, 0.01 if schema.alone else 1, (width, outputs)).astype(np.float32)
    nodes.append(helper.make_node("Concat", columns, ["row"], axis=1))
    nodes.append(helper.make_node("MatMul", ["row", "weights"], ["out"]))
    constants = {"weights": weights, "flat": np.array([0, width if len(columns) == 1 else 1]), "zero": np.float32(0)}
    constants["one"] = np.array([-1])
    inputs = [_end(t.name, ELEMENTS[t.dtype], t.shape) for t in schema.tensors()]
    if schema.task == "regression":
        nodes.append(helper.make_node("Reshape", ["out", "one"], ["value"]))
        ends = [_end("value", TensorProto.FLOAT, ())]
    else:
        nodes.append(helper.make_node("Softmax", ["out"], ["probabilities"], axis=1))
        nodes.append(helper.make_node("ArgMax", ["out"], ["best"], axis=1, keepdims=0))
        names = dict(keys_int64s=range(outputs), values_strings=list(schema.labels), default_string="")
        nodes.append(helper.make_node("LabelEncoder", ["best"], ["label"], domain="ai.onnx.ml", **names))
        ends = [_end("label", TensorProto.STRING, ()), _end("probabilities", TensorProto.FLOAT, (outputs,))]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    body = helper.make_graph(nodes, "test", inputs, ends, initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    data: bytes = helper.make_model(body, opset_imports=opsets, ir_version=8).SerializeToString()
    return data


def _end(name: str, element: int, shape: tuple[int, ...]) -> Any:
    return helper.make_tensor_value_info(name, element, ["batch", *shape])


def _column(tensor: Tensor) -> list[Any]:
    """Turn one input into float columns [N, *]; a missing number is 0, a category its length's worth."""
    name = tensor.name
    if tensor.dtype == "str":
        keys = dict(keys_strings=["blue", "red", "Bonn", "Köln"], values_floats=[1.0, 2.0, 3.0, 4.0], default_float=0.0)
        number = helper.make_node("LabelEncoder", [name], [f"{name}/n"], domain="ai.onnx.ml", **keys)
        return [number, helper.make_node("Reshape", [f"{name}/n", "flat"], [f"{name}/flat"])]
    return [
        helper.make_node("Cast", [name], [f"{name}/f"], to=TensorProto.FLOAT),
        helper.make_node("IsNaN", [f"{name}/f"], [f"{name}/missing"]),
        helper.make_node("Where", [f"{name}/missing", "zero", f"{name}/f"], [f"{name}/n"]),
        helper.make_node("Reshape", [f"{name}/n", "flat"], [f"{name}/flat"]),
    ]


def rows(schema: Schema, count: int, seed: int = 0) -> dict[str, Any]:
    """Return random graph inputs that the schema allows."""
    random = np.random.default_rng(seed)
    inputs: dict[str, Any] = {}
    for tensor in schema.tensors():
        shape = (count, *tensor.shape)
        if tensor.dtype == "uint8":
            inputs[tensor.name] = random.integers(0, 256, shape, dtype=np.uint8)
        elif tensor.dtype == "float32":
            inputs[tensor.name] = random.uniform(0, 100, shape).astype(np.float32)
        else:
            inputs[tensor.name] = random.choice(np.array(["blue", "red", "Bonn", "Köln", "new"], object), shape)
    return inputs


@dataclass(frozen=True)
class Rows(datasets.Dataset):
    """A dataset of rows in memory."""

    def load(self, split: datasets.Split) -> Batch:
        inputs = rows(self.schema, 50)
        return Batch(inputs, np.zeros(50, np.int64), np.arange(50), {})


def checkpoint(path: Path, schema: Schema, seed: int = 0) -> Path:
    """Write a checkpoint as training does."""
    artifacts.write_bytes(path / "model.onnx", graph(schema, seed))
    artifacts.write_bytes(path / "weights.safetensors", (8).to_bytes(8, "little") + b"{}      ")
    artifacts.write_json(path / "schema.json", schema.to_dict())
    artifacts.write_json(path / "checkpoint.json", {"recipe": "test", "seal": "0" * 64, "dataset": "0" * 64})
    artifacts.seal(path, "checkpoint", {"seal": "0" * 64})
    return path


def report(path: Path, checkpoint: Path) -> Path:
    """Write the least that a report is: a page, and the digest of the graph it is on."""
    digest = artifacts.digest_file(checkpoint / "model.onnx")
    artifacts.write_json(path / "report.json", {"metrics": {"accuracy": {"value": 0.9, "low": 0.8, "high": 1.0}}})
    artifacts.write_bytes(path / "report.html", b"<!doctype html>")
    artifacts.seal(path, "report", {"graph": digest})
    return path


def verdict(path: Path, checkpoint: Path, passed: bool = True) -> Path:
    digests = {"graph": artifacts.digest_file(checkpoint / "model.onnx")}
    value = {"passed": passed, "sentence": "accuracy 0.9 is at least 0.8", "rules": [], "digests": digests}
    artifacts.write_json(path, value)
    return path


def package(path: Path, schema: Schema, seed: int = 0, name: str = "insects") -> packages.Package:
    """Write a whole package by the front door."""
    made = checkpoint(path / "checkpoint", schema, seed)
    return packages.pack(
        name=name,
        checkpoint=made,
        report=report(path / "report", made),
        verdict=verdict(path / "verdict.json", made),
        dataset=Rows(path, "0" * 64, schema, {}),
        out=path / "package",
        golden=8,
        lineage={"dataset": "0" * 64, "source": {}, "environment": {"python": "3.11"}},
    )


def reseal(path: Path) -> None:
    """Bind a package's files again, as a forger would."""
    (path / packages.MANIFEST).unlink()
    schema = artifacts.read_json(path / "schema.json")
    task = schema.get("task") if isinstance(schema, dict) else None
    manifest.write(path, "insects", task if isinstance(task, str) and task else "classification", {})
