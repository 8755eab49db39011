"""What the inference routes have in common: a body to a question of one model, and its answers to a response's body."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from boatyard.data.schema import Array
from boatyard.prediction import Answers

from . import v1, v2
from .direct import Direct, Unread

if TYPE_CHECKING:
    from .predictor import Predictor

Fields = list[tuple[bytes, bytes]]
JSON: Fields = [(b"content-type", b"application/json")]
OCTETS: Fields = [(b"content-type", b"application/octet-stream")]


class Question(NamedTuple):
    """Graph inputs, [N, *shape] by name, and how their answers become a body and the fields that say what it is.

    The inputs may not be read yet: the queue reads them, those of a batch together.
    """

    inputs: Mapping[str, Array] | Unread
    encode: Callable[[Answers], tuple[bytes, Fields]]


Decode = Callable[["Predictor", Direct, bytes], Question]  # raises RequestError


class Route(NamedTuple):
    """One protocol's inference at one model, for bodies of JSON."""

    model: Predictor
    protocol: str
    decode: Decode


def predict(model: Predictor, direct: Direct, body: bytes) -> Question:
    """Read a V1 body, or leave that to the queue when its turn is now: raises RequestError, here or there."""
    unread = direct.cut(body) if model.batcher.is_light(1) else None
    return Question(unread or direct.decode(body) or v1.decode(model.schema, body), partial(_predictions, model))


def picture(model: Predictor, direct: Direct, body: bytes) -> Question:
    """Read a body that is a PNG or a JPEG, for a V1 answer; raises RequestError."""
    return Question(v1.decode_picture(model.schema, body), partial(_predictions, model))


def infer(model: Predictor, direct: Direct, body: bytes, head: int | None = None) -> Question:
    """Read a V2 body, with `head` bytes of JSON when binary tensors follow; raises RequestError."""
    request = direct.infer(body) if head is None else None
    request = request or v2.decode(model.schema, body, head)
    return Question(request.inputs, partial(_outputs, model, request))


def _predictions(model: Predictor, answers: Answers) -> tuple[bytes, Fields]:
    return v1.encode(model.schema, answers), JSON


def _outputs(model: Predictor, request: v2.Request, answers: Answers) -> tuple[bytes, Fields]:
    body, head = v2.encode(model.schema, model.name, model.version, request, answers)
    if head is None:
        return body, JSON
    return body, [*OCTETS, (b"inference-header-content-length", b"%d" % head)]
