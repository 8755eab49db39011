"""The V1 protocol: a JSON body with instances to graph inputs, answers to predictions."""

from __future__ import annotations

import orjson

from boatyard import prediction
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


def encode(answers: Answers) -> bytes:
    """Return the response; orjson writes a float32 with the fewest digits that give it back."""
    if answers.labels is None or answers.probabilities is None:
        return orjson.dumps({"predictions": answers.values}, option=v2.OPTIONS)
    if len(answers.labels) == 1:
        predictions = [{"label": answers.labels[0], "probabilities": answers.probabilities[0]}]
    else:
        rows = zip(answers.labels.tolist(), answers.probabilities, strict=True)
        predictions = [{"label": label, "probabilities": row} for label, row in rows]
    return orjson.dumps({"predictions": predictions}, option=v2.OPTIONS)
