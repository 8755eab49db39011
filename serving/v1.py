"""The V1 protocol: a JSON body with instances to graph inputs, answers to predictions."""

from __future__ import annotations

import orjson

from boatyard import prediction, tasks
from boatyard.data.schema import Array, Schema
from boatyard.prediction import Answers
from boatyard.prediction.decoding import picture, show, wrong

from . import v2

KEYS = ("instances", "parameters", "signature_name")
PICTURES = ("image/png", "image/jpeg")


def decode(schema: Schema, body: bytes) -> dict[str, Array]:
    """Read a request body; raises RequestError."""
    value = v2.mapping(v2.load(body), "the body", ("instances",))
    for key in value:
        if key not in KEYS:
            raise wrong(f"keys {', '.join(KEYS)}", show(key), "the body")
    return prediction.decode(schema, value["instances"])


def decode_picture(schema: Schema, body: bytes) -> dict[str, Array]:
    """Read a body that is one PNG or JPEG: a request of one instance; raises RequestError."""
    if not schema.is_image:
        raise wrong("JSON: this model takes rows of a table", "an image", "the body")
    field = schema.fields[0]
    return {field.name: picture(field, body, "the body")[None]}


def encode(schema: Schema, answers: Answers) -> bytes:
    """Return the response; orjson writes a float32 with the fewest digits that give it back."""
    return orjson.dumps({"predictions": tasks.of(schema).v1_rows(answers)}, option=v2.OPTIONS)
