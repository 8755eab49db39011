"""Requests into the ONNX model's inputs: V1 instances to arrays and back, every value held to the schema.

A row is {"column": value, …} or a list in column order; null is a missing value. Where a row is one field alone, as an
image is, the value stands for itself or under its name. What a value may be, the field's kind says. `check` holds
arrays, wherever they came from, to the ranges and missing values that the schema allows.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from boatyard.data import kinds
from boatyard.data.schema import Array, Field, Schema, Tensor
from boatyard.data.values import GREATEST, array, show, wrong

__all__ = ["GREATEST", "Bounds", "array", "bounds", "check", "decode", "encode", "from_wires", "show", "wrong"]
Where = Callable[[int, str], str]  # row, field → the place as the client wrote it


def decode(schema: Schema, instances: Any) -> dict[str, Array]:
    """Return the ONNX model's inputs, [N, *shape] by name, of V1 instances; raises RequestError with the place."""
    if not isinstance(instances, list) or not instances:
        raise wrong("a list of one or more instances", show(instances), "instances")
    if schema.alone:
        return _decode_alone(schema, schema.alone, instances)
    return _decode_rows(schema, instances)


def encode(schema: Schema, inputs: Mapping[str, Array]) -> list[Any]:
    """Return V1 instances of the ONNX model's inputs; `decode` takes them back bit for bit."""
    columns = {}
    for tensor in schema.tensors():
        for name in tensor.fields:
            field = schema.field(name)
            columns[name] = kinds.of(field).write(field, tensor.column(inputs[tensor.name], name))
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def check(schema: Schema, inputs: Mapping[str, Array], where: Where = lambda row, field: f"{field}[{row}]") -> None:
    """Hold arrays of the right types and shapes to the schema's ranges and missing values; raises RequestError."""
    for tensor in schema.tensors():
        values = inputs[tensor.name]
        limits = bounds(schema, tensor)
        if limits and limits.hold(values):
            continue
        for name in tensor.fields:
            field = schema.field(name)
            kinds.of(field).check(field, tensor.column(values, name), _at(where, name))


def from_wires(schema: Schema, given: Mapping[str, Array], where: Where) -> dict[str, Array]:
    """Return the ONNX model's inputs of what V2 and gRPC carried, `schema.wires()`; checked. Raises RequestError."""
    inputs = dict(given)
    if schema.wires() != schema.tensors():
        for field, kind in zip(schema.fields, schema.kinds, strict=True):
            inputs[field.name] = kind.from_wire(field, given[field.name], _at(where, field.name))
    check(schema, inputs, where)
    return inputs


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
    """Return the bounds of a tensor of numbers, None of one that only its kind can check."""
    fields = [schema.field(name) for name in tensor.fields]
    limits = [found for field in fields if (found := kinds.of(field).limits(field))]
    if len(limits) < len(fields):
        return None
    low = [-math.inf if one.low is None else one.low for one in limits]
    high = [math.inf if one.high is None else one.high for one in limits]
    missing = [one.nullable for one in limits]
    return Bounds(
        np.array(low, np.float32) if any(map(math.isfinite, low)) else None,
        np.array(high, np.float32) if any(map(math.isfinite, high)) else None,
        np.array(missing) if any(missing) else None,
    )


def _at(where: Where, name: str) -> Callable[[int], str]:
    return lambda row: where(row, name)


def _decode_alone(schema: Schema, field: Field, instances: list[Any]) -> dict[str, Array]:
    """Read rows of one field: each instance is its value, or an object of its name and its value."""
    kind = kinds.of(field)
    values = np.empty((len(instances), *field.shape), object if field.dtype == "str" else field.dtype)
    for row, instance in enumerate(instances):
        at = f"instances[{row}]"
        if isinstance(instance, dict) and set(instance) == {field.name}:
            instance, at = instance[field.name], f"{at}.{field.name}"
        values[row] = kind.read(field, instance, at)
    inputs = {field.name: values}
    check(schema, inputs, lambda row, name: f"instances[{row}]")
    return inputs


def _decode_rows(schema: Schema, instances: list[Any]) -> dict[str, Array]:
    if plain := _plain_rows(schema, instances):
        return plain
    rows = [_row(schema, instance, f"instances[{index}]") for index, instance in enumerate(instances)]
    inputs = {}
    for tensor in schema.tensors():
        first = [schema.fields.index(schema.field(name)) for name in tensor.fields]
        values = [[row[index] for index in first] for row in rows]
        dtype = np.dtype(object) if tensor.dtype == "str" else np.dtype(tensor.dtype)
        inputs[tensor.name] = np.array(values, dtype).reshape(len(rows), *tensor.shape)
    check(schema, inputs, lambda row, name: f"instances[{row}].{name}")
    return inputs


def _plain_rows(schema: Schema, instances: list[Any]) -> dict[str, Array] | None:
    """Return rows that are all as expected, without a look at each value; None leaves them to who looks."""
    names = [field.name for field in schema.fields]
    types = set(map(type, instances))
    if types not in ({dict}, {list}) or set(map(len, instances)) != {len(names)}:
        return None
    try:
        rows = instances if types == {list} else [[*map(row.__getitem__, names)] for row in instances]
    except KeyError:
        return None
    inputs = {}
    for index, tensor in enumerate(schema.tensors()):
        fields = schema.fields if tensor.stacked else (schema.fields[index],)
        values = rows if tensor.stacked else [row[index] for row in rows]
        column = schema.kinds[index].read_all(tensor, fields, values)
        limits = bounds(schema, tensor)
        if column is None or (limits and not limits.hold(column)):
            return None
        inputs[tensor.name] = column
    return inputs


def _row(schema: Schema, instance: Any, at: str) -> list[Any]:
    """Return a row's values in the order of the schema's fields, each of the field's type."""
    if isinstance(instance, dict):
        values = _by_name(schema, instance, at)
    elif isinstance(instance, list) and len(instance) == len(schema.fields):
        values = instance
    else:
        raise wrong(f"an object of columns or a list of {len(schema.fields)}", show(instance), at)
    pairs = zip(schema.fields, schema.kinds, values, strict=True)
    return [kind.read_or_missing(field, value, f"{at}.{field.name}") for field, kind, value in pairs]


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
