"""The V2 (open inference) protocol over REST: JSON or binary tensors to graph inputs, answers to outputs."""

from __future__ import annotations

import json
import math
import re
import struct
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from boatyard import tasks
from boatyard.data.schema import Array, Schema, Tensor
from boatyard.prediction import Answers
from boatyard.prediction.decoding import array, from_wires, show, wrong

DATATYPES = {"uint8": "UINT8", "float32": "FP32", "int64": "INT64", "str": "BYTES"}
STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
OPTIONS = orjson.OPT_SERIALIZE_NUMPY


@dataclass(frozen=True)
class Request:
    """A decoded request: graph inputs, and by name the outputs wanted, each as binary data or not."""

    inputs: dict[str, Array]
    id: str
    outputs: dict[str, bool]


def inputs(schema: Schema) -> list[dict[str, Any]]:
    """Return the inputs as V2 metadata says them; -1 is the free batch dimension."""
    return [
        {"name": tensor.name, "datatype": DATATYPES[tensor.dtype], "shape": [-1, *tensor.shape]}
        for tensor in schema.wires()
    ]


def outputs(schema: Schema) -> list[dict[str, Any]]:
    """Return the outputs as V2 metadata says them."""
    return [
        {"name": output.name, "datatype": DATATYPES[output.dtype], "shape": [-1, *output.shape]}
        for output in tasks.of(schema).outputs(schema)
    ]


@lru_cache
def datatypes(schema: Schema) -> Mapping[str, str]:
    """Return the outputs' datatypes by their names."""
    return {output["name"]: output["datatype"] for output in outputs(schema)}


def metadata(name: str, version: str, schema: Schema, engine: str) -> dict[str, Any]:
    """Return V2 model metadata, and what it has no place for: the labels in order and the fields of a row."""
    fields = [{key: value for key, value in vars(field).items() if value not in ((), None)} for field in schema.fields]
    return {
        "name": name,
        "versions": [version],
        "platform": f"{engine}_onnx",
        "inputs": inputs(schema),
        "outputs": outputs(schema),
        "task": schema.task,
        "labels": list(schema.labels),
        "fields": fields,
    }


def answers(schema: Schema, found: Answers) -> dict[str, tuple[str, Array]]:
    """Return the answers by output name, each with its datatype."""
    known = datatypes(schema)
    return dict(zip(known, zip(known.values(), found.outputs(), strict=True), strict=True))


# Request


def decode(schema: Schema, body: bytes, header: int | None) -> Request:
    """Read a request body; `header` is the length of its JSON when binary tensors follow. Raises RequestError."""
    if header is not None and header > len(body):
        raise wrong(f"a body of at least {header} bytes (inference-header-content-length)", f"{len(body)}", "the body")
    value = mapping(load(body if header is None else body[:header]), "the body", ("inputs",))
    binary = memoryview(body)[len(body) if header is None else header :]
    given, used = _tensors(schema, value["inputs"], binary)
    if used != len(binary):
        raise wrong(f"{used} bytes of binary data", f"{len(binary)}", "the body")
    read = from_wires(schema, given, lambda row, field: f"input {field}, row {row}")
    name, wanted = asked(schema, value)
    return Request(read, name or uuid.uuid4().hex, wanted)


def asked(schema: Schema, value: Mapping[str, Any]) -> tuple[str | None, dict[str, bool]]:
    """Return a request's id and, by name, the outputs that it asks for, each as binary data or not."""
    parameters = mapping(value.get("parameters") or {}, "parameters")
    everywhere = flag(parameters, "binary_data_output", False, "parameters")
    name = value.get("id")
    if name is not None and not isinstance(name, str):
        raise wrong("text", show(name), "id")
    return name, _wanted(schema, value.get("outputs"), everywhere)


