"""Bodies in the form that almost every client sends, parsed by SIMD instructions straight into the graph's one input.

What this module does not know, or finds wrong, is None: then `decoding` answers or says what is wrong, in one place.
A property test holds the two equal.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import simdjson

from boatyard.prediction.decoding import GREATEST, bounds
from boatyard.schema import Array, Schema

VALUES = b"0123456789+-.eE \t\r\n"  # what numbers and white space are made of
HEAD, TAIL = b'{"instances":['.translate(None, VALUES), b"]}"
BUFFERS = {"uint8": ("u", np.uint64), "float32": ("d", np.float64)}
UNREADABLE = (ValueError, TypeError, KeyError, RuntimeError)  # simdjson's own, all of them; bad UTF-8 is a ValueError


class Direct:
    """A decoder of V1 bodies `{"instances": [nested numbers, …]}` for one schema; from one thread at a time."""

    def __init__(self, schema: Schema) -> None:
        tensors = schema.tensors()
        self.known = len(tensors) == 1 and tensors[0].dtype in BUFFERS
        if not self.known:
            return
        (self._tensor,) = tensors
        self._size = math.prod(self._tensor.shape)
        self._row = skeleton(self._tensor.shape)
        self._one = HEAD + self._row + TAIL
        self._bounds = bounds(schema, self._tensor)
        self._parser = simdjson.Parser()

    def decode(self, body: bytes) -> dict[str, Array] | None:
        """Return the graph's input, [N, *shape] by name, or None."""
        if not self.known or not (rows := self._rows(body)):
            return None
        kind, dtype = BUFFERS[self._tensor.dtype]
        try:
            document: Any = self._parser.parse(body)
            values = np.frombuffer(document["instances"].as_buffer(of_type=kind), dtype)
            del document  # a parser reads the next one when nothing holds on to the last
        except UNREADABLE:
            return None
        if values.size != rows * self._size or not self._fit(values):
            return None
        array = values.astype(self._tensor.dtype).reshape(rows, *self._tensor.shape)
        if self._bounds and not self._bounds.hold(array):
            return None
        return {self._tensor.name: array}

    def _rows(self, body: bytes) -> int:
        """Return how many rows a body has if its brackets and commas are those of so many rows, else 0.

        Together with a strict parser and the count of values this fixes the shape: no list is too short or too long.
        """
        found = body.translate(None, VALUES)
        if found == self._one:
            return 1
        rows, rest = divmod(len(found) - len(HEAD) - len(TAIL) + 1, len(self._row) + 1)
        if rest or rows < 1:
            return 0
        return rows if found == HEAD + b",".join((self._row,) * rows) + TAIL else 0

    def _fit(self, values: Array) -> bool:
        """Say whether values, which are finite, are within the input's type."""
        greatest = values[values.argmax()]  # a third of the time of max()
        if self._tensor.dtype == "uint8":
            return bool(greatest <= 255)
        return bool(greatest <= GREATEST and values[values.argmin()] >= -GREATEST)


@lru_cache
def skeleton(shape: tuple[int, ...]) -> bytes:
    """Return the brackets and commas of one row in JSON; shape (2, 3) is [[,,],[,,]]."""
    if not shape:
        return b""
    return b"[" + b",".join((skeleton(shape[1:]),) * shape[0]) + b"]"
