"""The interface of a field's kind: all that depends on what a field is, from the source file to the report.

A kind is a subclass of `Kind` and one object of it, `KIND` in a module of this folder or an entry point of the group
`boatyard.kinds`; the project file names it in `data.columns`. The least that one has: `name`, the `dtype` and `shape`
of its tensor, `read` and `write`, and the `features` that the model sees. `conformance.check` holds it to the rules.

One value takes three forms:

* *raw*, as a request's JSON or a cell of a file has it: any JSON value, of any length. `read` turns it into …
* its *tensor*, an array of the field's dtype and shape: what shards hold and the ONNX model takes. `write` goes back.
* what `features` make of it: float32 columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np

from boatyard import plugins
from boatyard.data.schema import Array, DType, Field, Tensor
from boatyard.data.values import wrong
from boatyard.errors import RequestError

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import nn

    from boatyard.data.columns import ColumnProfile
    from boatyard.data.statistics import Statistic
    from boatyard.project import PreprocessConfig

Reason = Literal["unreadable", "missing", "out of range"]
Policy = Literal["drop", "impute", "clip", "refuse"]
Where = Callable[[int], str]  # row → the place as the client wrote it


class Limits(NamedTuple):
    """What a field's numbers are held to in one pass over a tensor; a bound that is None is not there."""

    low: float | None
    high: float | None
    nullable: bool


@dataclass(frozen=True)
class SliceColumn:
    """A column that evaluation slices by: texts or numbers [N], made of the field's values."""

    name: str
    numeric: bool
    of: Callable[[Array], Array]


class ColumnCleaner(Protocol):
    """What a kind is given to clean the columns of a block with: the policies, and where it says what is wrong."""

    preprocess: PreprocessConfig
    ranges: Mapping[str, tuple[float | None, float | None]]  # data.ranges

    def apply(self, reason: Reason, policy: Policy, name: str, wrong: Array, values: Any) -> None:
        """Note the rows, bool [N], in which a column is wrong; drop or refuse them, or not, as the policy says.

        A message names the first wrong one of `values`, where they are given.
        """