def load(body: bytes) -> Any:
    """Read JSON whose objects have each key once; raises RequestError."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise wrong("JSON in UTF-8", f"{len(body)} bytes that are not ({str(error)[:100]})", "the body") from error
    keys, colons = _keys(value), body.count(b":")
    if colons > keys and STRINGS.sub(b"", body).count(b":") > keys:
        try:
            json.loads(body, object_pairs_hook=_once)
        except RecursionError as error:
            raise wrong("JSON that is less deep", f"{len(body)} bytes nested deeper", "the body") from error
    return value


def _keys(value: Any) -> int:
    """Return how many keys the objects in a value have; lists of numbers are not walked through."""
    count, rest = 0, [value]
    while rest:
        each = rest.pop()
        if isinstance(each, dict):
            count += len(each)
            rest += each.values()
        elif isinstance(each, list) and each and isinstance(each[0], dict | list):
            rest += each
    return count


def _once(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise wrong("each key once", f"{show(key)} again", "the body")
        seen.add(key)


def mapping(value: Any, at: str, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Return a JSON object that has certain keys; raises RequestError."""
    if not isinstance(value, dict):
        raise wrong("an object", show(value), at)
    for key in keys:
        if key not in value:
            raise wrong(f"key {key!r}", show(value), at)
    return value


def flag(parameters: Mapping[str, Any], name: str, default: bool, at: str) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise wrong("true or false", show(value), f"{at}.{name}")
    return value


def named(schema: Schema, names: Sequence[Any]) -> list[Tensor]:
    """Return the tensors that a request's input names stand for: all of them, each once; raises RequestError."""
    tensors = {tensor.name: tensor for tensor in schema.wires()}
    for index, name in enumerate(names):
        if not isinstance(name, str) or name not in tensors:
            raise wrong(f"an input of {_listed(tensors)}", show(name), f"inputs[{index}].name")
        if name in names[:index]:
            raise wrong("each input once", f"{show(name)} again", f"inputs[{index}].name")
    for name in tensors:
        if name not in names:
            raise wrong(f"inputs {_listed(tensors)}", f"no {name}", "inputs")
    return [tensors[name] for name in names]


def rows(tensor: Tensor, datatype: Any, shape: Any, at: str) -> int:
    """Return how many rows a tensor has; its datatype and shape must be as the metadata says."""
    if not isinstance(shape, list):
        raise wrong("a list of sides", show(shape), f"{at}.shape")
    if datatype != DATATYPES[tensor.dtype]:
        raise wrong(f"datatype {DATATYPES[tensor.dtype]}", show(datatype), f"{at}.datatype")
    wanted = f"shape [rows, {', '.join(map(str, tensor.shape))}]" if tensor.shape else "shape [rows]"
    if any(type(side) is not int for side in shape) or tuple(shape[1:]) != tensor.shape or not shape or shape[0] < 1:
        raise wrong(wanted, str([show(side) for side in shape[:8]]).replace("'", ""), f"{at}.shape")
    return int(shape[0])


def same_rows(given: Mapping[str, Array]) -> None:
    """Refuse inputs of different numbers of rows."""
    counts = {name: len(value) for name, value in given.items()}
    if len(set(counts.values())) > 1:
        raise wrong("as many rows in each input", ", ".join(f"{n} in {name}" for name, n in counts.items()), "inputs")


def from_bytes(tensor: Tensor, count: int, data: bytes | memoryview, at: str) -> Array:
    """Return a tensor of its raw little-endian bytes; texts have 4 bytes of length before them."""
    if tensor.dtype == "str":
        return np.array(_texts(bytes(data), count, at), object)
    dtype = np.dtype(tensor.dtype).newbyteorder("<")
    size = count * math.prod(tensor.shape) * dtype.itemsize
    if len(data) != size:
        raise wrong(f"{size} bytes for shape {[count, *tensor.shape]}", f"{len(data)}", at)
    return np.frombuffer(data, dtype).reshape(count, *tensor.shape)


