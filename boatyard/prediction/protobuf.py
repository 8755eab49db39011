"""Look for data that an ONNX graph keeps in other files, by walking its protobuf; serving needs no onnx."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from boatyard.errors import ArtifactError

# onnx.proto: the message that a field of a message holds; fields that hold no tensor are skipped
TREE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
EXTERNAL_DATA, DATA_LOCATION = 13, 14
METADATA = 14  # of a model
EXTERNAL_KEYS = {"location", "offset", "length", "checksum"}
OUTER = 2  # how deep a weight of the model lies: model, graph, tensor
DEPTH = 100  # messages inside messages, as protobuf itself allows


@dataclass(frozen=True)
class ExternalTensor:
    """A tensor that an ONNX model keeps in another file: which, and where in it. `outer`: a weight of the model itself,
    not a constant inside a node or of a graph inside it.
    """

    location: str
    offset: int
    length: int
    outer: bool


def keeps_data_elsewhere(model: bytes) -> bool:
    """Say whether a tensor of a graph, or of a graph inside it, is stored in another file.

    Raises ArtifactError when the bytes are not protobuf.
    """
    return next(_external(memoryview(model)), None) is not None


def external_tensors(model: bytes) -> tuple[ExternalTensor, ...]:
    """Return every tensor that is stored in another file; raises ArtifactError for one that does not say where."""
    view = memoryview(model)
    return tuple(_read_tensor(view, start, end, outer) for start, end, outer in _external(view))


def metadata(model: bytes) -> dict[str, str]:
    """Return the names and values that an ONNX model carries beside its graph; raises ArtifactError."""
    view = memoryview(model)
    entries = [(at, end) for field, at, end in _fields(view, 0, len(view)) if field == METADATA and end >= 0]
    return dict(_entry(view, at, end) for at, end in entries)


def _external(view: memoryview) -> Iterator[tuple[int, int, bool]]:
    """Give the bounds of each tensor that is stored in another file, and whether it is the outer graph's own."""
    stack = [("model", 0, len(view), 0)]
    while stack:
        message, start, end, depth = stack.pop()
        if depth > DEPTH:
            raise ArtifactError(expected="an ONNX graph", found=f"one nested more than {DEPTH} deep")
        named = False
        for field, begin, stop in _fields(view, start, end):
            named = named or (
                message == "tensor" and (field == EXTERNAL_DATA or (field == DATA_LOCATION and begin > 0))
            )
            if (inner := TREE.get(message, {}).get(field)) is not None and stop >= 0:
                stack.append((inner, begin, stop, depth + 1))
        if named:
            yield start, end, depth == OUTER


def _read_tensor(view: memoryview, start: int, end: int, outer: bool) -> ExternalTensor:
    bounds = [(at, stop) for field, at, stop in _fields(view, start, end) if field == EXTERNAL_DATA and stop >= 0]
    entries = [_entry(view, at, stop) for at, stop in bounds]
    values = dict(entries)
    if len(values) != len(entries) or not {"location", "length"} <= values.keys() <= EXTERNAL_KEYS:
        raise _unlike(f"a tensor that names {', '.join(key for key, _ in entries)[:60] or 'nothing'}")
    offset, length = values.get("offset", "0"), values["length"]
    if not all(re.fullmatch(r"[0-9]{1,18}", number) for number in (offset, length)):
        raise _unlike(f"a tensor at {offset[:20]!r} of {length[:20]!r} bytes")
    return ExternalTensor(values["location"], int(offset), int(length), outer)


def _entry(view: memoryview, start: int, end: int) -> tuple[str, str]:
    """Read a StringStringEntryProto: a key and a value."""
    texts = {1: "", 2: ""}
    for field, at, stop in _fields(view, start, end):
        if field in texts and stop >= 0:
            try:
                texts[field] = bytes(view[at:stop]).decode()
            except UnicodeDecodeError as error:
                raise _unlike("a name that is not text") from error
    return texts[1], texts[2]


def _unlike(found: str) -> ArtifactError:
    return ArtifactError(expected="tensors in other files to give location, offset and length", found=f"{found}")


def _fields(view: memoryview, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Give each field of a message: its number and the bounds of its bytes, or (number, value, -1) of an integer."""
    while at < end:
        key, at = _varint(view, at, end)
        field, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(view, at, end)
            yield field, value, -1
            continue
        if wire == 2:
            size, at = _varint(view, at, end)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ArtifactError(expected="an ONNX graph", found="bytes that are not protobuf")
        if at + size > end:
            raise ArtifactError(expected="an ONNX graph", found="one that was cut")
        yield field, at, at + size
        at += size


def _varint(view: memoryview, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = view[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ArtifactError(expected="an ONNX graph", found="one that was cut")
