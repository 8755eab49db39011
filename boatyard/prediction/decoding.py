"""Requests into the graph's inputs: V1 instances to arrays and back, every value held to the schema.

An image is nested lists of its pixels, or {"image": nested}, or {"image": {"b64": …}} with a PNG, a JPEG or the raw
bytes. A table row is {"column": value, …} or a list in column order; null is a missing value. `check` holds arrays,
wherever they came from, to the ranges and missing values that the schema allows.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import difflib
import io
import math
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from types import NoneType
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from boatyard.data.schema import Array, Field, Schema, Tensor
from boatyard.errors import RequestError

Where = Callable[[int, str], str]  # row, field → the place as the client wrote it
GREATEST = float(np.finfo(np.float32).max)
MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
BROKEN_IMAGE = (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def decode(schema: Schema, instances: Any) -> dict[str, Array]:
    """Return the graph's inputs, [N, *shape] by name, of V1 instances; raises RequestError with the place."""
    if not isinstance(instances, list) or not instances:
        raise wrong("a list of one or more instances", show(instances), "instances")
    if schema.is_image:
        return _decode_images(schema, instances)
    return _decode_rows(schema, instances)


def encode(schema: Schema, inputs: Mapping[str, Array]) -> list[Any]:
    """Return V1 instances of the graph's inputs; `decode` takes them back bit for bit."""
    if schema.is_image:
        name = schema.fields[0].name
        return [{name: {"b64": base64.b64encode(_raw(image)).decode()}} for image in inputs[name]]
    columns = {}
    for tensor in schema.tensors():
        for index, name in enumerate(tensor.fields):
            array = inputs[tensor.name]
            columns[name] = (array[:, index] if tensor.shape else array).tolist()
    rows = zip(*columns.values(), strict=True)
    return [{name: _plain(value) for name, value in zip(columns, row, strict=True)} for row in rows]


def check(schema: Schema, inputs: Mapping[str, Array], where: Where = lambda row, field: f"{field}[{row}]") -> None:
    """Hold arrays of the right types and shapes to the schema's ranges and missing values; raises RequestError."""
    for tensor in schema.tensors():
        array = inputs[tensor.name]
        limits = bounds(schema, tensor)
        if limits and limits.hold(array):
            continue
        for index, name in enumerate(tensor.fields):
            column = array if schema.is_image or not tensor.shape else array[:, index]
            _check_field(schema.field(name), column, lambda row, name=name: where(row, name))  # type: ignore[misc]


@dataclass(frozen=True)
class Bounds:
    """What numbers a tensor holds: `low` and `high` float32 [F] or None; where a missing value may be, bool [F]."""

    low: Array | None
    high: Array | None
    nullable: Array | None

    def hold(self, array: Array) -> bool:
        """Say whether all rows, [N, *shape], are within."""
        if array.dtype == np.uint8 and self.low is None and self.high is None:
            return True
        finite = np.isfinite(array)
        if not finite.all() and (self.nullable is None or not (finite | (np.isnan(array) & self.nullable)).all()):
            return False
        low = self.low is None or not (array < self.low).any()
        return low and (self.high is None or not (array > self.high).any())


@lru_cache(maxsize=64)
def bounds(schema: Schema, tensor: Tensor) -> Bounds | None:
    """Return the bounds of a tensor of numbers, None of one of texts."""
    if tensor.dtype == "str":
        return None
    fields = [schema.field(name) for name in tensor.fields]
    low = [-math.inf if field.minimum is None else field.minimum for field in fields]
    high = [math.inf if field.maximum is None else field.maximum for field in fields]
    missing = [field.kind == "number" and field.nullable for field in fields]
    return Bounds(
        np.array(low, np.float32) if any(map(math.isfinite, low)) else None,
        np.array(high, np.float32) if any(map(math.isfinite, high)) else None,
        np.array(missing) if any(missing) else None,
    )


def wrong(wanted: str, found: str, at: str) -> RequestError:
    """Make the one shape that every refused request is answered in."""
    return RequestError(f"expected {wanted}, found {found}, at {at}")


