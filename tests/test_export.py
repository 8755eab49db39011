"""The exported graph: it answers as the model does, on every input that a schema allows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import rows
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from boatyard import recipes
from boatyard.data.schema import Field, Schema
from boatyard.errors import ConfigError
from boatyard.project import PreprocessConfig, TrainConfig
from boatyard.training import losses
from boatyard.training.export import Graph, compare, export


def graph_of(
    dataset: rows.Made, recipe: str = "mlp", how: PreprocessConfig | None = None, loss: str | None = None, **dials: Any
) -> Graph:
    torch.manual_seed(0)
    config, how = TrainConfig(recipe=recipe, model=dials, loss=loss), how or PreprocessConfig()
    made = recipes.make(config, how, dataset.schema, dataset.statistics, root=rows.Path())
    target = losses.target(loss, dataset.schema, dataset.statistics)
    return Graph(dataset.schema, made.features(), made.model(), target).eval()


def ask(data: bytes, schema: Schema, inputs: Any) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    kinds = {"str": object, "uint8": np.uint8, "float32": np.float32}
    feed = {t.name: np.asarray(inputs[t.name]).astype(kinds[t.dtype]) for t in schema.tensors()}
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, feed), strict=True))


DATASETS = {
    "grey": lambda: rows.images(60),
    "colour": lambda: rows.images(60, channels=3),
    "float": lambda: rows.images(60, kind="float32"),
    "numbers": lambda: rows.numbers(60),
    "mixed": lambda: rows.mixed(60),
    "number": lambda: rows.numbers(60, task="regression"),
    "mixed number": lambda: rows.mixed(60, task="regression"),
}


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("recipe", ["linear", "mlp", "cnn"])
def test_the_graph_is_that_of_the_schema_and_answers_as_the_model(name: str, recipe: str) -> None:
    dataset = DATASETS[name]()
    if recipe == "cnn" and not dataset.schema.alone:
        pytest.skip("cnn wants images")
    graph = graph_of(dataset, recipe)
    data = export(graph, dataset.schema)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    kinds = {"uint8": "tensor(uint8)", "float32": "tensor(float)", "str": "tensor(string)"}
    wanted = [(t.name, kinds[t.dtype], ["batch", *t.shape]) for t in dataset.schema.tensors()]
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == wanted
    for size in (1, 2, 7, 60):
        assert compare(data, graph, dataset.schema, dataset.load("train").take(slice(0, size)).inputs) <= 1e-5


def test_outputs_are_the_label_and_its_probabilities() -> None:
    dataset = rows.images(60)
    found = ask(export(graph_of(dataset), dataset.schema), dataset.schema, dataset.load("test").inputs)
    assert list(found) == ["label", "probabilities"]
    np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1, atol=1e-6)
    labels = np.array(dataset.schema.labels)[found["probabilities"].argmax(axis=1)]
    assert found["label"].tolist() == labels.tolist()


def test_a_regression_answers_in_the_targets_unit() -> None:
    dataset = rows.numbers(60, task="regression")
    graph = graph_of(dataset)
    nn.init.zeros_(graph.model[-1].weight)
    nn.init.zeros_(graph.model[-1].bias)
    found = ask(export(graph, dataset.schema), dataset.schema, dataset.load("test").inputs)
    np.testing.assert_allclose(found["value"], dataset.statistics["__target__"]["mean"], rtol=1e-5)


def test_a_poisson_model_answers_with_the_rate() -> None:
    dataset = rows.numbers(60, task="regression")
    dataset.statistics["__target__"]["min"] = 0
    graph = graph_of(dataset, loss="poisson")
    found = ask(export(graph, dataset.schema), dataset.schema, dataset.load("test").inputs)
    assert (found["value"] > 0).all()


def test_no_rows_give_no_answers() -> None:
    dataset = rows.mixed(60)
    inputs = {name: value[:0] for name, value in dataset.load("test").inputs.items()}
    assert ask(export(graph_of(dataset), dataset.schema), dataset.schema, inputs)["probabilities"].shape == (0, 2)


NUMBERS = st.one_of(st.floats(-1e3, 1e3, width=32), st.just(float("nan")))
STRINGS = st.one_of(
    st.sampled_from(["", "blue", "green", "red", "a b", "Ås", "Œuf", "Blue", " blue"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5),
)


@pytest.fixture(scope="module", params=["onehot", "ordinal"])
def exported(request: Any) -> tuple[Graph, bytes, Schema]:
    dataset = rows.mixed(200)
    graph = graph_of(dataset, how=PreprocessConfig(encode=request.param))
    return graph, export(graph, dataset.schema), dataset.schema


@settings(max_examples=80, deadline=None)
@given(cells=st.lists(st.tuples(st.floats(-1e3, 1e3, width=32), NUMBERS, STRINGS, STRINGS), min_size=1, max_size=5))
def test_strings_and_missing_values_answer_as_in_torch(exported: Any, cells: list[Any]) -> None:
    graph, data, schema = exported
    size, age, colour, town = zip(*cells, strict=True)
    inputs = {
        "size": np.array(size, np.float32),
        "age": np.array(age, np.float32),
        "colour": np.array(colour, dtype=str),
        "town": np.array(town, dtype=str),
    }
    assert compare(data, graph, schema, inputs) <= 1e-5


@pytest.mark.parametrize("name", ["grey", "mixed", "mixed number"])
def test_the_same_weights_give_the_same_bytes(name: str) -> None:
    dataset = DATASETS[name]()
    assert export(graph_of(dataset), dataset.schema) == export(graph_of(dataset), dataset.schema)


def test_the_file_is_checked_pinned_and_names_no_machine() -> None:
    dataset = rows.mixed(60)
    data = export(graph_of(dataset), dataset.schema)
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 17, "ai.onnx.ml": 3}
    assert model.ir_version == 8 and b"/work" not in data and b"site-packages" not in data
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(about["labels"]) == ["no", "yes"] and about["schema"] == dataset.schema.digest
    assert about["task"] == "classification"


def test_batch_norm_is_folded_into_the_convolution() -> None:
    dataset = rows.images(60)
    model = onnx.load_from_string(export(graph_of(dataset, "cnn", batch_norm=True), dataset.schema))
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


def test_a_column_may_have_the_name_of_an_inner_value() -> None:
    fields = tuple(
        Field(name, "category", "str", categories=("a", "b")) for name in ("model.0.weight", "answer", "input_0")
    )
    schema = Schema("classification", fields, "y", ("no", "yes"))
    inputs = {field.name: np.array(["a", "b"] * 10) for field in fields}
    dataset = rows.made(schema, inputs, np.array([0, 1] * 10))
    graph = graph_of(dataset)
    assert compare(export(graph, schema), graph, schema, inputs) <= 1e-5


def test_a_column_that_has_the_name_of_an_output_is_refused() -> None:
    fields = (Field("label", "category", "str", categories=("a", "b")), Field("n", "number", "float32"))
    schema = Schema("classification", fields, "y", ("no", "yes"))
    inputs = {"label": np.array(["a", "b"] * 10), "n": np.zeros(20, np.float32)}
    with pytest.raises(ConfigError, match="a column named 'label' cannot be an input of the ONNX model"):
        export(graph_of(rows.made(schema, inputs, np.array([0, 1] * 10))), schema)


class Branch(nn.Module):
    """Answers otherwise for the values of one batch than for another's."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) if float(x.abs().sum()) < 1e3 else -self.inner(x)


