"""The direct decoder: the same arrays as the general one, or None; never an array that the general one refuses."""

from __future__ import annotations

import json
from typing import Any

import graphs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boatyard.data.schema import Field, Schema
from boatyard.errors import RequestError
from serving import v1, v2
from serving.direct import Direct

BOUNDED = Schema(
    "regression",
    (
        Field("a", "number", "float32", (), minimum=-1, maximum=5),
        Field("b", "number", "float32", (), nullable=True),
        Field("c", "number", "float32", ()),
    ),
    "y",
)
SCHEMAS = {
    "image": graphs.image_schema((2, 3)),
    "colour": graphs.image_schema((2, 2, 3)),
    "numbers": graphs.numbers_schema(),
    "bounded": BOUNDED,
    "mixed": graphs.mixed_schema(),
}
NUMBERS = st.one_of(st.integers(-2, 300), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none())


def compare(schema: Schema, body: bytes) -> bool:
    """Hold both decoders against each other; say whether the direct one took the body."""
    found = Direct(schema).decode(body)
    if found is None:
        return False
    wanted = v1.decode(schema, body)  # a RequestError here is a body that the direct one should not have taken
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)
    return True


def nested(shape: tuple[int, ...], leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    if not shape:
        return leaf
    size = st.just(shape[0]) | st.integers(max(shape[0] - 1, 0), shape[0] + 1)
    return size.flatmap(lambda n: st.lists(nested(shape[1:], leaf), min_size=n, max_size=n))


@pytest.mark.parametrize("name", list(SCHEMAS))
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_both_decoders_see_the_same_numbers(name: str, data: st.DataObject) -> None:
    schema = SCHEMAS[name]
    shape = schema.tensors()[0].shape
    leaf = data.draw(st.sampled_from([st.integers(0, 255), st.integers(0, 5), NUMBERS]))
    rows = data.draw(st.lists(nested(shape, leaf), min_size=0, max_size=4))
    body = data.draw(st.sampled_from([{"instances": rows}, {"instances": rows, "parameters": {}}, {"inputs": rows}]))
    compare(schema, json.dumps(body, indent=data.draw(st.sampled_from([None, 1]))).encode())


@pytest.mark.parametrize("name", ["image", "colour", "numbers", "bounded"])
def test_the_usual_body_is_taken(name: str) -> None:
    schema = SCHEMAS[name]
    rows = np.ones((3, *schema.tensors()[0].shape), int).tolist()
    for body in (json.dumps({"instances": rows}), json.dumps({"instances": rows}, indent=2)):
        assert compare(schema, body.encode())


ONE = "[[1,2,3],[4,5,6]]"


@pytest.mark.parametrize(
    "body",
    [
        '{"instances":[[[1,2,3],[4,5,256]]]}',
        '{"instances":[[[1,2,3],[4,5,-1]]]}',
        '{"instances":[[[1,2,3],[4,5,6.5]]]}',
        '{"instances":[[[1,2,3],[4,5,1e2]]]}',
        '{"instances":[[[1,2,3],[4,5,true]]]}',
        '{"instances":[[[1,2,3],[4,5]]]}',
        '{"instances":[[[1,2,3,4],[5,6]]]}',
        '{"instances":[[[1,2],[3,4],[5,6]]]}',
        '{"instances":[[[],[]]]}',
        '{"instances":[]}',
        '{"instances":[[[1,2,3],[4,5,6]]]} 1',
        '{"instances":[[[1,2,3],[4,5,6]]],}',
        '{"instances":[[[1,2,3],[4,5 6]]]}',
        '{"instances":[[[1,2,3],[4,5,06]]]}',
        f'{{"instances":[{ONE}],"instances":[{ONE}]}}',
        f'{{"instancs":[{ONE}]}}',
        f'{{"inst1ances":[{ONE}]}}',
        f'[{{"instances":[{ONE}]}}]',
        "",
        "null",
        "\xff",
    ],
)
def test_what_is_not_plain_is_left_to_the_general_decoder(body: str) -> None:
    assert Direct(SCHEMAS["image"]).decode(body.encode("latin-1")) is None


def test_a_decoder_goes_on_after_a_body_that_it_could_not_read() -> None:
    decoder, good = Direct(SCHEMAS["image"]), f'{{"instances":[{ONE}]}}'.encode()
    for bad in (b'{"instances":[[[1,2,3],[4,5,999999999999999999999]]]}', b"{", good.replace(b"6", b"x")):
        assert decoder.decode(bad) is None
        assert decoder.decode(good) is not None


def test_a_number_past_its_bound_is_refused_by_the_one_that_says_why() -> None:
    body = b'{"instances":[[6,1,1]]}'
    assert Direct(BOUNDED).decode(body) is None
    with pytest.raises(RequestError, match="from -1 to 5"):
        v1.decode(BOUNDED, body)


# Bodies of one row that are read together

PIECES = (b"[", b"]", b"],[", b",", b"1", b"-", b".5", b"e", b" ", b"300", b"\n", b"null", b'"', b"}", b"0")


@st.composite
def written(draw: st.DrawFn, schema: Schema) -> bytes:
    """Return a body of one row, right or with a value that is not, and perhaps with bytes put in or taken out."""
    shape = schema.tensors()[0].shape
    leaf = draw(st.sampled_from([st.integers(0, 5), st.integers(0, 5), NUMBERS]))
    row = draw(full(shape, leaf))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    body = json.dumps({"instances": [row]}, separators=separators).encode()
    for _ in range(draw(st.sampled_from((0, 0, 0, 1, 2)))):
        at, out = draw(st.integers(0, len(body))), draw(st.integers(0, 3))
        body = body[:at] + draw(st.sampled_from(PIECES)) + body[at + out :]
    return body


def full(shape: tuple[int, ...], leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    if not shape:
        return leaf
    return st.lists(full(shape[1:], leaf), min_size=shape[0], max_size=shape[0])


def plainly(schema: Schema, body: bytes) -> list[Any] | None:
    """Return the one array that the general decoder reads, as a list, or None when it refuses the body."""
    try:
        (array,) = v1.decode(schema, body).values()
    except RequestError:
        return None
    return list(array.tolist())


@pytest.mark.parametrize("name", ["image", "colour", "numbers", "bounded"])
@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_bodies_that_are_read_together_are_each_what_they_are_alone(name: str, data: st.DataObject) -> None:
    schema = SCHEMAS[name]
    direct, bodies = Direct(schema), data.draw(st.lists(written(schema), min_size=1, max_size=5))
    unread = [each for each in map(direct.cut, bodies) if each]
    if not unread:
        return
    wanted = [plainly(schema, each.body) for each in unread]
    found = direct.together(unread)
    if found is not None:
        (array,) = found.values()
        assert [[row] for row in array.tolist()] == wanted
    for each, right in zip(unread, wanted, strict=True):
        if right is None:
            with pytest.raises(RequestError):
                direct.alone(each)
        else:
            (array,) = direct.alone(each).values()
            assert array.tolist() == right


def test_usual_bodies_of_one_row_are_read_together() -> None:
    direct = Direct(SCHEMAS["image"])
    bodies = [
        json.dumps({"instances": [[[1, 2, 3], [4, 5, n]]]}, separators=s) for n, s in enumerate([None, (",", ":")])
    ]
    unread = [direct.cut(body.encode()) for body in bodies]
    found = direct.together([each for each in unread if each])
    assert found is not None and found["image"].tolist() == [[[1, 2, 3], [4, 5, 0]], [[1, 2, 3], [4, 5, 1]]]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("[[1,2,3],[4,5", "6]],[[1,2,3],[4,5,6]]"),  # a comma of the list between them would mend both
        ("[[1,2,3],[4,5,6]],[[1,2,3]", "[4,5,6]]"),
        ("", ONE),
        (ONE + "," + ONE, ""),
    ],
)
def test_a_body_cannot_be_mended_by_the_one_after_it(first: str, second: str) -> None:
    direct = Direct(SCHEMAS["image"])
    cut = [direct.cut(f'{{"instances":[{row}]}}'.encode()) for row in (first, second)]
    assert not all(cut)