def show(value: Any) -> str:
    """Say a value that a client sent: scalars as they are, cut; containers by kind and size."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        keys = ", ".join(show(key) for key in list(value)[:5])
        return f"an object with {keys}{' …' if len(value) > 5 else ''}" if value else "an empty object"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _check_field(field: Field, column: Array, where: Callable[[int], str]) -> None:
    if field.kind == "category":
        if not field.nullable and (empty := column == "").any():
            raise wrong("a category", "an empty string", where(int(empty.argmax())))
        return
    if column.dtype == np.uint8 and field.minimum is None and field.maximum is None:
        return
    rows = column.reshape(len(column), -1)
    missing = np.isnan(rows)
    bad = np.isinf(rows) if field.kind == "number" and field.nullable else ~np.isfinite(rows)
    if bad.any():
        _refuse(f"a finite number{' or null' if field.nullable else ''}", rows, bad, where)
    low, high = field.minimum, field.maximum
    outside = (rows < (-math.inf if low is None else low)) | (rows > (math.inf if high is None else high))
    if (outside & ~missing).any():
        _refuse(f"a number from {_bound(low)} to {_bound(high)}", rows, outside, where)


def _refuse(wanted: str, rows: Array, bad: Array, where: Callable[[int], str]) -> None:
    row, column = (int(i) for i in np.argwhere(bad)[0])
    value = float(rows[row, column])
    raise wrong(wanted, "a missing value" if math.isnan(value) else f"{value:g}", where(row))


def _bound(value: float | None) -> str:
    return "any" if value is None else f"{value:g}"


def _plain(value: Any) -> Any:
    """A missing number is null in JSON, and so is a missing category."""
    return None if value == "" or (isinstance(value, float) and math.isnan(value)) else value


def array(tensor: Tensor, rows: int, value: Any, at: str) -> Array:
    """Return one graph input, [rows, *shape], of a flat or nested list in row-major order; null is a missing number."""
    nested = isinstance(value, list) and bool(value) and isinstance(value[0], list)
    shape = (rows, *tensor.shape) if nested else (rows * math.prod(tensor.shape),)
    if (plain := _plain_lists(value, shape, tensor.dtype)) is not None:
        return plain.reshape(rows, *tensor.shape)
    out: list[Any] = []
    _flatten(value, shape, LEAVES[tensor.dtype], out, at)
    return np.array(out, object if tensor.dtype == "str" else tensor.dtype).reshape(rows, *tensor.shape)


def _plain_lists(value: Any, shape: tuple[int, ...], dtype: str) -> Array | None:
    """Return nested lists of numbers that are all as wanted, without a look at each; None leaves it to who looks."""
    if not isinstance(value, list) or len(value) != shape[0]:
        return None
    for side in shape[1:]:
        if set(map(type, value)) != {list} or set(map(len, value)) != {side}:
            return None
        value = list(chain.from_iterable(value))
    return _plain_numbers(value, dtype)


def _plain_numbers(value: list[Any], dtype: str) -> Array | None:
    types = set(map(type, value))
    if dtype == "uint8" and types == {int}:
        with contextlib.suppress(ValueError):
            return np.frombuffer(bytes(value), np.uint8)
    if dtype == "float32" and types <= {int, float}:
        with contextlib.suppress(OverflowError):
            wide = np.array(value, np.float64)
            if (np.abs(wide) <= GREATEST).all():
                return wide.astype(np.float32)
    return None


# Images


def _decode_images(schema: Schema, instances: list[Any]) -> dict[str, Array]:
    field = schema.fields[0]
    images = np.empty((len(instances), *field.shape), field.dtype)
    for row, instance in enumerate(instances):
        images[row] = _image(field, instance, f"instances[{row}]")
    inputs = {field.name: images}
    check(schema, inputs, lambda row, name: f"instances[{row}]")
    return inputs


def _image(field: Field, value: Any, at: str) -> Array:
    if isinstance(value, dict) and set(value) == {field.name}:
        value, at = value[field.name], f"{at}.{field.name}"
    if isinstance(value, dict) and set(value) == {"b64"}:
        return _picture(field, value["b64"], f"{at}.b64")
    if not isinstance(value, list):
        raise wrong(f"an image, nested lists {list(field.shape)}, or {{{field.name!r}: {{'b64': …}}}}", show(value), at)
    if (plain := _plain_lists(value, field.shape, field.dtype)) is not None:
        return plain.reshape(field.shape)
    flat: list[Any] = []
    _flatten(value, field.shape, LEAVES[field.dtype], flat, at)
    return np.array(flat, field.dtype).reshape(field.shape)


def _flatten(value: Any, shape: tuple[int, ...], leaf: Leaf, out: list[Any], at: str) -> None:
    """Append the values of nested lists, row by row; each list must have the length that its depth wants."""
    if not isinstance(value, list) or len(value) != shape[0]:
        raise wrong(f"a list of {shape[0]}", show(value), at)
    if len(shape) > 1:
        for index, inner in enumerate(value):
            _flatten(inner, shape[1:], leaf, out, f"{at}[{index}]")
        return
    leaf(value, at)
    out.extend(value)


def _pixels(value: list[Any], at: str) -> None:
    if set(map(type, value)) != {int} or min(value) < 0 or max(value) > 255:
        for index, number in enumerate(value):
            _number(number, True, f"{at}[{index}]")


def _numbers(value: list[Any], at: str) -> None:
    if set(map(type, value)) != {float} or not all(-GREATEST <= number <= GREATEST for number in value):
        for index, number in enumerate(value):
            if number is not None:
                _number(number, False, f"{at}[{index}]")


def _texts(value: list[Any], at: str) -> None:
    for index, text in enumerate(value):
        if not isinstance(text, str):
            raise wrong("text", show(text), f"{at}[{index}]")


Leaf = Callable[[list[Any], str], None]
LEAVES: dict[str, Leaf] = {"uint8": _pixels, "float32": _numbers, "str": _texts}


def _number(value: Any, pixel: bool, at: str) -> float:
    wanted = "a whole number from 0 to 255" if pixel else "a number"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(wanted, show(value), at)
    if pixel and not (0 <= value <= 255 and value == int(value)):
        raise wrong(wanted, show(value), at)
    if not -GREATEST <= value <= GREATEST:
        raise wrong("a number within float32", show(value), at)
    return float(value)


def _picture(field: Field, text: Any, at: str) -> Array:
    if not isinstance(text, str):
        raise wrong("base64 text", show(text), at)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise wrong("base64 text", f"{show(text)} ({error})", at) from error
    size = math.prod(field.shape) * np.dtype(field.dtype).itemsize
    if data.startswith(MAGIC):
        return picture(field, data, at)
    if len(data) != size:
        raise wrong(f"a PNG, a JPEG or {size} raw bytes", f"{len(data)} bytes of something else", at)
    return np.frombuffer(data, np.dtype(field.dtype).newbyteorder("<")).reshape(field.shape)


def _raw(image: Array) -> bytes:
    return np.ascontiguousarray(image, image.dtype.newbyteorder("<")).tobytes()


def picture(field: Field, data: bytes, at: str) -> Array:
    """Decode a PNG or JPEG whose size in pixels is the schema's; the size is looked at before a pixel is decoded."""
    height, width = field.shape[:2]
    channels = field.shape[2] if len(field.shape) > 2 else 1
    mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(channels)
    if mode is None or field.dtype != "uint8":
        raise wrong(f"raw {field.dtype} bytes {list(field.shape)}", "a PNG or JPEG", at)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.size != (width, height):
                raise wrong(f"an image {height} high and {width} wide", f"{image.height} by {image.width}", at)
            if image.mode.startswith(("I", "F")):
                raise wrong("8 bits a pixel", f"mode {image.mode}", at)
            return np.asarray(image.convert(mode), np.uint8).reshape(field.shape)
    except (*BROKEN_IMAGE, Image.DecompressionBombError) as error:
        raise wrong("a PNG or JPEG", "one that cannot be decoded", at) from error


