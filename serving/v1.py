"""The V1 protocol: a JSON body with instances to graph inputs, answers to predictions."""

from __future__ import annotations

import orjson

from boatyard import prediction, tasks
from boatyard.data import kinds
from boatyard.data.schema import Array, Schema
from boatyard.prediction import Answers
from boatyard.prediction.decoding import check, show, wrong

from . import v2

KEYS = ("instances", "parameters", "signature_name")


def decode(schema: Schema, body: bytes) -> dict[str, Array]:
    """Read a request body; raises RequestError."""
    value = v2.mapping(v2.load(body), "the body", ("instances",))
    for key in value:
        if key not in KEYS:
            raise wrong(f"keys {', '.join(KEYS)}", show(key), "the body")
    return prediction.decode(schema, value["instances"])


def decode_picture(schema: Schema, body: bytes) -> dict[str, Array]:
    """Read a body that is one value and no JSON, such as a PNG: a request of one instance; raises RequestError."""
    field = schema.alone
    if field is None or not kinds.of(field).media_types:
        raise wrong("JSON: this model takes rows of a table", "an image", "the body")
    inputs = {field.name: kinds.of(field).read_body(field, body, "the body")[None]}
    check(schema, inputs, lambda row, name: "the body")
    return inputs


def media_types(schema: Schema) -> tuple[str, ...]:
    """Return the media types of bodies that are one value and no JSON."""
    return kinds.of(schema.alone).media_types if schema.alone else ()


def encode(schema: Schema, answers: Answers) -> bytes:
    """Return the response; orjson writes a float32 with the fewest digits that give it back."""
    return orjson.dumps({"predictions": tasks.of(schema).v1_rows(answers)}, option=v2.OPTIONS)
