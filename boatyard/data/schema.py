"""What a raw row is: its fields, their types and what is allowed; pinned by preprocess, sealed in the package.

One image (uint8 or float32, [H, W] grey or [H, W, C] colour) or one table row (numbers, categories, and what a plug-in
brings). What a field's kind means is in `kinds`. The same schema checks training rows, evaluation rows and requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from boatyard.data.artifacts import digest_json
from boatyard.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from boatyard.data.kinds import Kind

Array = np.ndarray[Any, np.dtype[Any]]
DType = Literal["uint8", "float32", "str"]
Task = str  # the name of one; what depends on it is asked of `boatyard.tasks`


@dataclass(frozen=True)
class Field:
    """One field of a raw row.

    `kind` names its kind: image, number, category, or a plug-in's. `dtype` is uint8 or float32 for an image, float32
    for a number, str for a category. `shape` is [H, W] or [H, W, C] for an image, empty for those two. `nullable` says
    that a missing value (null, NaN, "") is allowed; the graph replaces it. `categories` are the values seen in
    training, sorted; another value counts as unknown. `minimum` and `maximum` are the closed range of values that the
    project file allows, or None.
    """

    name: str
    kind: str
    dtype: DType
    shape: tuple[int, ...] = ()
    nullable: bool = False
    categories: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class Tensor:
    """One input of the graph: name, element type, shape of one row (no batch), and the fields in it.

    `stacked`: the fields are its columns; else it is one field, whatever its shape.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    fields: tuple[str, ...]
    stacked: bool = False

    def column(self, values: Array, name: str) -> Array:
        """Return one field's values [N, …] of the tensor's."""
        return values[:, self.fields.index(name)] if self.stacked else values


@dataclass(frozen=True)
class Schema:
    """The fields of a row in order, the target's name, and the labels in the order of the model's outputs."""

    task: Task
    fields: tuple[Field, ...]
    target: str
    labels: tuple[str, ...] = ()

    @property
    def alone(self) -> Field | None:
        """The one field that a row is, where its kind makes rows of one field: an image is such, a number is not."""
        return self.fields[0] if self.kinds[0].alone else None

    @property
    def pictured(self) -> Field | None:
        """The field that a person looks at as a picture, if there is one."""
        return next((f for f, kind in zip(self.fields, self.kinds, strict=True) if kind.pictured), None)

    def field(self, name: str) -> Field:
        """Return a field by name; KeyError if there is none."""
        return self._by_name[name]

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the ONNX model's inputs.

        An image is one tensor, `image`. A table of numbers alone is one tensor, `features`, float32 [F], columns in
        order (what scikit-learn's servers take). Any other table is one tensor per column, as its kind says.
        """
        return self._tensors

    def wires(self) -> tuple[Tensor, ...]:
        """Return what V2 and gRPC carry: the ONNX model's inputs, but for kinds that read raw values there too."""
        return self._wires

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """The kind of each field."""
        from boatyard.data import kinds

        return tuple(kinds.of(field) for field in self.fields)

    @cached_property
    def _by_name(self) -> dict[str, Field]:
        return {field.name: field for field in self.fields}

    @cached_property
    def _tensors(self) -> tuple[Tensor, ...]:
        if self._stacked:
            names = tuple(field.name for field in self.fields)
            return (Tensor("features", self.fields[0].dtype, (len(names),), names, stacked=True),)
        return tuple(kind.tensor(field) for kind, field in zip(self.kinds, self.fields, strict=True))

    @cached_property
    def _wires(self) -> tuple[Tensor, ...]:
        if self._stacked:
            return self._tensors
        return tuple(kind.wire(field) for kind, field in zip(self.kinds, self.fields, strict=True))

    @cached_property
    def _stacked(self) -> bool:
        return self.kinds[0].stacked and len({field.kind for field in self.fields}) == 1

    def __hash__(self) -> int:
        """Hash what is short: a schema is a key in every request, and one of a thousand columns is long."""
        return hash((self.task, self.target, self.labels, len(self.fields)))

    def to_dict(self) -> dict[str, Any]:
        """Return the schema as JSON values; `from_dict` takes them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Schema:
        """Read a schema; raises ArtifactError when it is not one."""
        try:
            fields = tuple(
                Field(**{**f, "shape": tuple(f["shape"]), "categories": tuple(f["categories"])})
                for f in value["fields"]
            )
            schema = cls(value["task"], fields, value["target"], tuple(value["labels"]))
            _ = schema.kinds
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"not a schema of ours: {error}") from error
        except ConfigError as error:
            raise ArtifactError(f"the schema has a field of a kind that is not installed here: {error}") from error
        return schema

    @property
    def digest(self) -> str:
        """The sha256 of the schema's canonical JSON."""
        return digest_json(self.to_dict())


@dataclass(frozen=True)
class Batch:
    """Raw rows: `inputs` by tensor name, each [N, *shape]; `target` int64 label indices or float32 values [N];
    `rows` int64 [N], the row's number in its source; `slices`, columns kept for slicing only, str [N]."""

    inputs: Mapping[str, Array]
    target: Array
    rows: Array
    slices: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: Sequence[int] | Array | slice) -> Batch:
        """Return the rows at an index, in its order."""
        return Batch(
            {name: value[index] for name, value in self.inputs.items()},
            self.target[index],
            self.rows[index],
            {name: value[index] for name, value in self.slices.items()},
        )

    def split(self, size: int) -> Iterator[Batch]:
        """Cut into batches of at most `size` rows, in order."""
        for start in range(0, len(self), size):
            yield self.take(slice(start, start + size))