# Tables


def _decode_rows(schema: Schema, instances: list[Any]) -> dict[str, Array]:
    if plain := _plain_rows(schema, instances):
        return plain
    rows = [_row(schema, instance, f"instances[{index}]") for index, instance in enumerate(instances)]
    inputs = {}
    for tensor in schema.tensors():
        first = [schema.fields.index(schema.field(name)) for name in tensor.fields]
        values = [[row[index] for index in first] for row in rows]
        dtype = np.dtype(object) if tensor.dtype == "str" else np.dtype(np.float32)
        inputs[tensor.name] = np.array(values, dtype).reshape(len(rows), *tensor.shape)
    check(schema, inputs, lambda row, name: f"instances[{row}].{name}")
    return inputs


def _plain_rows(schema: Schema, instances: list[Any]) -> dict[str, Array] | None:
    """Return rows that are all as wanted, without a look at each value; None leaves them to who looks."""
    names = [field.name for field in schema.fields]
    kinds = set(map(type, instances))
    if kinds not in ({dict}, {list}) or set(map(len, instances)) != {len(names)}:
        return None
    try:
        rows = instances if kinds == {list} else [[*map(row.__getitem__, names)] for row in instances]
    except KeyError:
        return None
    inputs = {}
    for index, tensor in enumerate(schema.tensors()):
        if tensor.dtype == "str":
            found = _plain_texts([row[index] for row in rows], schema.fields[index])
        else:
            found = _plain_columns(rows if tensor.shape else [row[index] for row in rows], schema, tensor)
        if found is None:
            return None
        inputs[tensor.name] = found
    return inputs


