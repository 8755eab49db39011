"""A number: float32, NaN where it is missing; a table of numbers alone is one tensor, `features` [F]."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np

from boatyard.data.kinds.base import ColumnCleaner, Kind, Limits, SliceColumn, Where
from boatyard.data.schema import Array, Field, Tensor
from boatyard.data.values import GREATEST, number, wrong

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import nn

    from boatyard.data.columns import ColumnProfile
    from boatyard.data.statistics import Statistic
    from boatyard.project import PreprocessConfig


class NumberKind(Kind):
    """A finite number that float32 holds."""

    name = "number"
    stacked = True

    def pin(
        self,
        draft: Field,
        nullable: bool,
        bounds: tuple[float | None, float | None],
        statistics: Mapping[str, Any],
    ) -> Field:
        return replace(draft, nullable=nullable, minimum=bounds[0], maximum=bounds[1])

    def read(self, field: Field, value: Any, at: str) -> float:
        return number(value, at)

    def write(self, field: Field, values: Array) -> list[Any]:
        return [None if math.isnan(value) else value for value in values.tolist()]

    def read_all(self, tensor: Tensor, fields: Sequence[Field], values: list[Any]) -> Array | None:
        types = set(map(type, chain.from_iterable(values) if tensor.shape else values))
        if not types <= {int, float, NoneType}:
            return None
        try:
            wide = np.array(values, np.float64)  # None is NaN
        except OverflowError:
            return None
        return None if (np.abs(wide) > GREATEST).any() else wide.astype(np.float32)

    def limits(self, field: Field) -> Limits:
        return Limits(field.minimum, field.maximum, field.nullable)

    def check(self, field: Field, values: Array, where: Where) -> None:
        check_numbers(field, values, where, nullable=field.nullable)

    def claims(self, profile: ColumnProfile) -> bool:
        from boatyard.data.columns import FEW_ROWS

        # all values are numbers, or all but a few of many: what becomes of those the policy says
        there = profile.count - profile.missing
        odd = there - profile.numbers
        mostly = there >= FEW_ROWS and profile.numbers >= 19 * odd and (profile.many or len(profile.texts) > 20)
        return odd == 0 or mostly

    def read_column(self, field: Field, column: pa.Array) -> tuple[Array, Array]:
        from boatyard.data import columns

        return columns.numbers(column)

    def clean(self, field: Field, column: pa.Array, cleaner: ColumnCleaner) -> Array:
        values, odd = self.read_column(field, column)
        cleaner.apply("unreadable", cleaner.preprocess.unreadable, field.name, odd, column)
        low, high = cleaner.ranges.get(field.name, (None, None))
        low, high = -GREATEST if low is None else low, GREATEST if high is None else high
        far = (values < low) | (values > high)
        if far.any():
            cleaner.apply("out of range", cleaner.preprocess.out_of_range, field.name, far, column)
            values = np.clip(values, low, high) if cleaner.preprocess.out_of_range == "clip" else values
        cleaner.apply("missing", cleaner.preprocess.missing, field.name, np.isnan(values) & ~odd, None)
        return values

    def statistic(self) -> type[Statistic]:
        from boatyard.data.statistics import Moments

        return Moments

    def fit(self, values: Array, index: Array, sampled: Array) -> Statistic:
        from boatyard.data.statistics import Moments

        return Moments.of(values[index].astype(np.float32).astype(np.float64), sampled)

    def features(
        self, tensor: Tensor, fields: Sequence[Field], statistics: Mapping[str, Any], preprocess: PreprocessConfig
    ) -> nn.Module:
        from boatyard.data.features import NumberFeatures

        return NumberFeatures(tensor.name, fields, statistics, preprocess)

    def slices(self, field: Field) -> tuple[SliceColumn, ...]:
        return (SliceColumn(field.name, True, lambda values: values),)

    def show(self, field: Field, value: Any) -> str:
        return f"{float(value):.6g}" if math.isfinite(value) else "(missing)"


def check_numbers(field: Field, values: Array, where: Where, *, nullable: bool) -> None:
    """Hold numbers [N, *shape] to be finite, or missing where that is allowed, and to the field's range."""
    if values.dtype == np.uint8 and field.minimum is None and field.maximum is None:
        return
    rows = values.reshape(len(values), -1)
    missing = np.isnan(rows)
    bad = np.isinf(rows) if nullable else ~np.isfinite(rows)
    if bad.any():
        _refuse(f"a finite number{' or null' if field.nullable else ''}", rows, bad, where)
    low, high = field.minimum, field.maximum
    outside = (rows < (-math.inf if low is None else low)) | (rows > (math.inf if high is None else high))
    if (outside & ~missing).any():
        _refuse(f"a number from {_bound(low)} to {_bound(high)}", rows, outside, where)


def _refuse(expected: str, rows: Array, bad: Array, where: Where) -> None:
    row, column = (int(i) for i in np.argwhere(bad)[0])
    value = float(rows[row, column])
    raise wrong(expected, "a missing value" if math.isnan(value) else f"{value:g}", where(row))


def _bound(value: float | None) -> str:
    return "any" if value is None else f"{value:g}"


KIND = NumberKind()
