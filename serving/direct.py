"""Bodies in the form that almost every client sends, parsed by SIMD instructions straight into the graph's one input.

What this module does not know, or finds wrong, is None: then `decoding` answers or says what is wrong, in one place.
A property test holds the two equal.
"""

from __future__ import annotations

import math
import threading
import uuid
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import simdjson

from boatyard.data.schema import Array, Schema
from boatyard.errors import RequestError
from boatyard.prediction.decoding import GREATEST, bounds

from . import v1, v2
from .limits import SMALL

VALUES = b"0123456789+-.eE \t\r\n"  # what numbers and white space are made of
HEAD, TAIL = b'{"instances":['.translate(None, VALUES), b"]}"
HEADS, END = (b'{"instances":[', b'{"instances": ['), b"]}"  # as the usual clients write them
DATA, LONGEST = b'"data"', 4096  # bytes of a V2 body around its numbers
BUFFERS = {"uint8": ("u", np.uint64), "float32": ("d", np.float64)}
UNREADABLE = (ValueError, TypeError, KeyError, RuntimeError)  # simdjson's own, all of them; bad UTF-8 is a ValueError


class Unread(NamedTuple):
    """A V1 body of one row that has the form of one: whether its numbers are such is seen when it is read."""

    body: bytes
    row: bytes


class Direct:
    """A decoder for one schema of one tensor of numbers; from one thread at a time, but for `together` and `alone`."""

    def __init__(self, schema: Schema) -> None:
        tensors = schema.tensors()
        limits = bounds(schema, tensors[0]) if len(tensors) == 1 else None
        self.known = limits is not None and tensors[0].dtype in BUFFERS and schema.wires() == tensors
        if limits is None or not self.known:
            return
        self._schema, (self._tensor,) = schema, tensors
        self._size = math.prod(self._tensor.shape)
        self._row = skeleton(self._tensor.shape)
        self._one = HEAD + self._row + TAIL
        self._bounds = limits
        self._parser = simdjson.Parser()
        self._reader, self._reading = simdjson.Parser(), threading.Lock()

    def cut(self, body: bytes) -> Unread | None:
        """Return a small V1 body of one row with its brackets and commas looked at and nothing else, or None."""
        if not self.known or len(body) > SMALL or not body.startswith(HEADS) or not body.endswith(END):
            return None
        if body.translate(None, VALUES) != self._one:
            return None
        return Unread(body, body[body.index(b"[") + 1 : -len(END)])

    def together(self, unread: Sequence[Unread]) -> dict[str, Array] | None:
        """Return the ONNX model's input of several bodies, a row each: they are parsed as one list, which costs less.

        None when something is wrong with one of them: the brackets of each are its own, so no body can mend another.
        """
        with self._reading:
            return self._read(b"[%b]" % b",".join([each.row for each in unread]), len(unread), parser=self._reader)

    def alone(self, unread: Unread) -> dict[str, Array]:
        """Return the ONNX model's input of one body; raises RequestError."""
        return self.together([unread]) or v1.decode(self._schema, unread.body)

    def decode(self, body: bytes) -> dict[str, Array] | None:
        """Return the graph's input, [N, *shape] by name, of a V1 body `{"instances": [nested numbers, …]}`, or None."""
        if not self.known:
            return None
        found = body.translate(None, VALUES)
        rows = 1 if found == self._one else self._rows(found, HEAD, TAIL)
        return self._read(body, rows, "instances") if rows else None

    def infer(self, body: bytes) -> v2.Request | None:
        """Return the request of a V2 body with its numbers in the JSON, flat or nested, or None.

        The numbers are cut out; what is around them, which comes again and again, the general decoder reads.
        """
        if not self.known or (at := body.find(DATA)) < 0 or (start := body.find(b"[", at)) < 0:
            return None
        stop = body.find(b"}", start)  # lists of numbers have neither this in them nor a quotation mark
        quote = body.find(b'"', start, stop)
        end = body.rfind(b"]", start, stop if quote < 0 else quote) + 1
        if not end or start + len(body) - end > LONGEST:
            return None
        frame = _framed(self._schema, b"%b[]%b" % (body[:start], body[end:]))
        if frame is None or not self._has(data := body[start:end], frame.rows):
            return None
        inputs = self._read(data, frame.rows)
        return None if inputs is None else v2.Request(inputs, frame.id or uuid.uuid4().hex, frame.outputs)

    def _read(self, body: bytes, rows: int, key: str | None = None, parser: Any = None) -> dict[str, Array] | None:
        """Return the numbers of a list, or of the list of that key."""
        kind, dtype = BUFFERS[self._tensor.dtype]
        try:
            document: Any = (parser or self._parser).parse(body)
            values = np.frombuffer((document if key is None else document[key]).as_buffer(of_type=kind), dtype)
            del document  # a parser reads the next one when nothing holds on to the last
        except UNREADABLE:
            return None
        if values.size != rows * self._size or not self._fit(values):
            return None
        array = values.astype(self._tensor.dtype).reshape(rows, *self._tensor.shape)
        if not self._bounds.hold(array):
            return None
        return {self._tensor.name: array}

    def _rows(self, found: bytes, head: bytes, tail: bytes) -> int:
        """Return how many rows there are if brackets and commas are those of so many rows in a list, else 0.

        Together with a strict parser and the count of values this fixes the shape: no list is too short or too long.
        """
        rows, rest = divmod(len(found) - len(head) - len(tail) + 1, len(self._row) + 1)
        if rest or rows < 1:
            return 0
        return rows if found == head + b",".join((self._row,) * rows) + tail else 0

    def _has(self, data: bytes, rows: int) -> bool:
        """Say whether a list has so many rows: nested ones, or all their values in one list."""
        found = data.translate(None, VALUES)
        if len(found) - 1 == rows * self._size and found == b"[%b]" % (b"," * (len(found) - 2)):
            return True
        return self._rows(found, b"[", b"]") == rows

    def _fit(self, values: Array) -> bool:
        """Say whether values, which are finite, are within the input's type."""
        greatest = values[values.argmax()]  # a third of the time of max()
        if self._tensor.dtype == "uint8":
            return bool(greatest <= 255)
        return bool(greatest <= GREATEST and values[values.argmin()] >= -GREATEST)


class Frame(NamedTuple):
    """What a V2 request says beside its numbers."""

    rows: int
    id: str | None
    outputs: dict[str, bool]


@lru_cache(256)
def _framed(schema: Schema, frame: bytes) -> Frame | None:
    """Read a V2 body whose numbers, which are its only input's, were cut out; None when it is not that or is wrong."""
    if frame.count(DATA) != 1 or b"\\" in frame:  # else it might be another list that was cut out
        return None
    (tensor,) = schema.tensors()
    try:
        value = v2.mapping(v2.load(frame), "the body", ("inputs",))
        entries = v2.entries(value["inputs"])
        v2.named(schema, [entry["name"] for entry in entries])
        (entry,) = entries
        if v2.binary_size(entry, 0, "inputs[0]") is not None or entry["data"] != []:
            return None
        return Frame(v2.rows(tensor, entry["datatype"], entry["shape"], "inputs[0]"), *v2.asked(schema, value))
    except RequestError:
        return None


@lru_cache
def skeleton(shape: tuple[int, ...]) -> bytes:
    """Return the brackets and commas of one row in JSON; shape (2, 3) is [[,,],[,,]]."""
    if not shape:
        return b""
    return b"[" + b",".join((skeleton(shape[1:]),) * shape[0]) + b"]"