def _plain_columns(values: list[Any], schema: Schema, tensor: Tensor) -> Array | None:
    types = set(map(type, chain.from_iterable(values) if tensor.shape else values))
    if not types <= {int, float, NoneType}:
        return None
    try:
        wide = np.array(values, np.float64)  # None is NaN
    except OverflowError:
        return None
    if (np.abs(wide) > GREATEST).any():
        return None
    found, limits = wide.astype(np.float32), bounds(schema, tensor)
    return found if limits and limits.hold(found) else None


def _plain_texts(values: list[Any], field: Field) -> Array | None:
    types = set(map(type, values))
    if field.nullable and NoneType in types:
        values, types = ["" if value is None else value for value in values], types - {NoneType}
    return np.array(values, object) if types <= {str} and (field.nullable or "" not in values) else None


def _row(schema: Schema, instance: Any, at: str) -> list[Any]:
    """Return a row's values in the order of the schema's fields, each of the field's type."""
    if isinstance(instance, dict):
        values = _by_name(schema, instance, at)
    elif isinstance(instance, list) and len(instance) == len(schema.fields):
        values = instance
    else:
        raise wrong(f"an object of columns or a list of {len(schema.fields)}", show(instance), at)
    pairs = zip(schema.fields, values, strict=True)
    return [_value(field, value, f"{at}.{field.name}") for field, value in pairs]


def _by_name(schema: Schema, instance: dict[Any, Any], at: str) -> Sequence[Any]:
    names = [field.name for field in schema.fields]
    for name in instance:
        if name not in names:
            near = difflib.get_close_matches(str(name)[:100], names, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise wrong(f"columns {_listed(names)}", f"{show(name)}{hint}", at)
    for field in schema.fields:
        if field.name not in instance and not field.nullable:
            raise wrong(f"column {field.name}", f"only {_listed(list(instance)) or 'none'}", at)
    return [instance.get(name) for name in names]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:20]) + (f" … ({len(names)})" if len(names) > 20 else "")


def _value(field: Field, value: Any, at: str) -> Any:
    if value is None:
        if not field.nullable:
            raise wrong(f"a {field.kind}", "null", at)
        return "" if field.kind == "category" else math.nan
    if field.kind == "number":
        return _number(value, False, at)
    if not isinstance(value, str):
        raise wrong("a category (text)", show(value), at)
    return value
