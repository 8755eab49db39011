"""A category: a text, "" where it is missing; in the ONNX model its rank among those seen in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np

from boatyard.data.kinds.base import ColumnCleaner, Kind, SliceColumn, Where
from boatyard.data.schema import Array, Field, Tensor
from boatyard.data.values import show, wrong
from boatyard.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import nn

    from boatyard.data.columns import ColumnProfile
    from boatyard.data.statistics import Statistic
    from boatyard.project import PreprocessConfig

MAX_CATEGORIES = 1000
TEXT_BYTES = 16  # of a value in a shard, about: shards are cut by it


class CategoryKind(Kind):
    """One of the texts that training rows had, or an unknown one."""

    name = "category"
    dtype = "str"

    def pin(
        self,
        draft: Field,
        nullable: bool,
        bounds: tuple[float | None, float | None],
        statistics: Mapping[str, Any],
    ) -> Field:
        return replace(draft, nullable=nullable, categories=tuple(statistics["counts"]))

    def read(self, field: Field, value: Any, at: str) -> str:
        if not isinstance(value, str):
            raise wrong("a category (text)", show(value), at)
        return value

    def write(self, field: Field, values: Array) -> list[Any]:
        return [value or None for value in values.tolist()]

    def missing(self, field: Field) -> str:
        return ""

    def is_missing(self, values: Array) -> Array:
        return np.asarray(values == "")

    def read_all(self, tensor: Tensor, fields: Sequence[Field], values: list[Any]) -> Array | None:
        (field,), types = fields, set(map(type, values))
        if field.nullable and NoneType in types:
            values, types = ["" if value is None else value for value in values], types - {NoneType}
        return np.array(values, object) if types <= {str} and (field.nullable or "" not in values) else None

    def check(self, field: Field, values: Array, where: Where) -> None:
        if not field.nullable and (empty := values == "").any():
            raise wrong("a category", "an empty string", where(int(empty.argmax())))

    def claims(self, profile: ColumnProfile) -> bool:
        return True

    def check_column(self, profile: ColumnProfile, named: bool) -> None:
        from boatyard.data.columns import FEW_ROWS

        there = profile.count - profile.missing
        if profile.many:
            raise DataError(
                f"column {profile.name!r} has more than {MAX_CATEGORIES} different values", fix=f"{profile.no_signal()}"
            )
        if not named and there >= FEW_ROWS and len(profile.texts) > 0.9 * there:
            raise DataError(
                f"column {profile.name!r} has {len(profile.texts)} different values in {there} rows, "
                f"such as {min(profile.texts)[:40]!r}",
                fix=f"{profile.no_signal()}",
            )

    def clean(self, field: Field, column: pa.Array, cleaner: ColumnCleaner) -> pa.Array:
        import pyarrow.compute as pc

        from boatyard.data import columns

        values = columns.categories(column)
        missing = pc.equal(values, "").to_numpy(zero_copy_only=False)
        cleaner.apply("missing", cleaner.preprocess.missing, field.name, missing, None)
        return values

    def hashes(self, values: pa.Array) -> Array:
        from boatyard.data import row_hashes

        return row_hashes.text_hashes(values)

    def arrow_type(self, field: Field) -> pa.DataType:
        import pyarrow as pa

        return pa.string()

    def row_bytes(self, field: Field) -> int:
        return TEXT_BYTES

    def store(self, field: Field, values: pa.Array, index: Array) -> pa.Array:
        import pyarrow as pa

        return values.take(pa.array(index))

    def load(self, field: Field, column: pa.ChunkedArray) -> Array:
        return np.asarray(column.to_numpy(), object)

    def statistic(self) -> type[Statistic]:
        from boatyard.data.statistics import Counts

        return Counts

    def fit(self, values: pa.Array, index: Array, sampled: Array) -> Statistic:
        import pyarrow as pa

        from boatyard.data.statistics import Counts

        return Counts.of(values.take(pa.array(index)))

    def features(
        self, tensor: Tensor, fields: Sequence[Field], statistics: Mapping[str, Any], preprocess: PreprocessConfig
    ) -> nn.Module:
        from boatyard.data.features import CategoryFeatures

        (field,) = fields
        return CategoryFeatures(field, statistics[field.name], preprocess)

    def torch_dtype(self, field: Field) -> str:
        return "int64"

    def to_torch(self, field: Field, values: Array) -> Array:
        """Turn texts into codes: the rank in `categories`, then missing (""), then unknown."""
        known = np.asarray([*field.categories, ""], dtype=str)
        order = np.argsort(known, kind="stable")
        asked = np.asarray(values).astype(str)
        place = order[np.minimum(np.searchsorted(known, asked, sorter=order), len(known) - 1)]
        return np.where(known[place] == asked, place, len(known)).astype(np.int64)

    def prelude(self, field: Field, source: str, result: str) -> list[Any]:
        from onnx import helper

        known = [*field.categories, ""]
        return [
            helper.make_node(
                "LabelEncoder",
                [source],
                [result],
                name=f"{source}/encode",
                domain="ai.onnx.ml",
                keys_strings=known,
                values_int64s=list(range(len(known))),
                default_int64=len(known),
            )
        ]

    def slices(self, field: Field) -> tuple[SliceColumn, ...]:
        return (SliceColumn(field.name, False, lambda values: values),)

    def show(self, field: Field, value: Any) -> str:
        return str(value) or "(missing)"


KIND = CategoryKind()