def test_a_model_that_branches_on_its_input_is_found_out() -> None:
    dataset = rows.numbers(100)
    graph = graph_of(dataset)
    graph.model = Branch(graph.model)
    data = export(graph, dataset.schema)
    far = {"features": dataset.load("train").inputs["features"] * 1000}
    with pytest.raises(
        ConfigError, match="the exported ONNX model predicts otherwise than the model: greatest difference"
    ):
        compare(data, graph, dataset.schema, far)


def test_other_labels_are_found_out() -> None:
    dataset = rows.images(100)
    graph = graph_of(dataset)
    model = onnx.load_from_string(export(graph, dataset.schema))
    encoder = next(node for node in model.graph.node if node.name == "label/decode")
    strings = next(attribute for attribute in encoder.attribute if attribute.name == "values_strings")
    strings.strings[:] = strings.strings[::-1]
    with pytest.raises(ConfigError, match="gives another label than the model for"):
        compare(model.SerializeToString(), graph, dataset.schema, dataset.load("train").inputs)


def test_an_operation_that_onnx_lacks_is_said() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.svd(x)[0][:, :3]

    dataset = rows.numbers(60)
    graph = graph_of(dataset)
    graph.model = Odd()
    with pytest.raises(ConfigError, match="the model cannot be exported to ONNX opset 17"):
        export(graph, dataset.schema)