# V2: the numbers are cut out of what is around them


def compare_v2(schema: Schema, body: bytes) -> bool:
    """Hold both decoders of V2 against each other; say whether the direct one took the body."""
    found = Direct(schema).infer(body)
    if found is None:
        return False
    wanted = v2.decode(schema, body, None)
    assert found.outputs == wanted.outputs and list(found.outputs) == list(wanted.outputs)
    assert found.id == wanted.id or (len(found.id), len(wanted.id)) == (32, 32)
    assert found.inputs.keys() == wanted.inputs.keys()
    for name, array in wanted.inputs.items():
        assert (found.inputs[name].dtype, found.inputs[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found.inputs[name], array)
    return True


def question(schema: Schema, data: Any, rows: int) -> dict[str, Any]:
    (tensor,) = schema.tensors()
    return {
        "name": tensor.name,
        "shape": [rows, *tensor.shape],
        "datatype": v2.DATATYPES[tensor.dtype],
        "data": data,
    }


PIECES = (b'"data":[1]', b'"data"', b"\\u0061", b"[]", b"]", b"}", b"{", b'"', b",", b"1", b"[[", b"null", b'"id":"x",')
MORE = (
    {},
    {"id": "x"},
    {"id": ""},
    {"id": 7},
    {"parameters": {"binary_data_output": True}},
    {"parameters": {"data": [1]}},
)
WANTED = ({}, {"outputs": []}, {"outputs": [{"name": "label"}]}, {"outputs": [{"name": "data"}]})


@pytest.mark.parametrize("name", ["image", "colour", "numbers", "bounded"])
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_both_decoders_of_v2_see_the_same_request(name: str, data: st.DataObject) -> None:
    schema = SCHEMAS[name]
    shape, count = schema.tensors()[0].shape, data.draw(st.integers(1, 3))
    leaf = data.draw(st.sampled_from([st.integers(0, 255), st.integers(0, 5), NUMBERS]))
    rows = data.draw(nested((count, *shape), leaf))
    values = data.draw(st.sampled_from([rows, list(np.ravel(np.array(rows, object)))]))
    entry = question(schema, values, data.draw(st.sampled_from([count, count, count, count + 1, 0, "1"])))
    entry = dict(data.draw(st.permutations(list(entry.items()))))
    body = {**data.draw(st.sampled_from(MORE)), "inputs": [entry], **data.draw(st.sampled_from(WANTED))}
    text = json.dumps(
        dict(data.draw(st.permutations(list(body.items())))), indent=data.draw(st.sampled_from([None, 1]))
    )
    sent = bytearray(text.encode())
    for _ in range(data.draw(st.integers(0, 2))):
        at, piece = data.draw(st.integers(0, len(sent))), data.draw(st.sampled_from(PIECES))
        sent[at : at + data.draw(st.sampled_from([0, 1, len(piece)]))] = piece
    compare_v2(schema, bytes(sent))


@pytest.mark.parametrize("name", ["image", "colour", "numbers", "bounded"])
def test_the_usual_body_of_v2_is_taken(name: str) -> None:
    schema = SCHEMAS[name]
    rows = np.ones((3, *schema.tensors()[0].shape), int)
    for data in (rows.tolist(), rows.ravel().tolist()):
        for more in ({}, {"id": "7"}, {"parameters": {"binary_data_output": True}}):
            for indent in (None, 2):
                body = {**more, "inputs": [question(schema, data, 3)], "outputs": []}
                assert compare_v2(schema, json.dumps(body, indent=indent).encode())


@pytest.mark.parametrize(
    "body",
    [
        '{"inputs":[{"name":"image","shape":[1,2,3],"datatype":"UINT8","data":[1,2,3,4,5]}]}',
        '{"inputs":[{"name":"image","shape":[1,2,3],"datatype":"UINT8","data":[1,2,3,4,5,256]}]}',
        '{"inputs":[{"name":"image","shape":[1,2,3],"datatype":"UINT8","data":[1,2,3,4,5,6]}]} 1',
        '{"inputs":[{"name":"image","shape":[1,2,3],"datatype":"UINT8","data":[1,2,3,4,5,6]]}]}',
        '{"inputs":[{"name":"image","shape":[1,2,3],"datatype":"UINT8","data":[1,2,3,4,5,6],"data":[]}]}',
        '{"inputs":[{"name":"image","shape":[1,2,3],"datatype":"UINT8","data":[],"data":[1,2,3,4,5,6]}]}',
        '{"parameters":{"data":[1,2,3,4,5,6]},"inputs":[{"name":"image","shape":[1,2,3],"datatype":"UINT8","data":[]}]}',
        '{"id":{"data":[1,2,3,4,5,6]},"inputs":[{"name":"image","shape":[1,2,3],"datatype":"UINT8","d\\u0061ta":[]}]}',
        '{"parameters":{"data":[1,2,3,4,5,6]},"inputs":[{"name":"image","shape":[1,2,3],"datatype":"UINT8","d\\u0061ta":[]}]}',
        '{"inputs":[{"name":"image","shape":[1000000000000,2,3],"datatype":"UINT8","data":[1,2,3,4,5,6]}]}',
        '{"inputs":[{"name":"image","shape":[1,2,3],"datatype":"UINT8","data":"[1,2,3,4,5,6]"}]}',
        '{"inputs":[{"name":"image","shape":[1,2,3],"datatype":"UINT8","parameters":{"binary_data_size":0},"data":[1,2,3,4,5,6]}]}',
        '{"inputs":[{"name":"image","shape":[1,2,3],"datatype":"UINT8","data":[1,2,3,4,5,6]}],"outputs":[{"name":"x"}]}',
        '{"inputs":[{"data":[1,2,3,4,5,6]',
        '"data"[1',
    ],
)  # fmt: skip
def test_a_body_of_v2_that_is_not_plain_is_left_to_the_general_decoder(body: str) -> None:
    assert Direct(SCHEMAS["image"]).infer(body.encode()) is None