class Kind(ABC):
    """What a field is; a plug-in overrides what its values need and keeps the rest."""

    name: ClassVar[str]
    dtype: ClassVar[DType] = "float32"
    shape: ClassVar[tuple[int, ...]] = ()
    tabular: ClassVar[bool] = True  # a column of a table can be of this kind
    alone: ClassVar[bool] = False  # a row is one field of this kind and nothing else
    stacked: ClassVar[bool] = False  # where all fields are of this kind, they are one tensor, `features`
    pictured: ClassVar[bool] = False  # a person looks at it as a picture, not as text
    augmented: ClassVar[bool] = False  # training may flip, shift and erase it
    media_types: ClassVar[tuple[str, ...]] = ()  # of a body that is one value and no JSON

    # The schema

    def draft(self, name: str, shape: tuple[int, ...], dtype: str) -> Field:
        """Return a field as the source has it: `shape` and `dtype` are those of an array's row."""
        return Field(name, self.name, self.dtype, self.shape)

    def pin(
        self,
        draft: Field,
        nullable: bool,
        bounds: tuple[float | None, float | None],
        statistics: Mapping[str, Any],
    ) -> Field:
        """Pin a draft once the rows were cleaned: what may be missing, data.ranges, the training rows' statistics."""
        return replace(draft, nullable=nullable)

    def problem(self, field: Field) -> str:
        """Say what is wrong with a field that a schema has; empty when nothing is."""
        return "" if (field.dtype, field.shape) == (self.dtype, self.shape) else "a column of a wrong type"

    def tensor(self, field: Field) -> Tensor:
        """Return the input of the ONNX model that a field of this kind is."""
        return Tensor(field.name, field.dtype, field.shape, (field.name,))

    def wire(self, field: Field) -> Tensor:
        """Return the tensor that V2 and gRPC carry: the model's own, unless raw values are sent (`from_wire`)."""
        return self.tensor(field)

    # A raw value

    @abstractmethod
    def read(self, field: Field, value: Any, at: str) -> Any:
        """Return a raw value, which is not null, as one element of the tensor; raises RequestError that names `at`.

        Preprocess, evaluate and the server read by this one function.
        """

    @abstractmethod
    def write(self, field: Field, values: Array) -> list[Any]:
        """Return values [N, *shape] as JSON; `read` takes them back bit for bit, null stands for a missing one."""

    def missing(self, field: Field) -> Any:
        """Return what the tensor holds where a value is missing."""
        return np.full(field.shape, np.nan, np.float32) if field.shape else float("nan")

    def is_missing(self, values: Array) -> Array:
        """Say which of values [N, *shape] are missing, bool [N]."""
        return np.asarray(np.isnan(values).reshape(len(values), -1).any(axis=1))

    def read_or_missing(self, field: Field, value: Any, at: str) -> Any:
        """Read a raw value, null where the field allows it; raises RequestError."""
        if value is not None:
            return self.read(field, value, at)
        if not field.nullable:
            raise wrong(f"a {self.name}", "null", at)
        return self.missing(field)

    def read_all(self, tensor: Tensor, fields: Sequence[Field], values: list[Any]) -> Array | None:
        """Return many values that are all as expected, [N, *tensor.shape], without a look at each; else None."""
        return None

    def read_body(self, field: Field, data: bytes, at: str) -> Array:
        """Read a body of one of `media_types`; raises RequestError."""
        raise wrong("JSON", " or ".join(self.media_types) or "another body", at)

    def from_wire(self, field: Field, values: Array, where: Where) -> Array:
        """Turn what V2 and gRPC carried, [N, *wire shape], into the model's tensor; raises RequestError."""
        if self.wire(field) == self.tensor(field):
            return values
        read = [self.read_or_missing(field, value or None, where(row)) for row, value in enumerate(values.tolist())]
        return np.array(read, field.dtype).reshape(len(values), *field.shape)

    def limits(self, field: Field) -> Limits | None:
        """Return the limits that say all of `check` in one pass over numbers, None when only `check` knows."""
        return None

    def check(self, field: Field, values: Array, where: Where) -> None:
        """Hold values of the right type and shape to the schema; raises RequestError."""
        gone = self.is_missing(values)
        if gone.any() and not field.nullable:
            raise wrong(f"a {self.name}", "a missing value", where(int(gone.argmax())))

    # A column of a source file

    def claims(self, profile: ColumnProfile) -> bool:
        """Say whether a column that nobody named a kind for is of this one; only kinds that are built in are asked."""
        return False

    def check_column(self, profile: ColumnProfile, named: bool) -> None:
        """Raise DataError for a column that carries no signal; `named`: the project file gives it this kind."""
        return

    def read_column(self, field: Field, column: pa.Array) -> tuple[Array, Array]:
        """Return a plain column (`columns.plain`) as values [N, *shape], and which are unreadable, bool [N]."""
        import pyarrow.compute as pc

        from boatyard.data import columns

        coded = pc.dictionary_encode(columns.categories(column))
        distinct = [self._cell(field, text) for text in coded.dictionary.to_pylist()]
        missing = self.missing(field)
        values = [missing if value is None else value for value, _ in distinct] or [missing]
        table = np.array(values, field.dtype).reshape(-1, *field.shape)
        odd = np.array([is_odd for _, is_odd in distinct] or [False])
        rows = coded.indices.to_numpy(zero_copy_only=False)
        return table[rows], odd[rows]

    def clean(self, field: Field, column: pa.Array, cleaner: ColumnCleaner) -> Any:
        """Read a column of a block and note what the policies say of it; return its values."""
        values, odd = self.read_column(field, column)
        cleaner.apply("unreadable", cleaner.preprocess.unreadable, field.name, odd, column)
        cleaner.apply("missing", cleaner.preprocess.missing, field.name, self.is_missing(values) & ~odd, None)
        return values

    def hashes(self, values: Any) -> Array:
        """Return a hash of each value as the model sees it, uint64 [N]: equal values, equal hashes."""
        from boatyard.data import row_hashes

        return row_hashes.number_bits(values) if values.ndim == 1 else row_hashes.array_hashes(values)

    # A dataset

    def arrow_type(self, field: Field) -> pa.DataType:
        """Return the type of the field's column in Parquet."""
        import pyarrow as pa

        return pa.binary(self.row_bytes(field)) if field.shape else pa.from_numpy_dtype(np.dtype(field.dtype))

    def row_bytes(self, field: Field) -> int:
        """Return about how many bytes a value takes in a shard."""
        return int(np.prod(field.shape, dtype=int)) * np.dtype(field.dtype).itemsize

    def store(self, field: Field, values: Any, index: Array) -> pa.Array:
        """Return the values at an index as the shard's column."""
        import pyarrow as pa

        if not field.shape:
            return pa.array(values[index].astype(field.dtype))
        flat = np.ascontiguousarray(values[index]).reshape(len(index), -1).view(np.uint8)
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(flat.shape[1]), len(flat), [None, pa.py_buffer(flat)])

    def load(self, field: Field, column: pa.ChunkedArray) -> Array:
        """Return a shard's column as values [N, *shape], of several elements without a copy."""
        import pyarrow as pa

        if not field.shape:
            return np.asarray(column.to_numpy(), field.dtype)
        array = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
        width = self.row_bytes(field)
        data = array.buffers()[1].slice(array.offset * width, len(array) * width)
        return np.frombuffer(data, field.dtype).reshape(len(array), *field.shape)

    def statistic(self) -> type[Statistic]:
        """Return the class that its statistics are of."""
        from boatyard.data.statistics import Presence

        return Presence

    def fit(self, values: Any, index: Array, sampled: Array) -> Statistic:
        """Return the statistics of a block's training rows; `sampled`, bool, says which a median is taken of."""
        from boatyard.data.statistics import Presence

        return Presence.of(self.is_missing(values[index]))

    # The model

    @abstractmethod
    def features(
        self, tensor: Tensor, fields: Sequence[Field], statistics: Mapping[str, Any], preprocess: PreprocessConfig
    ) -> nn.Module:
        """Return a torch module: the model's inputs by name → float32 [N, F], its F names in `columns`.

        `fields` has one field, or those that are stacked; `statistics` are by field. The module is exported to ONNX.
        """

    def torch_dtype(self, field: Field) -> str:
        """Return the element type that `features` take: the tensor's own, unless `prelude` makes another of it."""
        return field.dtype

    def to_torch(self, field: Field, values: Array) -> Array:
        """Return values [N, …] as `features` take them, as the prelude does in the ONNX model."""
        return values.astype(self.torch_dtype(field))

    def prelude(self, field: Field, source: str, result: str) -> list[Any]:
        """Return ONNX nodes from the input `source` to `result`, for what torch has no type of; often none."""
        return []

    # The report

    def slices(self, field: Field) -> tuple[SliceColumn, ...]:
        """Return the columns that evaluation slices by."""
        return ()

    def show(self, field: Field, value: Any) -> str:
        """Return one value for people."""
        raw = self.write(field, np.asarray(value)[None])[0]
        return "(missing)" if raw is None else str(raw)

    def _cell(self, field: Field, text: str) -> tuple[Any, bool]:
        """Read one cell of a file: a value, None where it is missing, and whether it is unreadable."""
        if not text:
            return None, False
        try:
            return self.read(field, text, field.name), False
        except RequestError:
            return None, True


@cache
def load(name: str) -> Kind:
    """Return a kind by name; raises ConfigError with the nearest one where there is none."""
    kind: Kind = plugins.load("kinds", name)
    return kind


def of(field: Field) -> Kind:
    """Return the kind of a field."""
    return load(field.kind)
