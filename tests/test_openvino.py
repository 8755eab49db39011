"""OpenVINO, an extra: the answers of ONNX Runtime, or a sentence that says why not; and nobody is told of it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import graphs
import httpx
import numpy as np
import onnx
import pytest
from onnx import helper
from test_prediction import SCHEMAS as EVERY
from test_serving import launch, ready

from boatyard import plugins, prediction, tasks
from boatyard.data.schema import Field, Schema
from boatyard.errors import ArtifactError, ConfigError

SCHEMAS = [each for each in EVERY if all(tensor.dtype != "str" for tensor in each.tensors())]
NAMES = ("onnxruntime", "openvino")


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
@pytest.mark.parametrize("rows", [1, 3, 64, 600])
def test_it_answers_as_onnx_runtime_does(schema: Schema, rows: int) -> None:
    inputs = graphs.rows(schema, rows)
    wanted, found = (
        plugins.load("engines", name)(graphs.graph(schema), schema, threads=1).run(inputs) for name in NAMES
    )
    assert len(found) == rows
    for mine, theirs in zip(found.outputs(), wanted.outputs(), strict=True):
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
        if mine.dtype == object:
            assert mine.tolist() == theirs.tolist()
        else:
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


def test_threads_that_ask_at_once_get_their_own_answers() -> None:
    schema = graphs.image_schema((8, 8))
    model = plugins.load("engines", "openvino")(graphs.graph(schema), schema, threads=1)
    asked = [graphs.rows(schema, 1 + seed % 5, seed) for seed in range(200)]
    wanted = [model.run(inputs).probabilities for inputs in asked]
    with ThreadPoolExecutor(8) as threads:
        for mine, theirs in zip(threads.map(model.run, asked), wanted, strict=True):
            np.testing.assert_allclose(mine.probabilities, theirs, atol=1e-6)


def changed(schema: Schema, **more: object) -> bytes:
    """Return the graph with other labels in its last node."""
    model = onnx.load_model_from_string(graphs.graph(schema))
    (node,) = (each for each in model.graph.node if "label" in each.output)
    for name, value in more.items():
        (old,) = (each for each in node.attribute if each.name == name)
        node.attribute.remove(old)
        node.attribute.append(helper.make_attribute(name, value))
    data: bytes = model.SerializeToString()
    return data


def test_a_graph_that_names_its_labels_otherwise_is_refused() -> None:
    schema = graphs.image_schema()
    turned = list(schema.labels)[::-1]
    with pytest.raises(ArtifactError, match="found labels that come of LabelEncoder; the engine onnxruntime runs it"):
        plugins.load("engines", "openvino")(changed(schema, values_strings=turned), schema)
    with pytest.raises(ArtifactError, match="found labels that come of LabelEncoder"):
        plugins.load("engines", "openvino")(changed(schema, keys_int64s=range(len(turned))[::-1]), schema)


def test_a_graph_that_takes_strings_is_refused_by_their_names() -> None:
    schema = graphs.mixed_schema()
    with pytest.raises(ArtifactError, match="takes strings, at colour, city; the engine onnxruntime runs it"):
        plugins.load("engines", "openvino")(graphs.graph(schema), schema)


def test_an_operator_that_it_lacks_is_named() -> None:
    schema = graphs.numbers_schema()
    model = onnx.load_model_from_string(graphs.graph(schema))
    (last,) = (node for node in model.graph.node if "value" in node.output)
    last.output[0] = "before"
    model.graph.node.append(helper.make_node("Binarizer", ["before"], ["value"], domain="ai.onnx.ml"))
    with pytest.raises(ArtifactError, match=r"what it refuses: .*Binarizer"):
        plugins.load("engines", "openvino")(model.SerializeToString(), schema)


@pytest.mark.parametrize("other", [graphs.image_schema((4, 5)), graphs.image_schema((4, 4), "float32")])
def test_another_graph_than_the_schema_says_is_refused(other: Schema) -> None:
    with pytest.raises(ArtifactError, match="the ONNX model's input image: expected"):
        plugins.load("engines", "openvino")(graphs.graph(other), graphs.image_schema())
    renamed = Schema("classification", (Field("photo", "image", "uint8", (4, 4)),), "label", graphs.LABELS)
    with pytest.raises(ArtifactError, match="expected the ONNX model's inputs to be photo, found image"):
        plugins.load("engines", "openvino")(graphs.graph(graphs.image_schema()), renamed)


def renamed(model: Any) -> None:
    model.graph.output[1].name = "p"
    (node,) = (each for each in model.graph.node if "probabilities" in each.output)
    node.output[0] = "p"
    for each in model.graph.node:
        each.input[:] = ["p" if name == "probabilities" else name for name in each.input]


def turned(model: Any) -> None:
    ends = list(model.graph.output)[::-1]
    del model.graph.output[:]
    model.graph.output.extend(ends)


def fewer(model: Any) -> None:
    del model.graph.output[1]


def wider(model: Any) -> None:
    model.graph.output[1].type.tensor_type.shape.dim[1].dim_value = len(graphs.LABELS) + 1


@pytest.mark.parametrize("change", [renamed, turned, fewer, wider])
def test_other_outputs_than_the_schema_says_are_refused_as_onnx_runtime_does(change: Callable[[Any], None]) -> None:
    schema = graphs.image_schema()
    model = onnx.load_model_from_string(graphs.graph(schema))
    change(model)
    said = []
    for name in NAMES:
        with pytest.raises(ArtifactError) as refused:
            plugins.load("engines", name)(model.SerializeToString(), schema)
        said.append(str(refused.value))
    assert said[0] == said[1] or change is wider  # ONNX Runtime itself refuses what is declared and cannot be


def test_outputs_that_are_declared_and_not_kept_are_refused() -> None:
    schema = graphs.numbers_schema("classification")
    fewer = Schema("classification", schema.fields, "y", graphs.LABELS[:-1])
    data = changed(schema, values_strings=fewer.labels, keys_int64s=range(len(fewer.labels)))
    model = onnx.load_model_from_string(data)
    model.graph.output[1].type.tensor_type.shape.dim[1].dim_value = len(fewer.labels)
    with pytest.raises(ArtifactError):
        plugins.load("engines", "openvino")(model.SerializeToString(), fewer)
    schema = graphs.numbers_schema()
    model = onnx.load_model_from_string(graphs.graph(schema))
    (last,) = (node for node in model.graph.node if "value" in node.output)
    model.graph.node.remove(last)  # which makes [batch, 1] to [batch]
    for each in model.graph.node:
        each.output[:] = ["value" if name == last.input[0] else name for name in each.output]
    with pytest.raises(ArtifactError, match="output value"):
        plugins.load("engines", "openvino")(model.SerializeToString(), schema)


@pytest.mark.parametrize("data", [b"", b"no graph", graphs.graph(graphs.image_schema())[:200]])
def test_what_is_no_graph_is_refused(data: bytes) -> None:
    with pytest.raises(ArtifactError):
        plugins.load("engines", "openvino")(data, graphs.image_schema())


def test_golden_examples_are_answered_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = graphs.package(tmp_path, graphs.image_schema())
    loaded = prediction.load(package.path, by="openvino", threads=1)
    assert loaded.engine.name == "openvino"
    monkeypatch.setattr(tasks.base, "TOLERANCE", -1.0)
    with pytest.raises(ArtifactError, match="reference row 0: a probability is off"):
        prediction.load(package.path, by="openvino", threads=1)


def test_an_engine_that_there_is_not_is_refused(tmp_path: Path) -> None:
    package = graphs.package(tmp_path, graphs.image_schema())
    with pytest.raises(ConfigError, match="no engine 'tensorrt'; installed are onnxruntime, openvino"):
        prediction.load(package.path, by="tensorrt")


def fresh(code: str) -> str:
    """Return what a new interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_without_the_extra_it_is_said_how_to_get_it() -> None:
    code = """
import sys
from boatyard import plugins
sys.modules["openvino"] = None
try:
    plugins.load("engines", "openvino")
except Exception as error:
    print(type(error).__name__, error)
"""
    assert fresh(code) == "ConfigError the engine openvino needs openvino; pip install 'boatyard[openvino]'"


