"""The target's column: what of it is stored, what is missing, which labels there are, how the split is balanced.

A task has one of these: labels for what is told apart, numbers for what is measured. Preprocessing asks it and knows no
task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from boatyard.data.kinds.category import MAX_CATEGORIES
from boatyard.data.rounding import Rounding
from boatyard.data.schema import Array
from boatyard.data.values import GREATEST
from boatyard.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from boatyard.data.statistics import Statistic
    from boatyard.project import DataConfig

NO_LABEL = ("", "NaN", "nan")  # "none" and "NA" may be the name of a class


class Target(ABC):
    """What a row's target is; `column` is always a plain one (`columns.plain`): float64, or trimmed text."""

    expected: ClassVar[str]  # in every row

    @abstractmethod
    def arrow_type(self) -> pa.DataType:
        """Return the type of the column `target` in Parquet."""

    @abstractmethod
    def missing(self, column: pa.Array) -> Array:
        """Say which rows have no target that could be learnt from, bool [N]."""

    def rounding(self, column: pa.Array) -> Rounding:
        """Return what storing the column as float32 would lose; nothing where targets are no numbers."""
        return Rounding()

    def labels(self, column: pa.Array, missing: Array) -> set[str]:
        """Return the labels of the rows that have one; none where targets are no labels."""
        return set()

    def check_labels(self, labels: Collection[str], data: DataConfig) -> None:
        """Raise DataError for more labels than classes have; asked while rows are profiled."""
        return

    def order(self, labels: set[str], total: int, data: DataConfig) -> tuple[str, ...]:
        """Return the labels in the order of the model's outputs; raises DataError for what is no classes."""
        return ()

    @abstractmethod
    def read(self, column: pa.Array, labels: tuple[str, ...]) -> Array:
        """Return the targets [N]: label indices int32, or values float32."""

    @abstractmethod
    def strata(self, values: Array) -> Array:
        """Return what the split is balanced by, int32 [N]; rows of one stratum are shared out exactly."""

    @abstractmethod
    def statistic(self) -> type[Statistic]:
        """Return the class that its statistics are of."""

    @abstractmethod
    def fit(self, values: Array, labels: tuple[str, ...]) -> Statistic:
        """Return the statistics of training rows' targets."""

    @abstractmethod
    def summary(self, statistics: Mapping[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:
        """Return what a dataset's manifest says of them."""

    @abstractmethod
    def show(self, value: Any, labels: tuple[str, ...]) -> str:
        """Return one target for people."""


class LabelTarget(Target):
    """One of two labels or more: texts, or whole numbers; stored as its index."""

    expected = "a label"

    def arrow_type(self) -> pa.DataType:
        import pyarrow as pa

        return pa.int64()

    def missing(self, column: pa.Array) -> Array:
        import pyarrow as pa
        import pyarrow.compute as pc

        gone = pc.is_in(_texts(column), value_set=pa.array(NO_LABEL)).to_numpy(zero_copy_only=False)
        return np.asarray(gone)

    def labels(self, column: pa.Array, missing: Array) -> set[str]:
        import pyarrow as pa
        import pyarrow.compute as pc

        return set(pc.unique(_texts(column).filter(pa.array(~missing))).to_pylist())

    def check_labels(self, labels: Collection[str], data: DataConfig) -> None:
        if len(labels) > MAX_CATEGORIES:
            examples = ", ".join(repr(label[:40]) for label in sorted(labels)[:3])
            raise DataError(
                f"the target {data.target!r} has more than {MAX_CATEGORIES} different values such as {examples}",
                fix="expected classes: for a number say task: regression",
            )

    def order(self, labels: set[str], total: int, data: DataConfig) -> tuple[str, ...]:
        """Return the labels as the project names them, else sorted, as numbers where all are."""
        from boatyard.data.columns import FEW_ROWS, is_number

        if len(labels) < 2:
            raise DataError(
                f"every row has the label {min(labels)!r}", fix="expected two classes or more to tell apart"
            )
        if len(labels) > 0.5 * total and total >= FEW_ROWS:
            raise DataError(
                f"the target {data.target!r} has {len(labels)} different values in {total} rows",
                fix="expected classes of several rows each: for a number say task: regression",
            )
        if data.labels:
            return _named(labels, data.labels)
        if all(is_number(label) for label in labels):
            return tuple(sorted(labels, key=lambda label: (float(label), label)))
        return tuple(sorted(labels))

    def read(self, column: pa.Array, labels: tuple[str, ...]) -> Array:
        """Return indices: of names, or where the project names numbers 0, 1, 2 … of those."""
        import pyarrow as pa
        import pyarrow.compute as pc

        texts = _texts(column)
        codes = pc.index_in(texts, value_set=pa.array(labels))
        if codes.null_count:
            codes = pc.index_in(texts, value_set=pa.array([str(i) for i in range(len(labels))]))
        return np.asarray(codes.to_numpy(zero_copy_only=False).astype(np.int32))

    def strata(self, values: Array) -> Array:
        return values

    def statistic(self) -> type[Statistic]:
        from boatyard.data.statistics import Counts

        return Counts

    def fit(self, values: Array, labels: tuple[str, ...]) -> Statistic:
        import pyarrow as pa

        from boatyard.data.statistics import Counts

        return Counts.of(pa.array(labels).take(pa.array(values)))

    def summary(self, statistics: Mapping[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:
        return {"counts": {label: statistics["counts"].get(label, 0) for label in labels}}

    def show(self, value: Any, labels: tuple[str, ...]) -> str:
        return labels[int(value)]


class NumberTarget(Target):
    """A finite number, stored as float32."""

    expected = "a finite number"

    def arrow_type(self) -> pa.DataType:
        import pyarrow as pa

        return pa.float32()

    def missing(self, column: pa.Array) -> Array:
        from boatyard.data import columns

        values, odd = columns.numbers(column)
        return np.asarray(odd | ~(np.abs(values) <= GREATEST))

    def read(self, column: pa.Array, labels: tuple[str, ...]) -> Array:
        from boatyard.data import columns

        return columns.numbers(column)[0].astype(np.float32)

    def rounding(self, column: pa.Array) -> Rounding:
        from boatyard.data import columns

        return Rounding.of(columns.numbers(column)[0])

    def strata(self, values: Array) -> Array:
        """One stratum: chance alone balances numbers."""
        return np.zeros(len(values), np.int32)

    def statistic(self) -> type[Statistic]:
        from boatyard.data.statistics import Moments

        return Moments

    def fit(self, values: Array, labels: tuple[str, ...]) -> Statistic:
        from boatyard.data.statistics import Moments

        return Moments.of(values.astype(np.float64))

    def summary(self, statistics: Mapping[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:
        return {key: statistics[key] for key in ("mean", "std", "min", "max")}

    def show(self, value: Any, labels: tuple[str, ...]) -> str:
        return f"{float(value):.6g}"


def _texts(column: pa.Array) -> pa.Array:
    """Return a plain target column as text; whole numbers without a point, missing as ""."""
    import pyarrow as pa

    from boatyard.data import columns

    return columns.categories(column) if pa.types.is_floating(column.type) else column


def _named(labels: set[str], given: tuple[str, ...]) -> tuple[str, ...]:
    """Check the names that the project gives: of the labels found, or of the numbers 0, 1, 2 …"""
    numbers = {str(i) for i in range(len(given))}
    if not (labels <= set(given) or labels <= numbers):
        odd = min(labels - numbers - set(given), default=min(labels - numbers, default=""))
        raise DataError(
            f"data.labels names {len(given)} classes",
            fix=(f"{odd!r} in the data is neither one of the names nor a number from 0 to {len(given) - 1}"),
        )
    return given
