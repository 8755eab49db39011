"""Look for data that an ONNX graph keeps in other files, by walking its protobuf; serving needs no onnx."""

from __future__ import annotations

from collections.abc import Iterator

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
DEPTH = 100  # messages inside messages, as protobuf itself allows


def keeps_data_elsewhere(model: bytes) -> bool:
    """Say whether a tensor of a graph, or of a graph inside it, is stored in another file.

    Raises ArtifactError when the bytes are not protobuf.
    """
    view = memoryview(model)
    stack = [("model", 0, len(model), 0)]
    while stack:
        message, start, end, depth = stack.pop()
        if depth > DEPTH:
            raise ArtifactError(f"expected an ONNX graph, found one nested more than {DEPTH} deep")
        for field, begin, stop in _fields(view, start, end):
            if message == "tensor" and (field == EXTERNAL_DATA or (field == DATA_LOCATION and begin)):
                return True
            if (inner := TREE.get(message, {}).get(field)) is not None and stop >= 0:
                stack.append((inner, begin, stop, depth + 1))
    return False


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
            raise ArtifactError("expected an ONNX graph, found bytes that are not protobuf")
        if at + size > end:
            raise ArtifactError("expected an ONNX graph, found one that was cut")
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
    raise ArtifactError("expected an ONNX graph, found one that was cut")