def test_nothing_is_told_to_anybody() -> None:
    code = """
import sys
import boatyard.prediction.engines.openvino
print([name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module])
"""
    assert fresh(code) == "[]"


def test_a_server_answers_by_it_on_every_process(tmp_path: Path) -> None:
    schema = graphs.image_schema((6, 5))
    package = graphs.package(tmp_path, schema)
    wanted = prediction.load(package.path, threads=1)
    server = ready(launch(package, "--engine", "openvino", "--workers", "2"))
    try:
        for seed in range(20):
            inputs = graphs.rows(schema, 1 + seed % 3, seed)
            body = {"instances": inputs["image"].tolist()}
            answer = httpx.post(server.v1, json=body, timeout=30)  # a connection of its own
            assert answer.status_code == 200
            for mine, theirs in zip(answer.json()["predictions"], wanted.run(inputs).to_v1(), strict=True):
                assert mine["label"] == theirs["label"]
                np.testing.assert_allclose(mine["probabilities"], theirs["probabilities"], atol=1e-5)
        assert httpx.get(f"{server.url}/v2/models/insects").json()["platform"] == "openvino_onnx"
        metrics = httpx.get(f"{server.url}/metrics").text
        assert 'boatyard_model_info{engine="openvino",model="insects"' in metrics
        assert "boatyard_processes 2.0" in metrics
    finally:
        server.process.send_signal(signal.SIGTERM)
        output, _ = server.process.communicate(timeout=30)
        assert server.process.returncode == 0 and "Traceback" not in output, output


def test_a_server_refuses_a_package_that_it_does_not_run_with_one_sentence(tmp_path: Path) -> None:
    server = launch(graphs.package(tmp_path, graphs.mixed_schema()), "--engine", "openvino")
    said, _ = server.process.communicate(timeout=60)
    assert server.process.returncode == 1
    assert (
        said.strip()
        .splitlines()[-1]
        .startswith("expected a graph that OpenVINO runs, found a graph that takes strings")
    )