def text(data: bytes, at: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise wrong("text in UTF-8", f"byte {data[error.start]:#04x}", at) from error


def _texts(data: bytes, count: int, at: str) -> list[str]:
    texts: list[str] = []
    place = 0
    while place < len(data) and len(texts) <= count:
        if place + 4 > len(data):
            raise wrong("4 bytes of length before each text", f"{len(data) - place} bytes", at)
        (size,) = struct.unpack_from("<I", data, place)
        place += 4
        if size > len(data) - place:
            raise wrong(f"a text of {size} bytes", f"{len(data) - place} bytes left", f"{at}[{len(texts)}]")
        texts.append(text(data[place : place + size], f"{at}[{len(texts)}]"))
        place += size
    if len(texts) != count:
        raise wrong(f"{count} texts", f"{'more' if len(texts) > count else len(texts)}", at)
    return texts


def entries(values: Any) -> list[dict[str, Any]]:
    """Return a request's inputs, each with a name, a shape and a datatype; raises RequestError."""
    if not isinstance(values, list):
        raise wrong("a list of inputs", show(values), "inputs")
    return [mapping(v, f"inputs[{i}]", ("name", "shape", "datatype")) for i, v in enumerate(values)]


def _tensors(schema: Schema, values: Any, binary: memoryview) -> tuple[dict[str, Array], int]:
    """Return the ONNX model's inputs and how many bytes of the binary part they took."""
    read = entries(values)
    given, used = {}, 0
    for index, tensor in enumerate(named(schema, [entry["name"] for entry in read])):
        entry, at = read[index], f"inputs[{index}]"
        count = rows(tensor, entry["datatype"], entry["shape"], at)
        size = binary_size(entry, len(binary) - used, at)
        if size is None:
            given[tensor.name] = array(tensor, count, entry["data"], f"{at}.data")
        else:
            given[tensor.name] = from_bytes(tensor, count, binary[used : used + size], f"{at}, binary data")
            used += size
    same_rows(given)
    return given, used


def binary_size(entry: Mapping[str, Any], left: int, at: str) -> int | None:
    """Return how many binary bytes an input has, None when its data is in the JSON; raises RequestError."""
    parameters = mapping(entry.get("parameters") or {}, f"{at}.parameters")
    size = parameters.get("binary_data_size")
    if (size is None) == ("data" not in entry):
        raise wrong("either data or parameters.binary_data_size", "neither" if size is None else "both", at)
    if size is None:
        return None
    if type(size) is not int or not 0 <= size <= left:
        raise wrong(f"a size of at most the {left} bytes left", show(size), f"{at}.parameters.binary_data_size")
    return int(size)


def _wanted(schema: Schema, values: Any, everywhere: bool) -> dict[str, bool]:
    """Return which outputs a request asks for, in its order, and whether each comes as binary data."""
    known = datatypes(schema)
    if values is None or values == []:
        return dict.fromkeys(known, everywhere)
    if not isinstance(values, list):
        raise wrong("a list of outputs", show(values), "outputs")
    wanted: dict[str, bool] = {}
    for index, value in enumerate(values):
        at = f"outputs[{index}]"
        name = mapping(value, at, ("name",))["name"]
        parameters = mapping(value.get("parameters") or {}, f"{at}.parameters")
        _known(known, name, wanted, at)
        wanted[name] = flag(parameters, "binary_data", everywhere, f"{at}.parameters")
    return wanted


def _known(known: Mapping[str, str], name: Any, before: Mapping[str, bool], at: str) -> None:
    if not isinstance(name, str) or name not in known:
        raise wrong(f"an output of {', '.join(known)}", show(name), f"{at}.name")
    if name in before:
        raise wrong("each output once", f"{show(name)} again", f"{at}.name")


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(list(names)[:20]) + (f" … ({len(names)})" if len(names) > 20 else "")


# Response


def encode(schema: Schema, name: str, version: str, request: Request, found: Answers) -> tuple[bytes, int | None]:
    """Return a response body, and the length of its JSON when binary tensors follow."""
    given = answers(schema, found)
    tensors, tails = [], []
    for output, binary in request.outputs.items():
        datatype, values = given[output]
        tensor: dict[str, Any] = {"name": output, "datatype": datatype, "shape": list(values.shape)}
        if binary:
            tails.append(to_bytes(values))
            tensor["parameters"] = {"binary_data_size": len(tails[-1])}
        else:
            tensor["data"] = values.ravel().tolist() if values.dtype == object else values.ravel()
        tensors.append(tensor)
    value = {"model_name": name, "model_version": version, "id": request.id, "outputs": tensors}
    head = orjson.dumps(value, option=OPTIONS)
    return (b"".join((head, *tails)), len(head)) if tails else (head, None)


def to_bytes(values: Array) -> bytes:
    """Return a tensor's raw little-endian bytes; texts have 4 bytes of length before them."""
    if values.dtype != object:
        return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    texts = [text.encode() for text in values.ravel().tolist()]
    return b"".join(struct.pack("<I", len(each)) + each for each in texts)
