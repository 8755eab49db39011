"""The engine holds a graph to its schema and a request to both; a batch does not change an answer."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from boatyard import prediction
from boatyard.data import values
from boatyard.data.schema import Field, Schema
from boatyard.errors import ArtifactError, RequestError
from boatyard.prediction import decoding, protobuf

SCHEMAS = [
    graphs.image_schema(),
    graphs.image_schema((4, 4, 3)),
    graphs.image_schema((3, 2), "float32"),
    graphs.numbers_schema(),
    graphs.numbers_schema("classification"),
    graphs.mixed_schema(),
    graphs.mixed_schema("regression"),
]
each_schema = pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))


def engine(schema: Schema) -> prediction.Engine:
    return prediction.OnnxRuntime(graphs.graph(schema), schema, threads=1)


@each_schema
def test_an_answer_does_not_depend_on_its_batch(schema: Schema) -> None:
    inputs, run = graphs.rows(schema, 65), engine(schema).run
    whole = run(inputs)
    for size in (1, 2, 7, 64):
        parts = [run({k: v[i : i + size] for k, v in inputs.items()}) for i in range(0, 65, size)]
        for index, output in enumerate(whole.outputs()):
            found = np.concatenate([part.outputs()[index] for part in parts])
            if output.dtype == object:
                assert found.tolist() == output.tolist()
            else:
                np.testing.assert_allclose(found, output, rtol=1e-5, atol=1e-5)


@each_schema
def test_more_rows_than_run_at_once_keep_their_order(schema: Schema) -> None:
    inputs, run = graphs.rows(schema, 600), engine(schema).run
    whole, last = run(inputs), run({name: array[599:] for name, array in inputs.items()})
    assert len(whole) == 600
    for output, wanted in zip(whole.outputs(), last.outputs(), strict=True):
        if output.dtype == object:
            assert output[599] == wanted[0]
        else:
            np.testing.assert_allclose(output[599], wanted[0], rtol=1e-5, atol=1e-5)


@each_schema
def test_what_is_encoded_is_decoded_bit_for_bit(schema: Schema) -> None:
    inputs = graphs.rows(schema, 9)
    decoded = prediction.decode(schema, prediction.encode(schema, inputs))
    assert decoded.keys() == inputs.keys()
    for name, value in inputs.items():
        assert (decoded[name].dtype, decoded[name].shape) == (value.dtype, value.shape)
        assert decoded[name].tolist() == value.tolist()


def test_a_missing_value_survives_encoding() -> None:
    schema = graphs.mixed_schema()
    inputs = {"age": np.array([np.nan], np.float32), "colour": np.array([""], object), "city": np.array(["B"], object)}
    assert prediction.encode(schema, inputs) == [{"age": None, "colour": None, "city": "B"}]
    decoded = prediction.decode(schema, [{"city": "B"}])
    assert np.isnan(decoded["age"][0]) and decoded["colour"][0] == ""


@each_schema
def test_inputs_of_a_wrong_name_type_or_shape_are_refused(schema: Schema) -> None:
    run, inputs = engine(schema).run, graphs.rows(schema, 3)
    name = next(iter(inputs))
    wrong = [
        {},
        {**inputs, "more": inputs[name]},
        {**inputs, name: inputs[name].astype(object if inputs[name].dtype != object else "S5")},
        {**inputs, name: inputs[name][..., None]},
    ]
    for each in wrong:
        with pytest.raises(RequestError, match=r"expected .*, found "):
            run(each)


@pytest.mark.parametrize(("wanted", "made"), [(0, 1), (0, 2), (0, 3), (3, 4), (4, 3), (5, 6), (5, 0)])
def test_a_graph_for_another_schema_is_refused_with_wanted_and_found(wanted: int, made: int) -> None:
    with pytest.raises(
        ArtifactError, match=r"the ONNX model's (in|out)put.* expected .* found|expected the ONNX model's .* found"
    ):
        prediction.OnnxRuntime(graphs.graph(SCHEMAS[made]), SCHEMAS[wanted])


def test_a_graph_with_a_fixed_batch_is_refused() -> None:
    model = onnx.load_from_string(graphs.graph(SCHEMAS[0]))
    for end in (*model.graph.input, *model.graph.output):
        end.type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(ArtifactError, match="'batch'"):
        prediction.OnnxRuntime(model.SerializeToString(), SCHEMAS[0])


def external(location: str) -> bytes:
    """A graph whose weights lie in another file."""
    model = onnx.load_from_string(graphs.graph(SCHEMAS[0]))
    weights = model.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    data: bytes = model.SerializeToString()
    return data


@pytest.mark.parametrize("location", ["weights.bin", "/etc/passwd", "../../secret"])
def test_a_graph_that_names_another_file_is_refused(location: str) -> None:
    with pytest.raises(ArtifactError, match="one that names other files"):
        prediction.OnnxRuntime(external(location), SCHEMAS[0])


def test_a_file_named_deep_inside_a_graph_is_found() -> None:
    tensor = onnx.load_from_string(external("x")).graph.initializer[0]
    constant = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    inner = onnx.helper.make_graph([constant], "inner", [], [])
    branch = onnx.helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    model = onnx.helper.make_model(onnx.helper.make_graph([branch], "outer", [], []))
    assert protobuf.keeps_data_elsewhere(model.SerializeToString())
    assert not protobuf.keeps_data_elsewhere(graphs.graph(SCHEMAS[5]))


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200))
def test_bytes_that_are_no_graph_are_refused(data: bytes) -> None:
    with pytest.raises(ArtifactError):
        prediction.OnnxRuntime(data, SCHEMAS[0])


def test_a_graph_cut_anywhere_is_refused_or_answers_as_the_whole() -> None:
    schema, whole = SCHEMAS[3], graphs.graph(SCHEMAS[3])
    rows = graphs.rows(schema, 4)
    expected = prediction.OnnxRuntime(whole, schema).run(rows).outputs()
    accepted = []
    for cut in range(len(whole)):
        try:
            engine = prediction.OnnxRuntime(whole[:cut], schema)
        except ArtifactError:
            continue
        accepted.append(cut)
        assert all(map(np.array_equal, engine.run(rows).outputs(), expected)), f"cut at {cut}"
    # the last field names a set of operators that this graph does not use: without it the graph is whole
    assert accepted == [len(whole) - len(onnx.load_from_string(whole).opset_import[-1].SerializeToString()) - 2]


def test_a_graph_with_operators_that_nobody_knows_is_refused() -> None:
    model = onnx.load_from_string(graphs.graph(SCHEMAS[0]))
    model.graph.node[0].domain = "evil.example"
    with pytest.raises(ArtifactError, match="refuses"):
        prediction.OnnxRuntime(model.SerializeToString(), SCHEMAS[0])


def test_no_graph_is_said(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no graph at"):
        prediction.OnnxRuntime(tmp_path / "none.onnx", SCHEMAS[0])


def test_a_package_is_loaded_by_its_digest_and_answers(tmp_path: Path) -> None:
    package = graphs.package(tmp_path, SCHEMAS[5])
    predictor = prediction.load(package.path, digest=package.digest, threads=1)
    assert (predictor.name, predictor.schema, len(predictor.run(graphs.rows(SCHEMAS[5], 4)))) == (
        "insects",
        SCHEMAS[5],
        4,
    )
    with pytest.raises(ArtifactError, match=r"package\.json was changed"):
        prediction.load(package.path, digest="0" * 64)


def test_a_row_without_a_finite_answer_is_refused_by_its_number(tmp_path: Path) -> None:
    schema = Schema("regression", (Field("a", "number", "float32"), Field("b", "number", "float32")), "y")
    predictor = prediction.load(graphs.package(tmp_path, schema, seed=3).path, threads=1)
    with pytest.raises(RequestError, match="finite answers for, found none for row 1"):
        predictor.run({"features": np.array([[1, 1], [3.4e38, -3.4e38]], np.float32)})


def picture(mode: str, size: tuple[int, int] = (4, 4), kind: str = "PNG") -> str:
    out = io.BytesIO()
    Image.new(mode, size).save(out, kind)
    return base64.b64encode(out.getvalue()).decode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (picture("L", (5, 4)), "expected an image 4 high and 4 wide, found 4 by 5"),
        (picture("L", (4000, 4000)), "found 4000 by 4000"),
        (picture("I;16"), "expected 8 bits a pixel"),
        (picture("L", kind="GIF"), "bytes of something else"),
        (picture("L")[:48], "one that cannot be decoded"),
        ("AAA", "base64"),
        ("AAAé", "base64"),
        ("A A=", "base64"),
    ],
    ids=range(8),
)
def test_a_picture_that_is_not_the_schema_s_is_refused(text: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        prediction.decode(SCHEMAS[0], [{"image": {"b64": text}}])


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_a_picture_of_any_common_mode_is_taken(mode: str) -> None:
    for schema in SCHEMAS[:2]:
        assert prediction.decode(schema, [{"b64": picture(mode)}])["image"].shape == (1, *schema.fields[0].shape)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(["image", "b64", "age", "colour", "city", "x"]), inner, max_size=4)
    ),
)


@settings(max_examples=300, deadline=None)
@given(value=JSON, which=st.integers(0, 6))
def test_anything_is_decoded_to_what_the_graph_takes_or_refused(value: Any, which: int) -> None:
    schema = SCHEMAS[which]
    for instances in (value, [value]):
        try:
            inputs = prediction.decode(schema, instances)
        except RequestError:
            continue
        assert len(engine(schema).run(inputs)) == len(instances)


VALUES = st.one_of(
    st.integers(-1, 256),
    st.integers(),
    st.floats(allow_nan=False),
    st.sampled_from(["", "red", "Bonn"]),
    st.none(),
    st.booleans(),
)


def near(schema: Schema, data: st.DataObject) -> list[Any]:
    """Return instances that are as wanted, but for a few values, lengths and columns perhaps."""
    rows = graphs.rows(schema, data.draw(st.integers(1, 3)), seed=data.draw(st.integers(0, 5)))
    instances = prediction.encode(schema, rows)
    if schema.alone:
        instances = rows["image"].tolist()
    elif data.draw(st.booleans()):
        instances = [list(instance.values()) for instance in instances]
    for _ in range(data.draw(st.integers(0, 2))):
        place: Any = instances
        while isinstance(
            inner := next(iter(place.values()) if isinstance(place, dict) else iter(place), None), list | dict
        ):
            place = place[data.draw(st.integers(0, len(place) - 1))] if data.draw(st.booleans()) else inner
        if isinstance(place, dict):
            place[data.draw(st.sampled_from([*place, "x"]))] = data.draw(VALUES)
        else:
            at = data.draw(st.integers(0, len(place)))
            place[at : at + 1] = data.draw(st.lists(VALUES, min_size=0 if len(place) > 1 else 1, max_size=2))
    return instances


@each_schema
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_what_is_read_without_a_look_at_each_value_is_what_a_look_says(schema: Schema, data: st.DataObject) -> None:
    instances = near(schema, data)

    def outcome() -> Any:
        try:
            return prediction.decode(schema, instances)
        except RequestError as error:
            return str(error)

    quick = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "_plain_rows", lambda *_: None)
        patch.setattr(values, "plain_lists", lambda *_: None)
        slow = outcome()
    if isinstance(slow, str):
        assert quick == slow
        return
    assert quick.keys() == slow.keys()
    for name, array in slow.items():
        assert (quick[name].dtype, quick[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(quick[name], array)
