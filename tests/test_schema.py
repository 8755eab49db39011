"""A schema says what a raw row is; it round-trips, names its graph's inputs, and its digest pins it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boatyard.data.schema import Batch, Field, Schema
from boatyard.errors import ArtifactError

NUMBER = Field("age", "number", "float32", nullable=True, minimum=0.0, maximum=None)
CATEGORY = Field("site", "category", "str", categories=("north", "south"))
GREY = Field("image", "image", "uint8", (28, 28))

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
bounds = st.none() | st.floats(allow_nan=False, allow_infinity=False)
numbers = st.builds(
    Field, names, st.just("number"), st.just("float32"), nullable=st.booleans(), minimum=bounds, maximum=bounds
)
categories = st.builds(
    Field, names, st.just("category"), st.just("str"), nullable=st.booleans(), categories=st.lists(names).map(tuple)
)
images = st.builds(
    Field,
    st.just("image"),
    st.just("image"),
    st.sampled_from(["uint8", "float32"]),
    st.tuples(*[st.integers(1, 99)] * 2) | st.tuples(*[st.integers(1, 99)] * 3),
)
schemas = st.builds(
    Schema,
    st.sampled_from(["classification", "regression"]),
    st.lists(numbers | categories, min_size=1, max_size=5, unique_by=lambda field: field.name).map(tuple)
    | images.map(lambda field: (field,)),
    names,
    st.lists(names, unique=True).map(tuple),
)


@given(schemas)
def test_a_schema_comes_back_whole_from_its_json(schema: Schema) -> None:
    again = Schema.from_dict(json.loads(json.dumps(schema.to_dict())))
    assert again == schema
    assert again.digest == schema.digest


@given(schemas)
def test_every_field_is_in_exactly_one_input_of_the_graph(schema: Schema) -> None:
    stacked = [name for tensor in schema.tensors() for name in tensor.fields]
    assert stacked == [field.name for field in schema.fields]


def test_an_image_is_one_input_of_its_own_shape() -> None:
    schema = Schema("classification", (GREY,), "label", ("a", "b"))
    (tensor,) = schema.tensors()
    assert schema.alone == schema.pictured == GREY
    assert (tensor.name, tensor.dtype, tensor.shape) == ("image", "uint8", (28, 28))


def test_numbers_alone_are_stacked_into_one_input() -> None:
    second = Field("height", "number", "float32")
    (tensor,) = Schema("regression", (NUMBER, second), "y").tensors()
    assert (tensor.name, tensor.dtype, tensor.shape) == ("features", "float32", (2,))
    assert tensor.fields == ("age", "height")


def test_with_categories_each_column_is_an_input() -> None:
    tensors = Schema("regression", (NUMBER, CATEGORY), "y").tensors()
    assert [(t.name, t.dtype, t.shape) for t in tensors] == [("age", "float32", ()), ("site", "str", ())]


@pytest.mark.parametrize(
    "changed",
    [
        Schema("classification", (NUMBER, CATEGORY), "y", ("b", "a")),
        Schema("classification", (CATEGORY, NUMBER), "y", ("a", "b")),
        Schema("classification", (NUMBER, CATEGORY), "z", ("a", "b")),
        Schema("classification", (Field("age", "number", "float32"), CATEGORY), "y", ("a", "b")),
    ],
)
def test_the_digest_tells_any_change(changed: Schema) -> None:
    assert changed.digest != Schema("classification", (NUMBER, CATEGORY), "y", ("a", "b")).digest


@pytest.mark.parametrize(
    "value", [{}, {"task": "regression"}, {"task": "x", "fields": [{}], "target": "y", "labels": []}]
)
def test_what_is_no_schema_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(ArtifactError, match="not a schema of ours"):
        Schema.from_dict(value)


def test_a_field_that_is_not_there_is_a_key_error() -> None:
    schema = Schema("regression", (NUMBER,), "y")
    assert schema.field("age") is NUMBER
    with pytest.raises(KeyError, match="weight"):
        schema.field("weight")


@given(st.integers(0, 40), st.integers(1, 17))
def test_a_batch_cut_in_pieces_holds_the_same_rows_in_the_same_order(count: int, size: int) -> None:
    rows = np.arange(count)
    batch = Batch({"x": rows * 2.0}, rows * 3, rows, {"site": rows.astype(str)})
    pieces = list(batch.split(size))
    assert all(0 < len(piece) <= size for piece in pieces)
    assert [r for piece in pieces for r in piece.rows] == rows.tolist()
    assert all((p.inputs["x"] == p.rows * 2.0).all() and (p.slices["site"] == p.rows.astype(str)).all() for p in pieces)


def test_taking_rows_keeps_what_belongs_together() -> None:
    rows = np.arange(5)
    taken = Batch({"x": rows * 2.0}, rows * 3, rows, {"site": rows.astype(str)}).take([4, 0])
    assert taken.rows.tolist() == [4, 0]
    assert taken.inputs["x"].tolist() == [8.0, 0.0]
    assert taken.target.tolist() == [12, 0]
    assert taken.slices["site"].tolist() == ["4", "0"]
