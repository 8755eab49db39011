"""Raw values as a request has them: numbers, texts and nested lists, each held to what is expected; else refused."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from boatyard.errors import RequestError

if TYPE_CHECKING:
    from boatyard.data.schema import Array, Tensor

GREATEST = float(np.finfo(np.float32).max)


def wrong(expected: str, found: str, at: str) -> RequestError:
    """Make the one shape that every refused request is answered in."""
    return RequestError(expected=f"{expected}", found=f"{found}, at {at}")


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


def number(value: Any, at: str, *, pixel: bool = False) -> float:
    """Return a JSON number that float32 holds, or a whole one from 0 to 255; raises RequestError."""
    expected = "a whole number from 0 to 255" if pixel else "a number"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(expected, show(value), at)
    if pixel and not (0 <= value <= 255 and value == int(value)):
        raise wrong(expected, show(value), at)
    if not -GREATEST <= value <= GREATEST:
        raise wrong("a number within float32", show(value), at)
    return float(value)


def nested(value: Any, shape: tuple[int, ...], dtype: str, at: str) -> Array:
    """Return nested lists of exactly this shape as an array; null is a missing number. Raises RequestError."""
    if (plain := plain_lists(value, shape, dtype)) is not None:
        return plain.reshape(shape)
    flat: list[Any] = []
    _flatten(value, shape, LEAVES[dtype], flat, at)
    return np.array(flat, object if dtype == "str" else dtype).reshape(shape)


def array(tensor: Tensor, rows: int, value: Any, at: str) -> Array:
    """Return one tensor, [rows, *shape], of a flat or nested list in row-major order; null is a missing number."""
    is_nested = isinstance(value, list) and bool(value) and isinstance(value[0], list)
    shape = (rows, *tensor.shape) if is_nested else (rows * math.prod(tensor.shape),)
    return nested(value, shape, tensor.dtype, at).reshape(rows, *tensor.shape)


def plain_lists(value: Any, shape: tuple[int, ...], dtype: str) -> Array | None:
    """Return nested lists of numbers that are all as expected, without a look at each; None leaves it to who looks."""
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


Leaf = Callable[[list[Any], str], None]


def _flatten(value: Any, shape: tuple[int, ...], leaf: Leaf, out: list[Any], at: str) -> None:
    """Append the values of nested lists, row by row; each list must have the length that its depth expects."""
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
        for index, item in enumerate(value):
            number(item, f"{at}[{index}]", pixel=True)


def _numbers(value: list[Any], at: str) -> None:
    if set(map(type, value)) != {float} or not all(-GREATEST <= item <= GREATEST for item in value):
        for index, item in enumerate(value):
            if item is not None:
                number(item, f"{at}[{index}]")


def _texts(value: list[Any], at: str) -> None:
    for index, text in enumerate(value):
        if not isinstance(text, str):
            raise wrong("text", show(text), f"{at}[{index}]")


LEAVES: dict[str, Leaf] = {"uint8": _pixels, "float32": _numbers, "str": _texts}
